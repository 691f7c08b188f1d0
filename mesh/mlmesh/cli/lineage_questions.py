"""Commands that ask about artifacts, runs and contexts."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mlmesh.cli.connection import connected
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit, fail

_HIDDEN = frozenset({"display_name", "namespace", "resource_name", "pipeline_root"})
_MOST_FACTS = 4


class GraphFormat(StrEnum):
    """As what a graph is shown."""

    LIST = "list"
    DOT = "dot"
    SVG = "svg"
    JSON = "json"


def list_artifacts(
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="Name of the type: system.Model, ...")],
    query: Annotated[str, typer.Option("--filter", help="ML Metadata's filter_query")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most")] = 100,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """List all artifacts of a type, newest first."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        pages = mesh.pages("/metadata/v1/artifacts", "artifacts", type=kind, filter=query or None)
        found = [node for _, node in zip(range(limit), pages, strict=False)]
    _show_nodes(found, "artifacts", as_json)


def compare(
    left: Annotated[int, typer.Argument(min=1, help="Id of an artifact")],
    right: Annotated[int, typer.Argument(min=1, help="Id of another of the same type")],
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Say in what two artifacts differ: properties, metrics, and how they were made."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        found = mesh.get("/metadata/v1/artifacts:compare", left_id=left, right_id=right)
    if as_json:
        emit(found)
        return
    if found.get("equal"):
        console().print("nothing differs: the same properties, metrics, inputs and execution")
        return
    from rich.table import Table

    table = Table("", "", f"#{left}", f"#{right}", "", box=None)
    for field in ("properties", "metrics", "inputs", "executions"):
        for one in found.get(field, []):
            delta = f"{one['delta']:+.4g}" if one.get("delta") else ""
            table.add_row(field, one["name"], _text(one, "left"), _text(one, "right"), delta)
    console().print(table)


def graph(
    context: Annotated[str, typer.Argument(help="Id or name of a context: a run's id, NAMESPACE/EXPERIMENT, ...")],
    kind: Annotated[str, typer.Option("--type", help="Type of the context, where several have the name")] = "",
    form: Annotated[GraphFormat, typer.Option("--format", "-f", help="As what to show it")] = GraphFormat.LIST,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file")] = None,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show the DAG of a run, an experiment or another context."""
    which = {"context_id": context} if context.isdecimal() else {"name": context, "type": kind or None}
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        if form in {GraphFormat.DOT, GraphFormat.SVG}:
            asked = {name: value for name, value in which.items() if value is not None}
            lines = mesh.lines("/metadata/v1/graph:render", format=f"GRAPH_FORMAT_{form.upper()}", **asked)
            text = "\n".join([*lines, ""])
        else:
            found = mesh.get("/metadata/v1/graph", **which)
            text = json.dumps(found, indent=2) + "\n"
    if output is not None:
        try:
            output.write_text(text)
        except OSError as error:
            fail(f"{output}: {error.strerror}", as_json=as_json)
    elif as_json or form is not GraphFormat.LIST:
        sys.stdout.write(text)
    else:
        _show_graph(found)


def seen(
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="Type of the execution: system.ContainerExecution, ...")],
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="[NAME=]ID or [NAME=]URI of an artifact that it would use")
    ] = None,
    properties: Annotated[
        list[str] | None,
        typer.Option("--property", "-p", help="NAME=VALUE that must be equal; VALUE as in JSON, or text"),
    ] = None,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Say whether this has been run on these inputs before. Ends with 0 on a hit, with 1 on a miss."""
    body = {
        "type": kind,
        "inputs": [_input(given) for given in inputs or []],
        "properties": dict(_property(given) for given in properties or []),
    }
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        found = mesh.send("POST", "/metadata/v1/executions:find", body)
    hit = bool(found.get("hit"))
    if as_json:
        emit(found)
    elif hit:
        console().print(f"yes: execution #{found['execution']['id']}, which made:")
        _show_nodes(found.get("outputs", []), "outputs", as_json=False)
    else:
        nearest = f"; the nearest is execution #{found['execution']['id']}" if "execution" in found else ""
        console().print(f"no{nearest}")
        for one in found.get("reasons", []):
            wanted, has = one.get("wanted", ""), one.get("found", "")
            said = f"  {one['code']} {one.get('name', '')}"
            console().print(said + (f": asked for {wanted}" if wanted else "") + (f", it has {has}" if has else ""))
    raise typer.Exit(0 if hit else 1)


def search(
    words: Annotated[list[str], typer.Argument(help="Words, all of which must be there; word* begins so")],
    kind: Annotated[str, typer.Option("--kind", help="artifact, execution or context")] = "",
    type_name: Annotated[str, typer.Option("--type", help="Name of the type")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most")] = 20,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Find nodes by words in their names, URIs and properties; the best first."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        found = mesh.get(
            "/metadata/v1/search",
            query=" ".join(words),
            kind=kind or None,
            type=type_name or None,
            page_size=limit,
        )
    if not found.get("complete") and not as_json:
        console(stderr=True).print("the index is still being made: there may be more", style="dim")
    _show_nodes(found.get("nodes", []), "nodes", as_json)


def contexts(
    owner: Annotated[str, typer.Option(help="Who is responsible")] = "",
    commit: Annotated[str, typer.Option(help="Git commit, or its beginning")] = "",
    project: Annotated[str, typer.Option(help="Project")] = "",
    experiment: Annotated[str, typer.Option(help="Experiment")] = "",
    kind: Annotated[str, typer.Option("--type", help="Name of the type")] = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """List contexts by owner, change, project and experiment, newest first."""
    asked = {"owner": owner, "commit": commit, "project": project, "experiment": experiment, "type": kind}
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        given = {name: value for name, value in asked.items() if value}
        found = list(mesh.pages("/metadata/v1/contexts", "contexts", **given))
    _show_nodes(found, "contexts", as_json)


def record(
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="Type of the context; made where there is none")],
    name: Annotated[str, typer.Argument(help="Its name; one that is there is brought up to date")],
    owner: Annotated[str, typer.Option(help="Who is responsible")] = "",
    commit: Annotated[str, typer.Option(help="Git commit")] = "",
    project: Annotated[str, typer.Option(help="Project")] = "",
    experiment: Annotated[str, typer.Option(help="Experiment")] = "",
    artifacts: Annotated[list[int] | None, typer.Option("--artifact", help="Id of an artifact to put into it")] = None,
    executions: Annotated[list[int] | None, typer.Option("--execution", help="Id of an execution")] = None,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Record a context by owner, change, project and experiment, and put artifacts and executions into it."""
    body = {
        "type": kind, "name": name, "owner": owner, "commit": commit, "project": project, "experiment": experiment,
        "artifact_ids": [str(each) for each in artifacts or []],
        "execution_ids": [str(each) for each in executions or []],
    }  # fmt: skip
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        found = mesh.send("POST", "/metadata/v1/contexts", body)
    if as_json:
        emit(found)
    else:
        console().print(f"context #{found['id']}; see it with: mlmesh lineage graph {found['id']}")


def _show_nodes(nodes: list[dict[str, Any]], name: str, as_json: bool) -> None:
    if as_json:
        emit({name: nodes})
        return
    if not nodes:
        console().print(f"no {name}")
        return
    from rich.table import Table

    table = Table("id", "type", "name", "", box=None)
    for node in nodes:
        properties = node.get("properties", {})
        shown = [f"{key}={value}" for key, value in sorted(properties.items()) if _is_fact(key, value)]
        facts = " ".join(shown[:_MOST_FACTS])
        bad = "".join(f"[red]bad: {_plain(note['reason'])}[/] " for note in node.get("marks", []))
        label = properties.get("display_name") or node.get("name") or node.get("uri") or ""
        table.add_row(f"#{node['id']}", node.get("type", ""), _plain(label), bad + _plain(facts))
    console().print(table)


def _show_graph(found: dict[str, Any]) -> None:
    """Prints each execution with what it used and made, in order."""
    nodes = {(node["kind"], node["id"]): node for node in found.get("nodes", [])}
    for (kind, number), node in nodes.items():
        if kind != "execution":
            continue
        state = node.get("state", "")
        console().print(
            f"[bold]{_plain(_label(node))}[/]  [magenta]{_plain(node.get('type', ''))}[/]  #{number}  {state}"
        )
        for word, wanted in (("uses ", "INPUT"), ("makes", "OUTPUT")):
            for edge in found.get("edges", []):
                if edge["type"] == wanted and edge["execution_id"] == number:
                    artifact = nodes.get(("artifact", edge["artifact_id"]), {})
                    said = f"{_label(artifact)}  {artifact.get('type', '')}  #{edge['artifact_id']}"
                    console().print(f"  {word} {_plain(said)}")
    if found.get("truncated"):
        console().print("there is more than is shown", style="dim")


def _label(node: dict[str, Any]) -> str:
    return str(node.get("properties", {}).get("display_name") or node.get("name") or node.get("uri") or "?")


def _plain(text: Any) -> str:
    from rich.markup import escape

    return escape(str(text))


def _is_fact(name: str, value: Any) -> bool:
    return name not in _HIDDEN and not isinstance(value, dict | list) and value not in {"", None}


def _text(one: dict[str, Any], side: str) -> str:
    if side not in one:
        return "-"
    value = one[side]
    return _plain(value if isinstance(value, str) else json.dumps(value))


def _input(given: str) -> dict[str, str]:
    name, equals, what = given.partition("=")
    if not equals or "://" in name:
        name, what = "", given
    return {"name": name, "artifact_id" if what.lstrip("#").isdecimal() else "uri": what.lstrip("#")}


def _property(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not equals:
        raise typer.BadParameter(f"{given!r} must be NAME=VALUE", param_hint="--property")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
