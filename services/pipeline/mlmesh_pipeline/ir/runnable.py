"""Says whether a document can run on this machine; what cannot is refused by name, never left out."""

from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

from mlmesh_pipeline.ir.check import components_used
from mlmesh_pipeline.ir.cluster_names import faults, problem_of_variable, unsupported, volumes
from mlmesh_pipeline.ir.commands import AllowedCommands, BadCommand, CommandLine, check_command, programs_of
from mlmesh_pipeline.ir.container_resources import UNBOUNDED, Machine, check_resources
from mlmesh_pipeline.ir.document import FIELD, PipelineDocument
from mlmesh_pipeline.ir.lightweight import LightweightComponent, NotLightweight, recognise
from mlmesh_pipeline.ir.placeholders import names_in
from mlmesh_pipeline.ir.values import WrongType, check_exact, parameter_type, to_python, type_name

_EXECUTOR_OF_IMAGE = ["-m", "kfp.dsl.executor_main"]
_HARMLESS_PLATFORM = {
    "imagePullPolicy",
    "imagePullSecret",
    "nodeSelector",
    "tolerations",
    "podMetadata",
    "nodeAffinity",
}
_KNOWN_PLATFORM = _HARMLESS_PLATFORM | {"activeDeadlineSeconds", "secretAsEnv", "configMapAsEnv"}
_VOLUMES = {"secretAsVolume", "configMapAsVolume"}


def check_runnable(document: PipelineDocument, allowed: AllowedCommands, machine: Machine = UNBOUNDED) -> None:
    """Checks that every executor is one that runs here.

    Args:
        document: The pipeline.
        allowed: What container components may start.
        machine: What they may ask for.

    Raises:
        InvalidArgument: A placeholder is none, or an amount of CPUs or memory.
        FailedPrecondition: One does not run here; the message names it and what would run it.
    """
    for name in sorted(components_used(document)):
        component = document.component(name)
        if component.WhichOneof("implementation") == "executor_label":
            _check_executor(document, component, allowed, machine)
        if component.task_config_passthroughs:
            raise FailedPrecondition(
                f"{FIELD}.components[{name!r}].taskConfigPassthroughs is for Kubernetes and cannot be used here"
            )


def has_workspace(document: PipelineDocument) -> bool:
    """Tells whether the tasks of a pipeline share a folder."""
    return any(
        platform.HasField("pipelineConfig") and platform.pipelineConfig.HasField("workspace")
        for platform in document.platform.platforms.values()
    )


def code_of(container: Any) -> LightweightComponent | CommandLine:
    """Gives what a container runs: a lightweight component's function, or else its command."""
    try:
        return recognise(list(container.command), list(container.args))
    except NotLightweight:
        return CommandLine((*container.command, *container.args), container.image)


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


def _check_executor(document: PipelineDocument, component: Any, allowed: AllowedCommands, machine: Machine) -> None:
    label = component.executor_label
    path = f"{FIELD}.deploymentSpec.executors[{label!r}]"
    executor = document.executor(label)
    kind = executor.WhichOneof("spec")
    if kind == "container":
        _check_container(component, executor.container, path, allowed)
        check_resources(executor.container.resources, f"{path}.container.resources", machine)
    elif kind == "importer":
        _check_importer(document, executor.importer, path)
    else:
        raise FailedPrecondition(f"{path}: {kind or 'an empty executor'} cannot run on this machine")
    config = document.platform_config(label)
    where = f"platform_spec.platforms.kubernetes.deploymentSpec.executors[{label!r}]"
    for key in config:
        optional = key in _VOLUMES and all(source.optional for source in volumes(config))
        if key not in _KNOWN_PLATFORM and not optional:
            raise FailedPrecondition(f"{where}.{key} needs Kubernetes: the backend argo")
    if problem := unsupported(config):
        raise FailedPrecondition(f"{where}: {problem}")
    for field, problem in faults(config):
        raise InvalidArgument(problem, field=f"{where}.{field}")


def _check_container(component: Any, container: Any, path: str, allowed: AllowedCommands) -> None:
    code = code_of(container)
    if isinstance(code, CommandLine):
        where = f"{path}.container (image {container.image!r})"
        if list(container.command[1:]) == _EXECUTOR_OF_IMAGE and "--component_module_path" not in container.args:
            raise FailedPrecondition(f"{where}: its code is in the image; it needs the backend argo")
        if not container.command:
            raise FailedPrecondition(f"{where}: it has no command, so that of the image is meant; it needs Kubernetes")
        try:
            check_command(code, component)
            programs = programs_of(code)
        except BadCommand as error:
            raise InvalidArgument(str(error), field=f"{path}.container") from error
        for program in programs:
            if problem := allowed.problem(program):
                raise FailedPrecondition(f"{where}: {problem}")
    for variable in container.env:
        where = f"{path}.container.env[{variable.name!r}]"
        if problem := problem_of_variable(variable.name):
            raise InvalidArgument(problem, field=where)
        if unknown := names_in(variable.value)[1]:
            raise InvalidArgument(f"unknown placeholder {min(unknown)}", field=where)


def _check_importer(document: PipelineDocument, importer: Any, path: str) -> None:
    if importer.download_to_workspace and not has_workspace(document):
        raise FailedPrecondition(f"{path}.importer.downloadToWorkspace: the pipeline has no workspace")
    if importer.artifact_uri.WhichOneof("value") is None:
        raise InvalidArgument("is required", field=f"{path}.importer.artifactUri")
