"""The command of a batch/v1 Job that runs as a process of this machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

from mlmesh_katib.jobs.resource_limits import read_limits

MAX_ARGUMENTS = 1000


@dataclass(frozen=True, slots=True)
class Command:
    """What a container of a Job says.

    Attributes:
        words: Command and arguments.
        environment: Variables.
        limits: Of its resources, see `read_limits`.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str]
    limits: Mapping[str, float]


def read_command(manifest: Mapping[str, Any], primary_container: str, where: str) -> Command:
    """Reads the command of a Job.

    Args:
        manifest: The `trialSpec`.
        primary_container: Name of the container; empty: the first.
        where: Path of the `trialSpec`, for errors.

    Raises:
        InvalidArgument: A field is missing or wrong.
        FailedPrecondition: It needs Kubernetes.
    """
    container, path = _container(manifest, primary_container, where)
    words: list[str] = []
    for key in ("command", "args"):
        given = container.get(key) or []
        if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
            raise InvalidArgument("must be a list of strings", field=f"{path}.{key}")
        for index, word in enumerate(given):
            _check_text(word, f"{path}.{key}[{index}]")
        words += given
    if not container.get("command"):
        raise InvalidArgument("must be there: locally no image says what to run", field=f"{path}.command")
    if len(words) > MAX_ARGUMENTS:
        raise InvalidArgument(f"must hold at most {MAX_ARGUMENTS} words", field=f"{path}.command")
    environment = _environment(container.get("env") or [], f"{path}.env")
    return Command(tuple(words), environment, read_limits(container, path))


def _container(spec: Mapping[str, Any], primary: str, where: str) -> tuple[Mapping[str, Any], str]:
    value: Any = spec
    path = where
    for key in ("spec", "template", "spec", "containers"):
        path += f".{key}"
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        raise InvalidArgument("must be a list of containers", field=path)
    for index, container in enumerate(value):
        if not primary or container.get("name") == primary:
            return container, f"{path}[{index}]"
    raise InvalidArgument(f"must hold a container named {primary!r} (primaryContainerName)", field=path)


def _environment(variables: Any, where: str) -> dict[str, str]:
    if not isinstance(variables, list):
        raise InvalidArgument("must be a list", field=where)
    found = {}
    for index, variable in enumerate(variables):
        path = f"{where}[{index}]"
        name = variable.get("name") if isinstance(variable, Mapping) else None
        if not isinstance(name, str) or not name or "=" in name:
            raise InvalidArgument("must be an object with a name that has no '='", field=path)
        if variable.get("valueFrom") is not None:
            raise FailedPrecondition(f"{path}.valueFrom needs the Kubernetes backend")
        value = variable.get("value", "")
        if not isinstance(value, str):
            raise InvalidArgument("must be a string", field=f"{path}.value")
        _check_text(name, f"{path}.name")
        _check_text(value, f"{path}.value")
        found[name] = value
    return found


def _check_text(text: str, field: str) -> None:
    if "\0" in text:
        raise InvalidArgument("must not hold NUL characters: no process can be given one", field=field)
