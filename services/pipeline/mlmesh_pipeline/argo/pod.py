"""The pod of a container task: a patch over the executor's template, made of the task's inputs."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlmesh_pipeline.argo.options import IN_WORKSPACE, SCHEMES, WORKSPACE, Options
from mlmesh_pipeline.argo.platform import BadPlatform, PodParts, Values, pod_parts
from mlmesh_pipeline.argo.text import NOTHING, has_variable, literal
from mlmesh_pipeline.engine.executor_io import executor_input
from mlmesh_pipeline.engine.steps import text_of, with_task_inputs
from mlmesh_pipeline.ir.commands import BadCommand, CommandLine, fill_command
from mlmesh_pipeline.ir.document import PipelineDocument
from mlmesh_pipeline.ir.lightweight import NotLightweight, recognise
from mlmesh_pipeline.ir.placeholders import UnknownPlaceholder, resolve
from mlmesh_pipeline.ir.proto import ParameterType
from mlmesh_pipeline.ir.values import parameter_type
from mlmesh_pipeline.resources import Values as TaskValues

Json = dict[str, Any]
MAX_WORD_BYTES = 131_071
"""Longest argument that Linux takes."""
MAX_PATCH_BYTES = 700_000
"""What fits into the status of a Workflow beside others; etcd takes 1.5 MB for all of it."""
_QUANTITY = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+|[KMGTPE]i?|[mkun])?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,1000}")
_RESOURCE = re.compile(r"[a-z0-9A-Z][A-Za-z0-9._/-]{0,250}")
_ALIASES = {
    "RESOURCES": ("resources",),
    "ENV": ("env",),
    "KUBERNETES_AFFINITY": ("affinity",),
    "KUBERNETES_TOLERATIONS": ("tolerations",),
    "KUBERNETES_NODE_SELECTOR": ("nodeSelector",),
    "KUBERNETES_VOLUMES": ("volumes", "volumeMounts"),
}


class BadPod(ValueError):
    """The task's pod cannot be made; the message says why."""


def local_path(uri: str, root: str = "") -> str | None:
    """Gives where in a container KFP's SDK looks for an artifact; None where it does not.

    Args:
        uri: Of the artifact.
        root: What stands before the folders of the schemes.
    """
    for scheme, folder in SCHEMES.items():
        if uri.startswith(scheme):
            key = uri.removeprefix(scheme)
            if ".." in key.split("/") or "\0" in key:
                return None
            return f"{root}/{folder}/{key.replace('/', '_') if folder == 'oci' else key}"
    return None


def workspace_path(uri: str) -> str:
    """Gives where in the workspace KFP's SDK looks for an artifact.

    Raises:
        BadPod: Nowhere.
    """
    path = local_path(uri) or uri
    if not path.startswith("/") or ".." in path.split("/"):
        raise BadPod(f"{uri} cannot be in the workspace")
    return f"{WORKSPACE}/.artifacts{path}"


def task_folder(options: Options, task_id: str) -> Path:
    """Gives the folder of a task in the volume that its containers share."""
    return Path(options.work, task_id)


def pod_patch(
    document: PipelineDocument,
    component: Any,
    inputs: TaskValues,
    *,
    context: Mapping[str, str],
    options: Options,
    output_uri: str,
    around: Mapping[str, Any],
    output_of: Callable[[str, str], Any],
    names: tuple[str, str],
) -> Json:
    """Gives the patch of a task's pod.

    Args:
        document: The pipeline.
        component: ComponentSpec of the task.
        inputs: Of the task.
        context: Values of placeholders.
        options: Of the service.
        output_uri: URI under which the output artifacts go.
        around: Input parameters of the DAG that the task is in.
        output_of: Gives an output of a task beside it.
        names: Run id and name of the task, for its environment.

    Raises:
        BadPod: It cannot be made.
    """
    label = component.executor_label
    container = document.executor(label).container
    try:
        parts = pod_parts(document.platform_config(label), Values(around, output_of))
        main = _main(container, component, inputs, context, options, parts, names)
        _add_images(inputs, options, parts, main)
        passed = _pass_through(component, main, parts)
        if passed is not None:
            inputs = _with_task_config(component, inputs, passed)
        main |= _command(container, component, inputs, context, options, output_uri)
    except (BadPlatform, BadCommand, UnknownPlaceholder) as error:
        raise BadPod(str(error)) from error
    patch = {"containers": [{"name": "main", **main}], **parts.pod}
    if parts.volumes:
        patch["volumes"] = parts.volumes
    if has_variable(_text(patch)):
        raise BadPod("something in the task's pod holds '{{', which is Argo's")
    return patch


def given_to(component: Any, inputs: TaskValues, options: Options, task_id: str, output_uri: str) -> Json:
    """Gives the ExecutorInput of a task: the same for its driver and for the containers of its pod."""
    return executor_input(component, inputs, task_folder(options, task_id), output_uri)


def _main(
    container: Any,
    component: Any,
    inputs: TaskValues,
    context: Mapping[str, str],
    options: Options,
    parts: PodParts,
    names: tuple[str, str],
) -> Json:
    def text(template: str) -> str:
        return text_of(resolve(template, inputs.parameters, context))

    image = text(container.image)
    if not _IMAGE.fullmatch(image):
        raise BadPod(f"{image[:100]!r} is no name of an image")
    variables: list[Json] = [{"name": NOTHING, "value": ""}, *parts.variables]
    own = {"MLMESH_RUN_ID": names[0], "MLMESH_TASK_NAME": names[1]}
    if options.ingress_url:
        own["MLMESH_INGRESS"] = options.ingress_url
    found = {variable.name: text(variable.value) for variable in container.env} | own
    variables += [{"name": name, "value": literal(value)} for name, value in found.items()]
    main: Json = {"image": image, "env": variables, **parts.main}
    resources = _resources(container.resources, text)
    if parts.claims:
        resources["claims"] = [{"name": name} for name in parts.claims]
    if resources:
        main["resources"] = resources
    if parts.mounts:
        main["volumeMounts"] = parts.mounts
    return main


def _add_images(inputs: TaskValues, options: Options, parts: PodParts, main: Json) -> None:
    """Mounts input artifacts that are images (`oci://`), where KFP's SDK looks for them."""
    uris = sorted({item.uri for items in inputs.artifacts.values() for item in items if item.uri.startswith("oci://")})
    for number, uri in enumerate(uris):
        reference, path = uri.removeprefix("oci://"), local_path(uri, options.root)
        if path is None or not _IMAGE.fullmatch(reference):
            raise BadPod(f"{uri[:100]!r} is no image")
        parts.volumes.append({"name": f"oci-{number}", "image": {"reference": reference}})
        main.setdefault("volumeMounts", []).append({"name": f"oci-{number}", "mountPath": path, "readOnly": True})


def _command(
    container: Any, component: Any, inputs: TaskValues, context: Mapping[str, str], options: Options, output_uri: str
) -> Json:
    given = given_to(component, inputs, options, context["pipeline_task_uuid"], output_uri)
    whole_given = with_task_inputs(_with_paths(given, options), inputs)
    values = dict(context)
    command, args = list(container.command), list(container.args)
    try:
        recognise(command, args)  # its source is no text with placeholders
    except NotLightweight:
        command = fill_command(CommandLine(tuple(command)), whole_given, values)
        args = fill_command(CommandLine(tuple(args)), whole_given, values)
    else:
        args = fill_command(CommandLine(tuple(args)), given, values)
    for word in (*command, *args):
        if len(word.encode()) > MAX_WORD_BYTES:
            raise BadPod(
                f"an argument of the task has {len(word.encode())} bytes, and Linux takes {MAX_WORD_BYTES}: "
                "pass large inputs as artifacts"
            )
    return {
        **({"command": [literal(word) for word in command]} if command else {}),
        **({"args": [literal(word) for word in args]} if args else {}),
    }


def _with_paths(given: Json, options: Options) -> Json:
    """Adds to artifacts the path that `.path` of a placeholder means."""

    def of(side: Json) -> Json:
        return {
            name: {"artifacts": [_with_path(item, options) for item in entry["artifacts"]]}
            for name, entry in side.items()
        }

    return {
        "inputs": {**given["inputs"], "artifacts": of(given["inputs"]["artifacts"])},
        "outputs": {**given["outputs"], "artifacts": of(given["outputs"]["artifacts"])},
    }


def _with_path(artifact: Json, options: Options) -> Json:
    path = local_path(artifact["uri"], options.root)
    if artifact["metadata"].get(IN_WORKSPACE) is True:
        path = workspace_path(artifact["uri"])
    return {**artifact, "path": path} if path else artifact


def _resources(spec: Any, text: Callable[[str], str]) -> Json:
    found: Json = {}

    def add(kind: str, name: str, value: str) -> None:
        if value in {"", "null"}:  # an optional parameter that was not given
            return
        if not _QUANTITY.fullmatch(value) or not _RESOURCE.fullmatch(name):
            raise BadPod(f"{name} {kind[:-1]} {value[:50]!r} is no quantity")
        found.setdefault(kind, {})[name] = value

    for kind, limit in (("limits", "limit"), ("requests", "request")):
        old_cpu, old_memory = getattr(spec, f"cpu_{limit}"), getattr(spec, f"memory_{limit}")
        cpu, memory = getattr(spec, f"resource_cpu_{limit}"), getattr(spec, f"resource_memory_{limit}")
        add(kind, "cpu", text(cpu) if cpu else f"{old_cpu:g}" if old_cpu else "")
        add(kind, "memory", text(memory) if memory else f"{old_memory:g}G" if old_memory else "")
    accelerator = spec.accelerator
    name = text(accelerator.resource_type) if accelerator.resource_type else accelerator.type
    count = text(accelerator.resource_count) if accelerator.resource_count else str(accelerator.count or "")
    if name and count and count != "0":
        add("limits", name, count)
    return found


def _pass_through(component: Any, main: Json, parts: PodParts) -> Json | None:
    """Takes out of the pod what the component wants to be told (`TaskConfig`); gives it, or None for nothing."""
    if not component.task_config_passthroughs:
        return None
    found: Json = {}
    for one in component.task_config_passthroughs:
        name = type(one).DESCRIPTOR.fields_by_name["field"].enum_type.values_by_number[one.field].name
        for key in _ALIASES.get(name, ()):
            holder: Any = {"volumes": {"volumes": parts.volumes}, "affinity": parts.pod}.get(key)
            if key in {"tolerations", "nodeSelector"}:
                holder = parts.pod
            holder = main if holder is None else holder
            value = holder.get(key)
            if key == "env" and value:
                value = [entry for entry in value if entry["name"] not in {"MLMESH_RUN_ID", "MLMESH_TASK_NAME"}]
            if value:
                found[key] = value
                if not one.apply_to_task:
                    _take_out(key, holder, parts)
    return found


def _take_out(key: str, holder: Json, parts: PodParts) -> None:
    if key == "volumes":
        parts.volumes = []
    elif key == "env":
        holder["env"] = [entry for entry in holder["env"] if entry["name"].startswith("MLMESH_")]
    else:
        holder.pop(key, None)


def _with_task_config(component: Any, inputs: TaskValues, found: Json) -> TaskValues:
    names = [
        name
        for name, definition in component.input_definitions.parameters.items()
        if parameter_type(definition) == ParameterType.TASK_CONFIG
    ]
    return TaskValues({**inputs.parameters, **dict.fromkeys(names, found)}, inputs.artifacts)


def _text(patch: Json) -> str:
    import json

    return json.dumps(patch)
