"""How kfp-kubernetes names secrets and config maps whose keys become environment variables."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Source:
    """A key of a secret or config map that becomes a variable.

    Args:
        kind: secret or config map.
        name: Of it, or "" if an input says it.
        parameter: Input that says it.
        key: Of the value.
        variable: Name of the environment variable.
        optional: Whether it may be missing.
    """

    kind: str
    name: str
    parameter: str
    key: str
    variable: str
    optional: bool


KINDS = (
    ("secretAsEnv", "secretName", "secretNameParameter", "secretKey", "secret"),
    ("configMapAsEnv", "configMapName", "configMapNameParameter", "configMapKey", "config map"),
)


def sources(config: Mapping[str, Any]) -> Iterator[Source]:
    """Gives what an executor's platform configuration takes from secrets and config maps."""
    for field, name_field, parameter_field, key_field, kind in KINDS:
        for entry in config.get(field, []):
            given = entry.get(parameter_field, {})
            name = given.get("runtimeValue", {}).get("constant") or ""
            parameter = given.get("componentInputParameter") or ""
            if not given:
                name = entry.get(name_field, "")
            for pair in entry.get("keyToEnv", []):
                yield Source(
                    kind, str(name), str(parameter), str(pair.get(key_field, "")), str(pair.get("envVar", "")),
                    bool(entry.get("optional")),
                )  # fmt: skip


def unsupported(config: Mapping[str, Any]) -> str:
    """Says what is named in a way that is not served; "" if nothing is."""
    for source in sources(config):
        if not source.name and not source.parameter:
            return f"the name of a {source.kind} must be a constant or an input of the pipeline"
    return ""
