"""What goes into a pipeline and comes out of it: parameters typed as it declares them, metrics by name."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

_WORDS = {"true": True, "false": False}


def definitions_of(content: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """Gives the parameters that a pipeline declares, by name.

    Args:
        content: Its IR, alone or as `pipeline_spec` beside a `platform_spec`.
        what: `inputDefinitions` or `outputDefinitions`.
    """
    found: Any = content.get("pipeline_spec") or content
    for key in ("root", what, "parameters"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def typed(values: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Gives parameters the types that the pipeline declares, where they are text: that is what placeholders leave.

    What cannot be of its type stays as it is; the pipeline service says what is wrong with it.

    Args:
        values: By name.
        definitions: Of the pipeline's inputs.
    """
    found = {}
    for name, value in values.items():
        definition = definitions.get(name)
        kind = definition.get("parameterType", "") if isinstance(definition, Mapping) else ""
        found[name] = _typed(value, str(kind)) if isinstance(value, str) else value
    return found


def _typed(text: str, kind: str) -> Any:
    with contextlib.suppress(ValueError, OverflowError):
        if kind == "NUMBER_INTEGER":
            number = float(text)
            return int(text) if not number.is_integer() or abs(number) >= 2**53 else int(number)
        if kind == "NUMBER_DOUBLE":
            return float(text) if math.isfinite(float(text)) else text
        if kind == "BOOLEAN":
            return _WORDS.get(text.lower(), text)
        if kind in {"LIST", "STRUCT"}:
            return json.loads(text)
    return text


def metrics_of(outputs: Mapping[str, Any], declared: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    """Gives the numbers in what a run has given: source, name, and value as text.

    An output parameter of the pipeline is a metric of its name. Where the pipeline has none of that name, so is an
    entry of a `system.Metrics` artifact, or an output parameter, of any task. `TASK.NAME` always names those of one
    task.

    Args:
        outputs: A `RunOutputs` of the pipeline service, as JSON.
        declared: Names of the pipeline's own output parameters.
    """
    for name, value in outputs.get("parameters", {}).items():
        if (number := _number(value)) is not None:
            yield "", name, number
    for task in outputs.get("tasks", []):
        entries = list(task.get("parameters", {}).items())
        for artifact in task.get("artifacts", []):
            if artifact.get("type") == "system.Metrics":
                entries += artifact.get("metadata", {}).items()
        for name, value in entries:
            if (number := _number(value)) is None:
                continue
            yield task["task_id"], f"{task['display_name']}.{name}", number
            if name not in declared:
                yield task["task_id"], name, number


def _number(value: Any) -> str | None:
    """Gives the text of a number, also of one that is text already; None: it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        float(value)
    except ValueError:
        return None
    return value if isinstance(value, str) else repr(value)
