"""Says whether a document can run on this machine; what cannot is refused by name, never left out."""

from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

from mlmesh_pipeline.ir.document import FIELD, PipelineDocument
from mlmesh_pipeline.ir.lightweight import NotLightweight, recognise
from mlmesh_pipeline.ir.placeholders import names_in
from mlmesh_pipeline.ir.values import WrongType, check_exact, parameter_type, to_python, type_name

_HARMLESS_PLATFORM = {
    "imagePullPolicy",
    "imagePullSecret",
    "nodeSelector",
    "tolerations",
    "podMetadata",
    "nodeAffinity",
}
_KNOWN_PLATFORM = _HARMLESS_PLATFORM | {"activeDeadlineSeconds"}


def check_runnable(document: PipelineDocument) -> None:
    """Checks that every executor is one that runs here.

    Raises:
        FailedPrecondition: One is not; the message names it and what would run it.
    """
    for name, component in document.spec.components.items():
        if component.WhichOneof("implementation") == "executor_label":
            _check_executor(document, component.executor_label)
        if component.task_config_passthroughs:
            raise FailedPrecondition(
                f"{FIELD}.components[{name!r}].taskConfigPassthroughs is for Kubernetes and cannot be used here"
            )
    for platform in document.platform.platforms.values():
        if platform.HasField("pipelineConfig") and platform.pipelineConfig.HasField("workspace"):
            raise FailedPrecondition("platform_spec: a pipeline workspace needs Kubernetes; it is not served here yet")


def runtime_parameters(document: PipelineDocument, given: dict[str, Any]) -> dict[str, Any]:
    """Checks the parameters of a run and fills in the defaults.

    Args:
        document: What is run.
        given: Values by name.

    Raises:
        InvalidArgument: One is unknown, of the wrong type or missing.
    """
    definitions = document.spec.root.input_definitions.parameters
    faults = []
    found: dict[str, Any] = {}
    for name in given:
        if name not in definitions:
            known = ", ".join(sorted(definitions)) or "none"
            faults.append(
                (f"runtime_config.parameters[{name!r}]", f"the pipeline has no such parameter (it has: {known})")
            )
    for name, definition in definitions.items():
        field = f"runtime_config.parameters[{name!r}]"
        kind = parameter_type(definition)
        if name in given and given[name] is not None:
            try:
                found[name] = check_exact(given[name], kind)
            except WrongType as error:
                faults.append((field, str(error)))
                continue
            literals = [check_exact(to_python(literal), kind) for literal in definition.literals]
            if literals and found[name] not in literals:
                faults.append((field, f"must be one of {literals}"))
        elif definition.HasField("default_value"):
            found[name] = check_exact(to_python(definition.default_value), kind)
        elif not definition.is_optional:
            faults.append((field, f"is required ({type_name(kind)})"))
    for name, artifact in document.spec.root.input_definitions.artifacts.items():
        if not artifact.is_optional:
            faults.append((f"{FIELD}.root.inputDefinitions.artifacts[{name!r}]", "a run cannot be given artifacts"))
    if faults:
        raise InvalidArgument.of(faults[:20])
    return found


def _check_executor(document: PipelineDocument, label: str) -> None:
    path = f"{FIELD}.deploymentSpec.executors[{label!r}]"
    executor = document.executor(label)
    kind = executor.WhichOneof("spec")
    if kind == "container":
        _check_container(executor.container, path)
    elif kind == "importer":
        _check_importer(executor.importer, path)
    else:
        raise FailedPrecondition(f"{path}: {kind or 'an empty executor'} cannot run on this machine")
    for key in document.platform_config(label):
        if key not in _KNOWN_PLATFORM:
            raise FailedPrecondition(
                f"platform_spec.platforms.kubernetes.deploymentSpec.executors[{label!r}].{key} "
                "needs Kubernetes; it is not served here yet"
            )


def _check_container(container: Any, path: str) -> None:
    try:
        recognise(list(container.command), list(container.args))
    except NotLightweight as error:
        raise FailedPrecondition(
            f"{path}.container (image {container.image!r}): {error}; on this machine only lightweight Python "
            "components run, containers need the Kubernetes backend"
        ) from error
    resources = container.resources
    if resources.HasField("accelerator"):
        raise FailedPrecondition(f"{path}.container.resources.accelerator needs the Kubernetes backend")
    for variable in container.env:
        if names_in(variable.value) != (set(), set()):
            raise FailedPrecondition(
                f"{path}.container.env[{variable.name!r}]: placeholders in variables are not served yet"
            )


def _check_importer(importer: Any, path: str) -> None:
    if importer.download_to_workspace:
        raise FailedPrecondition(f"{path}.importer.downloadToWorkspace needs a workspace; it is not served here yet")
    if importer.artifact_uri.WhichOneof("value") is None:
        raise InvalidArgument("is required", field=f"{path}.importer.artifactUri")
