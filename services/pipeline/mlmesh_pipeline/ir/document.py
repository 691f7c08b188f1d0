"""A pipeline document: the specification, what executes it, and what it asks of its platform."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from mlmesh_kit.errors import InvalidArgument

from mlmesh_pipeline.ir.proto import DeploymentConfig, PipelineSpec, PlatformSpec

FIELD = "pipeline_spec"
MAX_DEPTH = 95
"""In nested messages, as the API gives a specification (a map is three, a list two): protobuf reads at most 100."""
MAX_NODES = 500_000
MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class PipelineDocument:
    """A pipeline as it was submitted, parsed.

    Attributes:
        spec: `ml_pipelines.PipelineSpec`.
        deployment: Its `deploymentSpec`, parsed.
        platform: `ml_pipelines.PlatformSpec`; empty where none was given.
        content: What it was parsed from, JSON-ready.
    """

    spec: Any
    deployment: Any
    platform: Any
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the pipeline."""
        return str(self.spec.pipeline_info.name)

    def component(self, name: str) -> Any:
        """Gives a component by name."""
        return self.spec.components[name]

    def executor(self, label: str) -> Any:
        """Gives an executor by label."""
        return self.deployment.executors[label]

    def platform_config(self, label: str) -> dict[str, Any]:
        """Gives what the document asks of Kubernetes for an executor."""
        platform = self.platform.platforms.get("kubernetes")
        if platform is None or label not in platform.deployment_spec.executors:
            return {}
        found: dict[str, Any] = json_format.MessageToDict(platform.deployment_spec.executors[label])
        return found


def join_documents(documents: list[Any]) -> dict[str, Any]:
    """Makes one content of the documents of a YAML file: the specification, then perhaps the platform's.

    Raises:
        InvalidArgument: They are not one or two mappings.
    """
    if not documents or len(documents) > 2 or not all(isinstance(document, dict) for document in documents):
        raise InvalidArgument("must be a pipeline specification, and at most one platform specification", field=FIELD)
    if len(documents) == 1:
        return dict(documents[0])
    return {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def parse(content: Mapping[str, Any]) -> PipelineDocument:
    """Parses a document; `mlmesh_pipeline.ir.check` then says whether it holds together.

    Args:
        content: A PipelineSpec as JSON, or `{"pipeline_spec": ..., "platform_spec": ...}`.

    Raises:
        InvalidArgument: It has unknown fields, wrong types, or is too deep; the message has the path.
    """
    _check_size(content)
    whole = dict(content)
    if "pipeline_spec" in whole:
        unknown = set(whole) - {"pipeline_spec", "platform_spec"}
        if unknown:
            raise InvalidArgument(f"unknown field {sorted(unknown)[0]!r} beside pipeline_spec", field=FIELD)
        spec_content, platform_content = whole["pipeline_spec"], whole.get("platform_spec") or {}
    else:
        spec_content, platform_content = whole, {}
    spec = _message(spec_content, PipelineSpec(), FIELD)
    deployment_content = json_format.MessageToDict(spec.deployment_spec)
    deployment = _message(deployment_content, DeploymentConfig(), f"{FIELD}.deploymentSpec")
    platform = _message(platform_content, PlatformSpec(), "platform_spec")
    return PipelineDocument(spec, deployment, platform, whole)


def _message(content: Any, message: Any, field: str) -> Any:
    if not isinstance(content, dict):
        raise InvalidArgument("must be a mapping", field=field)
    try:
        return json_format.ParseDict(content, message, max_recursion_depth=MAX_DEPTH)
    except (json_format.ParseError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise InvalidArgument(_words(error), field=field) from error


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text.replace("ml_pipelines.", "")[:500]


def _check_size(content: Any) -> None:
    """Walks without recursion, so that depth costs nothing."""
    stack = [(content, 1)]
    nodes = size = 0
    while stack:
        item, depth = stack.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            raise InvalidArgument("nested deeper than messages can be: some 30 maps or 45 lists", field=FIELD)
        if nodes > MAX_NODES:
            raise InvalidArgument(f"more than {MAX_NODES} values", field=FIELD)
        if isinstance(item, dict):
            for key, value in item.items():
                if not isinstance(key, str):
                    raise InvalidArgument("keys must be strings", field=FIELD)
                size += len(key)
                stack.append((value, depth + 3))
        elif isinstance(item, list):
            stack += [(value, depth + 2) for value in item]
        elif isinstance(item, str):
            size += len(item)
        elif isinstance(item, int | float) and not _is_number(item):
            raise InvalidArgument("holds a number that JSON does not know, or one that is too large", field=FIELD)
        elif item is not None and not isinstance(item, bool | int | float):
            raise InvalidArgument(f"holds a {type(item).__name__}, which JSON does not know", field=FIELD)
        if size > MAX_BYTES:
            raise InvalidArgument(f"larger than {MAX_BYTES} bytes", field=FIELD)


def _is_number(value: int | float) -> bool:
    """Tells whether a `google.protobuf.Value` can have it."""
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
