"""Commands for how requests are spread over the revisions of a model: traffic, promote, rollback."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlmesh.cli.completion import complete_models, complete_revisions
from mlmesh.cli.connection import connected
from mlmesh.cli.finding_models import Model, explained
from mlmesh.cli.options import DataDir, IngressUrl, Json, Namespace
from mlmesh.cli.output import console, emit, fail

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

ModelName = Annotated[
    str, typer.Argument(metavar="NAME", help="The model; mlmesh models lists them", autocompletion=complete_models)
]
Revision = Annotated[
    str,
    typer.Argument(metavar="REV", help="A revision, by number, name or tag", autocompletion=complete_revisions),
]


def traffic(
    model: ModelName,
    shares: Annotated[
        list[str] | None,
        typer.Argument(metavar="REV=PERCENT", help="Shares, together 100; REV: number, name, tag, or latest"),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG=REV", help="A name that requests may ask for as a version")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="H=VALUE:REV",
            help="Requests whose header H is VALUE go to REV; H^=VALUE: begins with it; H~=PATTERN: matches it (RE2)",
        ),
    ] = None,
    sticky: Annotated[
        str, typer.Option(metavar="HEADER", help="Keep together what has the same value of it; caller: each caller")
    ] = "",
    shadow: Annotated[
        str, typer.Option(metavar="REV=PERCENT", help="Send copies of so many requests to REV too; answers are dropped")
    ] = "",
    no_header: Annotated[bool, typer.Option("--no-header", help="Take the header rules away")] = False,
    no_sticky: Annotated[bool, typer.Option("--no-sticky", help="Keep nothing together")] = False,
    no_shadow: Annotated[bool, typer.Option("--no-shadow", help="Send no copies")] = False,
    by_manifest: Annotated[
        bool, typer.Option("--by-manifest", help="Shares as the manifest says (canaryTrafficPercent)")
    ] = False,
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Spread the requests of a model over its revisions; without anything to change, show how they are spread."""
    from mlmesh.cli.traffic_options import CALLER, TrafficError, read_rule, read_shadow, read_targets

    _refuse_both(as_json, (bool(header), no_header, "header"), (bool(sticky), no_sticky, "sticky"))
    _refuse_both(as_json, (bool(shadow), no_shadow, "shadow"))
    if by_manifest and (shares or tag):
        fail("--by-manifest goes without shares and tags", as_json=as_json, code=2)
    changes: dict[str, Any] = {}
    try:
        if shares or tag or by_manifest:
            changes["targets"] = read_targets(shares or [], tag or [])
        if header or no_header:
            changes["rules"] = [read_rule(rule) for rule in header or []]
        if sticky or no_sticky:
            changes["sticky"] = {"header": "" if sticky == CALLER else sticky} if sticky else None
        if shadow or no_shadow:
            changes["shadow"] = read_shadow(shadow) if shadow else None
    except TrafficError as error:
        fail(str(error), as_json=as_json, code=2)
    where = Model.named(model, namespace)
    with connected(ingress, data_dir, as_json=as_json) as mesh, explained(where, as_json=as_json):
        found = mesh.get(where.path)
        if changes:
            wanted = {**found.get("status", {}).get("traffic", {}), **changes}
            body = {"traffic": {key: value for key, value in wanted.items() if value is not None}}
            found = mesh.send("POST", f"{where.path}:setTraffic", body)
    _show(found, as_json)


def promote(
    model: ModelName,
    revision: Revision = "",
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Give all requests of a model to its newest revision (or REV): a canary has done well."""
    where = Model.named(model, namespace)
    with connected(ingress, data_dir, as_json=as_json) as mesh, explained(where, as_json=as_json):
        found = _all_to(mesh, where, "promote", revision)
    _show(found, as_json)


def rollback(
    model: ModelName,
    revision: Revision = "",
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Give all requests of a model back to the revision that had them before (or REV)."""
    where = Model.named(model, namespace)
    with connected(ingress, data_dir, as_json=as_json) as mesh, explained(where, as_json=as_json):
        found = _all_to(mesh, where, "rollback", revision)
    _show(found, as_json)


def _all_to(mesh: "Ingress", model: Model, verb: str, revision: str) -> dict[str, Any]:
    found: dict[str, Any] = mesh.send("POST", f"{model.path}:{verb}", {"revision": revision})
    return found


def _show(service: dict[str, Any], as_json: bool) -> None:
    from mlmesh.cli.traffic_view import traffic_lines

    if as_json:
        emit(service)
        return
    out = console()
    for line in traffic_lines(service):
        out.print(line, soft_wrap=True)


def _refuse_both(as_json: bool, *pairs: tuple[bool, bool, str]) -> None:
    for given, taken_away, name in pairs:
        if given and taken_away:
            fail(f"give one of --{name}, --no-{name}", as_json=as_json, code=2)
