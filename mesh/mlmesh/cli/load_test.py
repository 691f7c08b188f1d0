"""Puts load on a model: mlmesh load-test."""

import base64
import math
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from mlmesh.cli.connection import connected
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit, fail

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mlmesh.loading.plan import Plan
    from mlmesh.loading.run import Measured

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_PERCENTILES = (50, 90, 99, 99.9)
_LIMIT = 0.9  # of a processor: more, and it is the load that was measured


def load_test(
    model: Annotated[str, typer.Argument(help="Name of the model; mlmesh deploy lists them")],
    data: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="What each request asks, as for mlmesh predict: JSON, a file of it, or - for input"
        ),
    ],
    clients: Annotated[int, typer.Option("--clients", "-c", min=1, max=10_000, help="Connections that ask")] = 16,
    seconds: Annotated[float, typer.Option("--duration", "-t", min=1, help="Seconds to measure")] = 10,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds before that, not counted")] = 1,
    rate: Annotated[
        float, typer.Option(min=0, help="Requests/s that begin, answered or not; 0: ask again once answered")
    ] = 0,
    grpc: Annotated[bool, typer.Option("--grpc", help="Ask by gRPC, not REST")] = False,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes that put on the load")] = 1,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that an answer may take")] = 30,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Measure how a model answers under load: answers a second, latencies, errors."""
    from mlmesh.loading.plan import Plan
    from mlmesh.loading.request import grpc_body, rest_body
    from mlmesh.loading.run import LoadFailed
    from mlmesh.tensors import as_request, read_request

    with connected(ingress, data_dir, as_json=as_json) as mesh:
        content = read_request(data)
        path = f"/v2/models/{quote(model, safe='')}"
        declared = [] if isinstance(content, dict) and "inputs" in content else mesh.get(path).get("inputs", [])
        request = as_request(content, declared)
        mesh.send("POST", f"{path}/infer", request)  # what is wrong with it is said once, and not a million times
        body = grpc_body(request, model) if grpc else rest_body(request)
        plan = Plan(
            url=mesh.url,
            path=_INFER if grpc else f"{path}/infer",
            body=base64.b64encode(body).decode("ascii"),
            grpc=grpc,
            clients=clients,
            seconds=seconds,
            warm_up_seconds=warm_up,
            rate=rate,
            first=0,
            timeout_seconds=timeout,
        )
    try:
        found = _run(plan, processes, quiet=as_json)
    except LoadFailed as error:
        fail(str(error), as_json=as_json)
    if as_json:
        emit(_summary(found))
    else:
        console().print(_picture(found))
        if found.busy > _LIMIT:
            console(stderr=True).print(
                f"[yellow]the load itself took {found.busy:.0%} of a processor, so the model may be faster than this; "
                f"try --processes {processes + 1}[/]"
            )
    if not found.answers:
        raise typer.Exit(1)


def _run(plan: "Plan", processes: int, *, quiet: bool) -> "Measured":
    from mlmesh.loading.run import Measured, run

    found = Measured()
    errors = console(stderr=True)
    if quiet or not errors.is_terminal:
        for step in run(plan, processes):
            found = step
        return found
    from rich.live import Live

    with Live(console=errors, transient=True, refresh_per_second=4) as live:
        for step in run(plan, processes):
            found = step
            live.update(_picture(found))
    return found


def _summary(found: "Measured") -> dict[str, Any]:
    milliseconds = {f"p{percent:g}": _milliseconds(found, percent) for percent in (*_PERCENTILES, 100)}
    return {
        "answers": found.answers,
        "errors": found.errors,
        "outcomes": dict(found.outcomes),
        "seconds": found.seconds,
        "answers_per_second": found.answers / found.seconds if found.seconds else 0.0,
        "latency_ms": {"max" if name == "p100" else name: value for name, value in milliseconds.items()},
        "load_busy": found.busy,
    }


def _milliseconds(found: "Measured", percent: float) -> float | None:
    seconds = found.latencies.percentile(percent)
    return None if math.isnan(seconds) else seconds * 1e3


def _picture(found: "Measured") -> "RenderableType":
    from rich.table import Table

    from mlmesh.cli.sparkline import sparkline

    table = Table.grid(padding=(0, 2, 0, 0))
    per_second = found.answers / found.seconds if found.seconds else 0.0
    table.add_row("answers/s", f"[bold]{per_second:,.0f}[/]  {sparkline(found.rates[:-1])}")
    table.add_row("answers", f"{found.answers:,} in {found.seconds:.1f} s")
    cells = [
        f"p{percent:g} {value:.2f}" for percent in _PERCENTILES if (value := _milliseconds(found, percent)) is not None
    ]
    if (most := _milliseconds(found, 100)) is not None:
        table.add_row("latency, ms", "  ".join([*cells, f"max {most:.2f}"]))
    errors = {name: count for name, count in found.outcomes.items() if name != "OK"}
    if errors:
        words = ", ".join(f"{name}: {count:,}" for name, count in sorted(errors.items()))
        table.add_row("[red]errors[/]", f"[red]{found.errors:,}[/]  {words}")
    return table
