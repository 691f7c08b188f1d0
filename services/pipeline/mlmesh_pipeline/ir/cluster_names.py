"""How kfp-kubernetes names secrets and config maps: by a constant, an input of the DAG, an output of a task beside."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Source:
    """A key of a secret or config map that becomes a variable.

    Args:
        kind: secret or config map.
        name: Of it, or "" if an input says it.
        parameter: Input of the DAG around the task that says it.
        output: Task and output parameter that say it.
        key: Of the value.
        variable: Name of the environment variable.
        optional: Whether it may be missing.
    """

    kind: str
    name: str
    parameter: str
    output: tuple[str, str]
    key: str
    variable: str
    optional: bool


_SECONDS = re.compile(r"\d{1,10}(\.\d{1,9})?")
KINDS = (
    ("secretAsEnv", "secretName", "secretNameParameter", "secretKey", "secret"),
    ("configMapAsEnv", "configMapName", "configMapNameParameter", "configMapKey", "config map"),
)


def sources(config: Mapping[str, Any]) -> Iterator[Source]:
    """Gives what an executor's platform configuration takes from secrets and config maps."""
    for field, name_field, parameter_field, key_field, kind in KINDS:
        for entry in _mappings(config.get(field)):
            name, parameter, output = _named(entry, name_field, parameter_field)
            for pair in _mappings(entry.get("keyToEnv")):
                yield Source(
                    kind, name, parameter, output, str(pair.get(key_field, "")), str(pair.get("envVar", "")),
                    bool(entry.get("optional")),
                )  # fmt: skip


def volumes(config: Mapping[str, Any]) -> Iterator[Source]:
    """Gives the secrets and config maps that an executor's platform configuration mounts as volumes; without keys."""
    for field, name_field, parameter_field, _, kind in KINDS:
        for entry in _mappings(config.get(field.replace("AsEnv", "AsVolume"))):
            name, parameter, output = _named(entry, name_field, parameter_field)
            yield Source(kind, name, parameter, output, "", "", bool(entry.get("optional")))


def unsupported(config: Mapping[str, Any]) -> str:
    """Says what is named in a way that is not served; "" if nothing is."""
    for source in [*sources(config), *volumes(config)]:
        if not source.name and not source.parameter and not source.output[0]:
            return f"the name of a {source.kind} must be a constant, an input or an output of a task"
    return ""


def faults(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Gives what is wrong in an executor's platform configuration: the field, and what was expected."""
    for field in [name for kind in KINDS for name in (kind[0], kind[0].replace("AsEnv", "AsVolume"))]:
        given = config.get(field, [])
        if not isinstance(given, list) or not all(isinstance(entry, Mapping) for entry in given):
            yield field, "must be a list of mappings"
    for source in sources(config):
        if problem := problem_of_variable(source.variable):
            yield "keyToEnv.envVar", f"{source.variable!r} {problem}"
    metadata = config.get("podMetadata", {})
    for field in ("labels", "annotations"):
        if not isinstance(metadata, Mapping) or not isinstance(metadata.get(field, {}), Mapping):
            yield f"podMetadata.{field}", "must be a mapping"
    seconds = config.get("activeDeadlineSeconds", 0)
    if isinstance(seconds, bool) or not _SECONDS.fullmatch(str(seconds)):
        yield "activeDeadlineSeconds", "must be a number of seconds"


def problem_of_variable(name: str) -> str:
    """Says why a name cannot be that of an environment variable; "" if it can."""
    return "" if name and not set(name) & {"=", "\0"} else "is no name of an environment variable"


def _named(entry: Mapping[str, Any], name_field: str, parameter_field: str) -> tuple[str, str, tuple[str, str]]:
    given = entry.get(parameter_field)
    if not isinstance(given, Mapping) or not given:
        return str(entry.get(name_field) or ""), "", ("", "")
    output = _mapping(given.get("taskOutputParameter"))
    return (
        str(_mapping(given.get("runtimeValue")).get("constant") or ""),
        str(given.get("componentInputParameter") or ""),
        (str(output.get("producerTask") or ""), str(output.get("outputParameterKey") or "")),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
