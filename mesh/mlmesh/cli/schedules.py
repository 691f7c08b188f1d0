"""`mlmesh schedules`: runs that come back by the clock (KFP's recurring runs)."""

import datetime
import difflib
import re
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from mlmesh.cli.connection import connected
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit, fail
from mlmesh.cli.runs import experiment_id_of
from mlmesh.cli.times import local_time, parse_time

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

_API = "/apis/v2beta1/recurringruns"
_ID_LENGTH = 36
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

Which = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Its name, or its id, of which the beginning is enough")]

group = typer.Typer(
    help="Run pipelines again and again, by a clock or an interval.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@group.command("list")
def list_schedules(ingress: IngressUrl = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the schedules, the newest first."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        found = [_brief(one) for one in mesh.pages(_API, "recurringRuns", sort_by="created_at desc", page_size=200)]
    if as_json:
        emit(found)
        return
    if not found:
        console().print("no schedules yet; make one with: mlmesh schedules create FILE --every 1h")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("schedule", "name", "when", "state", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for one in found:
        state = str(one.get("status", ""))
        problem = one.get("error", {}).get("message")
        shown = f"{state}  [red]{escape(problem)}[/]" if problem else state
        table.add_row(one["recurring_run_id"][:8], escape(one["display_name"]), escape(_when(one)), shown)
    console().print(table)


@group.command("create")
def create(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|MODULE:FUNC",
            help="A compiled pipeline (YAML, JSON; - for standard input), a Python file, or FILE.py:FUNC, MODULE:FUNC",
        ),
    ],
    cron: Annotated[
        str, typer.Option(help="When: 6 fields, seconds first ('0 30 9 * * mon-fri'), or @hourly, @daily, ...")
    ] = "",
    every: Annotated[str, typer.Option(help="Or how often: 90s, 15m, 2h, 1d")] = "",
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="NAME=VALUE; [[ScheduledTime]] and [[Index]] are filled in"),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the schedule (the pipeline's)")] = "",
    experiment: Annotated[str, typer.Option(help="Put the runs in this experiment; it is made if need be")] = "",
    pipeline: Annotated[str, typer.Option(help="Which one, where a Python file has several pipelines")] = "",
    start: Annotated[str, typer.Option(help="Not before: 2024-05-01T12:00:00Z (without Z, of the local clock)")] = "",
    end: Annotated[str, typer.Option(help="Not after; likewise")] = "",
    at_a_time: Annotated[int, typer.Option(min=1, max=10, help="So many of its runs at a time")] = 1,
    catch_up: Annotated[
        bool, typer.Option("--catch-up/--no-catch-up", help="Make up for each time that was missed, or for the last")
    ] = False,
    disabled: Annotated[bool, typer.Option("--disabled", help="Do not begin yet")] = False,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline again and again."""
    from mlmesh.pipelines import ir_of, load_pipeline, parse_parameters

    if bool(cron) == bool(every):
        fail("say when: either --cron or --every", as_json=as_json, code=2)
    limits = {
        key: _moment(option, value, as_json)
        for key, option, value in (("start_time", "--start", start), ("end_time", "--end", end))
        if value
    }
    kind = "cron_schedule" if cron else "periodic_schedule"
    schedule: dict[str, Any] = {"cron": cron} if cron else {"interval_second": str(_seconds(every, as_json))}
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        spec = load_pipeline(file, pipeline)
        body = {
            "display_name": name or str(ir_of(spec).get("pipelineInfo", {}).get("name", "pipeline")),
            "pipeline_spec": spec,
            "runtime_config": {"parameters": parse_parameters(spec, param or ())},
            "trigger": {kind: {**schedule, **limits}},
            "max_concurrency": str(at_a_time),
            "no_catchup": not catch_up,
            "mode": "DISABLE" if disabled else "ENABLE",
        }
        if experiment:
            body["experiment_id"] = experiment_id_of(mesh, experiment)
        made = mesh.send("POST", _API, body)
    if as_json:
        emit(_brief(made))
    else:
        console().print(f"schedule [bold]{made['recurring_run_id']}[/] created; its runs are among: mlmesh runs")


@group.command("enable")
def enable(which: Which, ingress: IngressUrl = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Let a schedule make runs."""
    _change("POST", ":enable", "enabled", which, ingress, data_dir, as_json)


@group.command("disable")
def disable(which: Which, ingress: IngressUrl = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Keep a schedule from making runs; those that are active go on."""
    _change("POST", ":disable", "disabled", which, ingress, data_dir, as_json)


@group.command("delete")
def delete(which: Which, ingress: IngressUrl = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Delete a schedule; its runs stay."""
    _change("DELETE", "", "deleted", which, ingress, data_dir, as_json)


def _change(
    method: str, verb: str, done: str, which: str, ingress: IngressUrl, data_dir: DataDir, as_json: bool
) -> None:
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        found = _whole_id(mesh, which, as_json)
        mesh.send(method, f"{_API}/{quote(found, safe='')}{verb}", {} if method == "POST" else None)
    if as_json:
        emit({done: found})
    else:
        console().print(f"{done} {found}", markup=False)


def _whole_id(mesh: "Ingress", which: str, as_json: bool) -> str:
    if len(which) >= _ID_LENGTH:
        return which
    names = {
        str(one["recurring_run_id"]): one["display_name"] for one in mesh.pages(_API, "recurringRuns", page_size=200)
    }
    found = [one for one, name in names.items() if name == which] or [one for one in names if one.startswith(which)]
    if len(found) > 1:
        fail(f"{which!r} fits several schedules; give the id of one: {', '.join(found[:5])}", as_json=as_json)
    if not found:
        near = difflib.get_close_matches(which, names.values(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        fail(f"there is no schedule {which!r}; {hint}see which there are with: mlmesh schedules list", as_json=as_json)
    return found[0]


def _brief(one: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the pipeline: it is long, and the user has it."""
    return {key: value for key, value in one.items() if key != "pipeline_spec"}


def _seconds(text: str, as_json: bool) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhdw])", text)
    if found is None:
        fail(f"--every must be a number and s, m, h, d or w, such as 15m, not {text!r}", as_json=as_json, code=2)
    return int(found[1]) * _UNITS[found[2]]


def _moment(option: str, text: str, as_json: bool) -> str:
    """Reads a time as people write it; without a zone it is of the clock on the wall."""
    found = parse_time(text)
    if found is None:
        fail(f"{option} must be a time such as 2024-05-01T12:00:00Z, not {text!r}", as_json=as_json, code=2)
    return found.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")


def _when(one: dict[str, Any]) -> str:
    trigger = one.get("trigger", {})
    cron = trigger.get("cron_schedule")
    schedule = cron or trigger.get("periodic_schedule", {})
    seconds = int(schedule.get("interval_second", 0))
    unit = next((unit for unit in "wdhm" if seconds % _UNITS[unit] == 0), "s")
    text = str(schedule.get("cron")) if cron else f"every {seconds // _UNITS[unit]}{unit}"
    for word, key in (("from", "start_time"), ("until", "end_time")):
        if schedule.get(key):
            text += f" {word} {local_time(schedule[key])}"
    return text
