"""Says whether a pipeline can run on Argo; what cannot is refused with its path, never left out."""

from collections.abc import Iterator
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

from mlmesh_pipeline.argo.names import is_label_value
from mlmesh_pipeline.argo.platform_fields import faults_of
from mlmesh_pipeline.argo.text import has_variable
from mlmesh_pipeline.ir.cluster_names import faults
from mlmesh_pipeline.ir.commands import BadCommand, CommandLine, check_command
from mlmesh_pipeline.ir.container_resources import Machine, check_resources
from mlmesh_pipeline.ir.document import FIELD, PipelineDocument
from mlmesh_pipeline.ir.placeholders import names_in
from mlmesh_pipeline.ir.runnable import code_of, has_workspace

_PLATFORM = "platform_spec.platforms.kubernetes.deploymentSpec.executors"
_ANY = Machine(1 << 62, 1 << 62)  # what the cluster has is not known here


def check_compilable(document: PipelineDocument) -> None:
    """Checks that a pipeline can be made a Workflow.

    Args:
        document: The pipeline, of which `ir.check` has found no fault.

    Raises:
        InvalidArgument: Something in it is wrong.
        FailedPrecondition: Argo cannot do it.
    """
    for component in _used(document):
        if component.WhichOneof("implementation") == "executor_label":
            _check_executor(document, component)
    for name, platform in document.platform.platforms.items():
        if name != "kubernetes":
            raise FailedPrecondition(f"platform_spec.platforms[{name!r}]: only kubernetes is known")
        config = platform.pipelineConfig
        for field in (
            "resource_ttl_on_completion",
            "resource_ttl_on_success",
            "resource_ttl_on_failure",
            "active_deadline_seconds",
        ):
            if getattr(config, field) < 0:
                path = f"platform_spec.platforms.kubernetes.pipelineConfig.{field}"
                raise InvalidArgument("must not be negative", field=path)


def _used(document: PipelineDocument) -> Iterator[Any]:
    """Gives the components that the pipeline comes to."""
    seen: set[str] = set()
    waiting = [document.spec.root]
    while waiting:
        component = waiting.pop()
        yield component
        for task in component.dag.tasks.values():
            name = task.component_ref.name
            if name not in seen:
                seen.add(name)
                waiting.append(document.component(name))


def _check_executor(document: PipelineDocument, component: Any) -> None:
    label = component.executor_label
    path = f"{FIELD}.deploymentSpec.executors[{label!r}]"
    executor = document.executor(label)
    kind = executor.WhichOneof("spec")
    if kind == "container":
        _check_container(component, executor.container, f"{path}.container")
    elif kind == "importer":
        if executor.importer.download_to_workspace and not has_workspace(document):
            raise FailedPrecondition(f"{path}.importer.downloadToWorkspace: the pipeline has no workspace")
        if executor.importer.artifact_uri.WhichOneof("value") is None:
            raise InvalidArgument("is required", field=f"{path}.importer.artifactUri")
    else:
        raise FailedPrecondition(f"{path}: {kind or 'an empty executor'} cannot run on Argo Workflows")
    where = f"{_PLATFORM}[{label!r}]"
    config = document.platform_config(label)
    if found := [*faults_of(config, where), *((f"{where}.{field}", problem) for field, problem in faults(config))]:
        raise InvalidArgument.of(found[:20])
    metadata = config.get("podMetadata", {})
    for name, value in metadata.get("labels", {}).items():
        if not isinstance(value, str) or not is_label_value(value) or has_variable(name):
            raise InvalidArgument("must be a label's value", field=f"{where}.podMetadata.labels[{name!r}]")
    for name, value in metadata.get("annotations", {}).items():
        if not isinstance(value, str) or has_variable(name + value):
            message = "must be text without '{{', which is Argo's"
            raise InvalidArgument(message, field=f"{where}.podMetadata.annotations[{name!r}]")


def _check_container(component: Any, container: Any, path: str) -> None:
    if not container.image:
        raise InvalidArgument("is required", field=f"{path}.image")
    code = code_of(container)
    if isinstance(code, CommandLine):
        try:
            check_command(code, component)
        except BadCommand as error:
            raise InvalidArgument(str(error), field=path) from error
    check_resources(container.resources, f"{path}.resources", _ANY)
    for variable in container.env:
        if unknown := names_in(variable.value)[1]:
            message = f"unknown placeholder {min(unknown)}"
            raise InvalidArgument(message, field=f"{path}.env[{variable.name!r}]")
