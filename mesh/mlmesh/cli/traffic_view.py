"""How requests are spread over revisions, drawn."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlmesh.cli.search_state import last_part

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_STYLES = {"READY": "green", "FAILED": "bold red", "LOADING": "yellow", "RETIRED": "dim"}
_MATCHES = {"exact": "=", "prefix": "^=", "regex": "~="}


def targets_of(service: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """Gives how requests are spread now."""
    component = service.get("status", {}).get("components", {}).get("predictor", {})
    found: Sequence[dict[str, Any]] = component.get("traffic", [])
    return found


def shares_text(service: dict[str, Any]) -> str:
    """Says in a few words how requests are spread: `2: 90%, 3: 10%`; empty where there is nothing to say."""
    parts = [
        f"{number_of(target)}: {target['percent']}%"
        for target in reversed(targets_of(service))
        if target.get("percent")
    ]
    return ", ".join(parts)


def number_of(target: dict[str, Any]) -> str:
    """Gives the number in a revision's name."""
    return str(target.get("revision_name", "")).rpartition("-")[2].lstrip("0")


def canary_of(service: dict[str, Any]) -> dict[str, Any] | None:
    """Gives the newest revision's target while it has some of the requests, and not all; None: it has not."""
    for target in targets_of(service):
        if target.get("latest_revision") and 0 < target.get("percent", 0) < 100:
            return target
    return None


def traffic_lines(service: dict[str, Any]) -> "Iterator[Text]":
    """Draws it: shares, header rules, what is kept together, copies, and what stands in the way."""
    from rich.text import Text

    status = service.get("status", {})
    asked = status.get("traffic", {})
    how = "set by hand" if asked.get("targets") else "by the manifest"
    yield Text.assemble((last_part(service), "bold"), "  ", (how, "dim"))
    for target in targets_of(service):
        tag = f"  tag {target['tag']}" if target.get("tag") else ""
        yield Text(f"  {target.get('percent', 0):3d}%  {target.get('revision_name', '')}{tag}")
    for rule in asked.get("rules", []):
        kind = next((kind for kind in _MATCHES if kind in rule), "exact")
        yield Text(f"  header {rule.get('header')}{_MATCHES[kind]}{rule.get(kind, '')} → {rule.get('revision')}")
    if asked.get("sticky"):
        yield Text(f"  sticky by {asked['sticky'].get('header')}")
    if asked.get("shadow"):
        yield Text(f"  copies of {asked['shadow'].get('percent')}% to {asked['shadow'].get('revision')}")
    for condition in status.get("conditions", []):
        if condition.get("type") == "Ready" and condition.get("status") != "True":
            said = condition.get("message") or condition.get("reason") or ""
            yield Text(f"  not ready: {said}", "red" if condition.get("status") == "False" else "yellow")


def revisions_table(revisions: Sequence[dict[str, Any]]) -> "Table":
    """Draws revisions, the newest first."""
    from rich.table import Table
    from rich.text import Text

    table = Table("revision", "state", "share", "tags", "made", "", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for each in revisions:
        status = each.get("status", {})
        state = str(status.get("state", ""))
        table.add_row(
            last_part(each),
            Text(state.lower(), _STYLES.get(state, "")),
            f"{status.get('percent', 0)}%",
            ", ".join(status.get("tags", [])),
            str(each.get("create_time", ""))[:19].replace("T", " "),
            Text(str(status.get("message", "")), "red"),
        )
    return table
