"""InferenceServices and predictions, drawn."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlmesh.cli.search_state import last_part
from mlmesh.cli.traffic_view import shares_text

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_STYLES = {"True": "green", "False": "bold red", "Unknown": "yellow"}
_SHOWN = 50
_CELL = 60


def ready_condition(service: dict[str, Any]) -> dict[str, Any]:
    """Gives the condition Ready of an InferenceService."""
    conditions = service.get("status", {}).get("conditions", [])
    found: dict[str, Any] = next((c for c in conditions if c.get("type") == "Ready"), {})
    return found


def is_ready(service: dict[str, Any]) -> bool:
    """Tells whether the revision that was asked for last is ready, and requests are spread as it was asked for."""
    return bool(ready_condition(service).get("status") == "True")


def has_failed(service: dict[str, Any]) -> bool:
    """Tells whether the revision that was asked for last could not be loaded."""
    return ready_condition(service).get("status") == "False"


def service_text(service: dict[str, Any]) -> "Text":
    """Draws an InferenceService in a line."""
    from rich.text import Text

    condition = ready_condition(service)
    status = str(condition.get("status", "Unknown"))
    word = {"True": "ready", "False": "failed"}.get(status, "loading")
    revision, shares = service.get("status", {}).get("latest_created_revision", 0), shares_text(service)
    return Text.assemble(
        (last_part(service), "bold"),
        "  ",
        (word, _STYLES.get(status, "")),
        f"  revision {revision}",
        (f"  ({shares})" if "," in shares else "", "dim"),
        (f"  {condition['message']}", "red") if condition.get("message") else "",
    )


def service_lines(service: dict[str, Any]) -> Iterator[str]:
    """Says what is true of an InferenceService."""
    yield service_text(service).plain


def service_table(services: Sequence[dict[str, Any]]) -> "Table":
    """Draws a list of InferenceServices."""
    from rich.table import Table
    from rich.text import Text

    heads = ("model", "ready", "revision", "requests", "path", "")
    table = Table(*heads, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for each in services:
        condition, status = ready_condition(each), each.get("status", {})
        word = str(condition.get("status", "Unknown"))
        table.add_row(
            str(status.get("model_name", last_part(each))),
            Text(word, _STYLES.get(word, "")),
            str(status.get("latest_ready_revision", 0)),
            shares_text(each),
            str(status.get("url", "")),
            Text(str(condition.get("message", "")), "red"),
        )
    return table


def prediction_table(answer: dict[str, Any]) -> "Table":
    """Draws an answer: a row for each of the batch, a column for each output."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    from mlmesh.tensors import nested

    outputs = answer.get("outputs", [])
    heads = [escape(f"{each.get('name')} ({each.get('datatype')} {each.get('shape')})") for each in outputs]
    table = Table("", *heads, box=None, padding=(0, 2, 0, 0), header_style="dim")
    columns = [nested(each) for each in outputs]
    rows = max((len(column) for column in columns), default=0)
    for index in range(min(rows, _SHOWN)):
        cells = [_cell(column[index]) if index < len(column) else "" for column in columns]
        table.add_row(str(index), *(Text(cell) for cell in cells))
    if rows > _SHOWN:
        table.add_row("...", f"{rows - _SHOWN} more; all of them with --json")
    return table


def _cell(value: Any) -> str:
    text = json.dumps(_rounded(value), ensure_ascii=False) if isinstance(value, list) else str(_rounded(value))
    return text if len(text) <= _CELL else f"{text[: _CELL - 3]}..."


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
