"""Fingerprints: two tasks with the same one give the same outputs."""

import hashlib
import json
from typing import Any

from google.protobuf import json_format

from mlmesh_pipeline.resources import NO_CONTENT, Artifact, Run, Values


def fingerprint(run: Run, component: Any, container: Any, inputs: Values, cache_key: str) -> str:
    """Gives the fingerprint of a task.

    It covers what KFP's covers (pipeline, inputs, outputs, command, image) and, beyond it, the content of the input
    artifacts in the place of their ids, and the environment.

    Args:
        run: Its run; caches of namespaces and of pipelines are apart.
        component: Its ComponentSpec.
        container: Its container.
        inputs: Values of its inputs.
        cache_key: The user's own key; where there is one, it stands for all but pipeline and outputs.
    """
    content = fingerprint_content(run, component, container, inputs, cache_key)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def fingerprint_content(run: Run, component: Any, container: Any, inputs: Values, cache_key: str) -> dict[str, Any]:
    """Gives what the fingerprint of a task is made of, JSON-ready; arguments as `fingerprint`."""
    outputs = component.output_definitions
    content: dict[str, Any] = {
        "namespace": run.namespace,
        "pipeline": run.pipeline_name,
        "outputs": json_format.MessageToDict(outputs),
    }
    if cache_key:
        content["key"] = cache_key
    else:
        content |= {
            "container": json_format.MessageToDict(container),
            "parameters": {
                name: value
                for name, value in inputs.parameters.items()
                if name in component.input_definitions.parameters
            },
            "artifacts": {
                name: [[item.kind, _content_of(item), item.metadata] for item in items]
                for name, items in inputs.artifacts.items()
            },
        }
    return content


def _content_of(artifact: Artifact) -> str:
    if artifact.etag == NO_CONTENT:
        return NO_CONTENT
    return artifact.digest or f"{artifact.uri} {artifact.etag}".rstrip()
