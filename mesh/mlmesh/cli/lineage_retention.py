"""Commands that delete: nodes by id, and what retention policies let go."""

import re
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from mlmesh.cli.connection import connected
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit, fail
from mlmesh.cli.times import local_time

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SHOWN = 50
_OUTCOMES = {"DELETED": "deleted", "CHANGED": "changed since", "USED": "used since", "GONE": "already deleted"}


class NodeKind(StrEnum):
    """Kinds of node."""

    ARTIFACT = "artifact"
    EXECUTION = "execution"
    CONTEXT = "context"


PolicyName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the policy")]
PlanNumber = Annotated[int, typer.Argument(metavar="PLAN", min=1, help="Number of the plan")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]

retention = typer.Typer(
    help="Rules for what may be deleted, and dry runs of them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def delete(
    kind: Annotated[NodeKind, typer.Argument(help="Of the nodes")],
    ids: Annotated[list[int], typer.Argument(min=1, metavar="ID...", help="Ids of the nodes; 1,000 at most")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted")] = False,
    yes: Yes = False,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Delete nodes: their content goes, their place in the lineage stays. Files are not touched."""
    body = {f"{kind}_ids": [str(one) for one in ids], "reason": reason}
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        if dry_run or not yes:
            found = mesh.send("POST", "/metadata/v1/nodes:delete", {**body, "validate_only": True})
            if dry_run:
                _show_tombstones(found, "would be deleted", as_json)
                return
            _show_tombstones(found, "would be deleted", False)
            _ask(f"delete {_count(len(found.get('tombstones', [])), 'node')}?", as_json)
        found = mesh.send("POST", "/metadata/v1/nodes:delete", body)
    _show_tombstones(found, "deleted", as_json)


def deleted(
    limit: Annotated[int, typer.Option(min=1, help="How many at most")] = 100,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """List what was deleted, by whom and why, the latest first."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        pages = mesh.pages("/metadata/v1/tombstones", "tombstones")
        found = [one for _, one in zip(range(limit), pages, strict=False)]
    _show_tombstones({"tombstones": found}, "deleted", as_json)


@retention.command("list")
def list_policies(ingress: IngressUrl = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the policies."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        found = mesh.get("/metadata/v1/retentionPolicies").get("retention_policies", [])
    if as_json:
        emit({"retention_policies": found})
        return
    if not found:
        console().print("no retention policies; make one with: mlmesh lineage retention set NAME --type TYPE ...")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("policy", "lets go", "if", "by", box=None)
    for one in found:
        table.add_row(_name(one), escape(f"{one['type']} ({one['node_kind']})"), escape(_rule(one)), one["creator"])
    console().print(table)


@retention.command("set")
def set_policy(
    name: PolicyName,
    kind_of_type: Annotated[str, typer.Option("--type", help="Name of the nodes' type: system.Model, ...")],
    kind: Annotated[NodeKind, typer.Option("--kind", help="Of the nodes")] = NodeKind.ARTIFACT,
    older_than: Annotated[str, typer.Option(help="Only what has not been changed for so long: 12h, 30d, 8w")] = "",
    keep_latest: Annotated[int, typer.Option(min=0, max=10_000, help="The so many newest always stay")] = 0,
    latest_in: Annotated[str, typer.Option(help="Type of contexts in each of which --keep-latest counts anew")] = "",
    query: Annotated[str, typer.Option("--filter", help="Only what ML Metadata's filter_query matches")] = "",
    include_used: Annotated[bool, typer.Option("--include-used", help="Also what others were made from")] = False,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Make a policy, or change one. It deletes nothing by itself: see plan and apply."""
    body: dict[str, Any] = {
        "node_kind": kind.value,
        "type": kind_of_type,
        "filter": query,
        "keep_latest": keep_latest,
        "latest_in": latest_in,
        "include_used": include_used,
    }
    if older_than:
        body["older_than"] = f"{_seconds(older_than, as_json)}s"
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        found = mesh.send("PATCH", f"/metadata/v1/retentionPolicies/{name}?allow_missing=true", body)
    if as_json:
        emit(found)
        return
    console().print(f"{found['type']} may go if {_rule(found)}", markup=False)
    console().print(f"see what that is now: mlmesh lineage retention plan {name}", style="dim")


@retention.command("remove")
def remove_policy(
    name: PolicyName, ingress: IngressUrl = None, data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Remove a policy."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        mesh.send("DELETE", f"/metadata/v1/retentionPolicies/{name}", None)
    if as_json:
        emit({"removed": name})
    else:
        console().print(f"removed {name}", markup=False)


@retention.command("plan")
def plan(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Policies; none: all")] = None,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Say what the policies would delete now: a dry run, which can be applied within 24 hours."""
    body = {"retention_policies": [f"retentionPolicies/{name}" for name in names or []]}
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        found = mesh.send("POST", "/metadata/v1/retentionPlans", body)
        _show_plan(mesh, found, as_json)


@retention.command("show")
def show_plan(number: PlanNumber, ingress: IngressUrl = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show a plan, and what became of its nodes."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        _show_plan(mesh, mesh.get(f"/metadata/v1/retentionPlans/{number}"), as_json)


@retention.command("apply")
def apply(
    number: PlanNumber,
    yes: Yes = False,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Delete what a plan says, but for what was changed or used since."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        if not yes:
            found = mesh.get(f"/metadata/v1/retentionPlans/{number}")
            left = found.get("node_count", 0) - found.get("deleted_count", 0) - found.get("skipped_count", 0)
            _ask(f"delete {_count(left, 'node')}?", as_json)
        _show_plan(mesh, mesh.send("POST", f"/metadata/v1/retentionPlans/{number}:apply", {}), as_json)


def _ask(question: str, as_json: bool) -> None:
    if not sys.stdin.isatty() or not typer.confirm(question, err=True):
        fail("nothing was deleted; to do it without being asked: --yes", as_json=as_json)


def _seconds(text: str, as_json: bool) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhdw])", text)
    if found is None:
        fail(f"--older-than must be a number and s, m, h, d or w, such as 30d, not {text!r}", as_json=as_json, code=2)
    return int(found[1]) * _UNITS[found[2]]


def _name(one: dict[str, Any]) -> str:
    return str(one.get("name", "")).rpartition("/")[2]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _rule(policy: dict[str, Any]) -> str:
    parts = []
    if policy.get("filter"):
        parts.append(f"it matches {policy['filter']}")
    if policy.get("older_than"):
        seconds = float(str(policy["older_than"]).rstrip("s"))
        unit = next((u for u in "wdhm" if seconds % _UNITS[u] == 0), "s")
        parts.append(f"not changed for {seconds / _UNITS[unit]:g}{unit}")
    if policy.get("keep_latest"):
        within = f" of its {policy['latest_in']}" if policy.get("latest_in") else ""
        parts.append(f"not among the {policy['keep_latest']} newest{within}")
    if not policy.get("include_used"):
        parts.append("not used")
    return ", ".join(parts)


def _show_tombstones(found: dict[str, Any], word: str, as_json: bool) -> None:
    if as_json:
        emit({"tombstones": found.get("tombstones", [])})
        return
    shown = found.get("tombstones", [])
    if not shown:
        console().print("nothing was deleted")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("node", "type", "name", word, "by", "reason", box=None)
    for one in shown:
        row = (
            f"{one['node_kind']} #{one['node_id']}",
            one.get("type", ""),
            one.get("node_name", ""),
            local_time(one.get("delete_time")),
            one.get("deleter", ""),
            one.get("reason", ""),
        )
        table.add_row(*map(escape, row))
    console().print(table)


def _show_plan(mesh: Any, found: dict[str, Any], as_json: bool) -> None:
    number = _name(found)
    items = mesh.pages(f"/metadata/v1/retentionPlans/{number}/items", "retention_items", page_size=1000)
    if as_json:
        emit({**found, "retention_items": list(items)})
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("node", "type", "name", "why", "", box=None)
    for _, one in zip(range(_SHOWN), items, strict=False):
        outcome = str(one.get("outcome", "")).removeprefix("RETENTION_OUTCOME_")
        row = (
            f"{one['node_kind']} #{one['node_id']}",
            one["type"],
            one.get("node_name", ""),
            one.get("reason", ""),
            _OUTCOMES.get(outcome, ""),
        )
        table.add_row(*map(escape, row))
    count = found.get("node_count", 0)
    out = console()
    if count:
        out.print(table)
    if count > _SHOWN:
        out.print(f"and {count - _SHOWN} more; all of them with --json", style="dim")
    if found.get("apply_time"):
        left = found.get("skipped_count", 0)
        skipped = f", {left} left as they are" if left else ""
        out.print(f"deleted {_count(found.get('deleted_count', 0), 'node')}{skipped}")
    elif count:
        until = local_time(found.get("expire_time"))
        out.print(f"{_count(count, 'node')} would go; until {until}: mlmesh lineage retention apply {number}")
    else:
        out.print("nothing would go")
    if found.get("truncated"):
        out.print("there are more than fit into one plan: apply it, and plan again", style="dim")
