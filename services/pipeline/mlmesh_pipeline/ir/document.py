"""A pipeline document: the specification, what executes it, and what it asks of its platform."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from mlmesh_kit.errors import InvalidArgument

from mlmesh_pipeline.ir.bounds import check_bounds
from mlmesh_pipeline.ir.messages import read_message
from mlmesh_pipeline.ir.proto import DeploymentConfig, PipelineSpec, PlatformSpec

FIELD = "pipeline_spec"
OTHER_PIPELINE_SETTINGS = frozenset(
    {
        "maxActiveRuns",
        "mutexName",
        "pipelineRunParallelism",
        "pipelineVersionConcurrencyLimit",
        "resourceTtl",
        "semaphoreKey",
    }
)
"""Of pipelines, in some releases of KFP; they are taken, and hold back nothing here."""


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
    """Makes one content of the documents of a YAML file: the specification and perhaps the platform's, in any order.

    Raises:
        InvalidArgument: They are not one or two mappings.
    """
    if not documents or len(documents) > 2 or not all(isinstance(document, dict) for document in documents):
        raise InvalidArgument("must be a pipeline specification, and at most one platform specification", field=FIELD)
    if len(documents) == 1:
        return dict(documents[0])
    spec, platform = documents
    if "platforms" in spec:
        spec, platform = platform, spec
    return {"pipeline_spec": spec, "platform_spec": platform}


def parse(content: Mapping[str, Any]) -> PipelineDocument:
    """Parses a document; `mlmesh_pipeline.ir.check` then says whether it holds together.

    Args:
        content: A PipelineSpec as JSON, or `{"pipeline_spec": ..., "platform_spec": ...}`.

    Raises:
        InvalidArgument: It has unknown fields, wrong types, or is too deep; the message has the path.
    """
    check_bounds(content, FIELD)
    if "apiVersion" in content:
        raise InvalidArgument("is a manifest of Kubernetes or of KFP 1; compile the pipeline with KFP 2", field=FIELD)
    whole = dict(content)
    if "pipeline_spec" in whole:
        unknown = set(whole) - {"pipeline_spec", "platform_spec"}
        if unknown:
            raise InvalidArgument(f"unknown field {sorted(unknown)[0]!r} beside pipeline_spec", field=FIELD)
        spec_content, platform_content = whole["pipeline_spec"], whole.get("platform_spec") or {}
    else:
        spec_content, platform_content = whole, {}
    spec = read_message(spec_content, PipelineSpec(), FIELD)
    deployment_content = json_format.MessageToDict(spec.deployment_spec)
    deployment = read_message(deployment_content, DeploymentConfig(), f"{FIELD}.deploymentSpec")
    platform = read_message(_without_other_settings(platform_content), PlatformSpec(), "platform_spec")
    return PipelineDocument(spec, deployment, platform, whole)


def _without_other_settings(content: Any) -> Any:
    """Leaves out what pipeline configurations of other releases of KFP have, and ours has not."""
    platforms = content.get("platforms") if isinstance(content, dict) else None
    if not isinstance(platforms, dict):
        return content
    found = {}
    for name, platform in platforms.items():
        found[name] = platform
        for field in ("pipelineConfig", "pipeline_config"):
            config = platform.get(field) if isinstance(platform, dict) else None
            if isinstance(config, dict):
                kept = {key: value for key, value in config.items() if key not in OTHER_PIPELINE_SETTINGS}
                found[name] = {**found[name], field: kept}
    return {**content, "platforms": found}
