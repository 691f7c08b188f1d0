"""Placeholders in constants and commands: `{{$}}`, `{{$.inputs.parameters['x']}}`, `{{$.pipeline_job_uuid}}`."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlmesh_pipeline.ir.values import whole

_PLACEHOLDER = re.compile(r"\{\{\$(?P<path>(?:\.[^{}]*)?)\}\}")
_PARAMETER = re.compile(r"^\.inputs\.parameters\[(?:'([^']+)'|\"([^\"]+)\")\]$")
CONTEXT_NAMES = frozenset(
    {
        "pipeline_job_name",
        "pipeline_job_uuid",
        "pipeline_job_resource_name",
        "pipeline_job_create_time_utc",
        "pipeline_job_schedule_time_utc",
        "pipeline_task_name",
        "pipeline_task_uuid",
        "pipeline_root",
        "workspace_path",
    }
)
CLOUD_NAMES = frozenset({"pipeline_google_cloud_project_id", "pipeline_google_cloud_location"})
"""Known, and without a value anywhere but on Google Cloud."""


class UnknownPlaceholder(ValueError):
    """A placeholder that is not known, or that has no value."""


def names_in(text: str) -> tuple[set[str], set[str]]:
    """Gives the input parameters that the text's placeholders name, and the placeholders that are not known."""
    parameters: set[str] = set()
    unknown: set[str] = set()
    for match in _PLACEHOLDER.finditer(text):
        path = match["path"]
        found = _PARAMETER.match(path)
        if found:
            parameters.add(found[1] or found[2])
        elif path.removeprefix(".") not in CONTEXT_NAMES | CLOUD_NAMES:
            unknown.add(match[0])
    return parameters, unknown


def texts_of(value: Any) -> Iterator[str]:
    """Gives the texts in a constant: itself, or those in its lists and structs, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)


def resolve_all(value: Any, parameters: Mapping[str, Any], context: Mapping[str, str]) -> Any:
    """Does what `resolve` does for each text of a constant, those in lists and structs and their keys among them."""
    if isinstance(value, str):
        return resolve(value, parameters, context)
    if isinstance(value, list):
        return [resolve_all(item, parameters, context) for item in value]
    if isinstance(value, dict):
        return {
            _as_text(resolve(key, parameters, context)): resolve_all(item, parameters, context)
            for key, item in value.items()
        }
    return value


def resolve(text: str, parameters: Mapping[str, Any], context: Mapping[str, str]) -> Any:
    """Puts values in the place of placeholders; a text that is nothing but one placeholder keeps the value's type.

    Args:
        text: A constant of the IR.
        parameters: Values of the task's inputs.
        context: Values of `CONTEXT_NAMES`.

    Raises:
        UnknownPlaceholder: One is not known or has no value.
    """

    def value_of(match: re.Match[str]) -> Any:
        found = _PARAMETER.match(match["path"])
        if found:
            name = found[1] or found[2]
            if name not in parameters:
                raise UnknownPlaceholder(f"no value for the input {name!r}")
            return parameters[name]
        name = match["path"].removeprefix(".")
        if name in CLOUD_NAMES:
            raise UnknownPlaceholder(f"{match[0]} has a value on Google Cloud only")
        if name not in context:
            raise UnknownPlaceholder(f"unknown placeholder {match[0]}")
        return context[name]

    alone = _PLACEHOLDER.fullmatch(text)
    if alone:
        return value_of(alone)

    return _PLACEHOLDER.sub(lambda match: _as_text(value_of(match)), text)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(whole(value))
