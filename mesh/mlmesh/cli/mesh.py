"""Commands for the mesh itself: up, down, status, doctor, render."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlmesh.cli.options import DataDir, Json
from mlmesh.cli.output import console, emit, fail, human_bytes, human_seconds
from mlmesh.running import resolve_data_dir

if TYPE_CHECKING:
    from mlmesh.launch import Options
    from mlmesh.supervisor.plan import MeshState


def up(
    data_dir: DataDir = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once the mesh is ready")] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the ingress (8080)")] = None,
    auto_ports: Annotated[bool, typer.Option("--auto-ports", help="Use any free ports")] = False,
    service: Annotated[list[str] | None, typer.Option(help="Start only this service; may be repeated")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that the mesh may take to be ready")] = 60,
    description: Annotated[Path | None, typer.Option(help="Another description than deploy/mesh.yaml")] = None,
    as_json: Json = False,
) -> None:
    """Start all services and the ingress, and keep them running. Ctrl-C stops them."""
    from mlmesh import launch
    from mlmesh.description import DescriptionError, load

    where = resolve_data_dir(data_dir)
    options = launch.Options(where, port, auto_ports, tuple(service or ()), leave_with_parent=not detach)
    try:
        mesh = load(description)
        supervisor = launch.start(mesh, options)
    except (launch.LaunchError, DescriptionError) as error:
        fail(str(error), as_json=as_json)
    if detach:
        state = _wait(options, supervisor, timeout, as_json)
        _announce(state, where, as_json)
        return
    _foreground(options, supervisor, timeout, as_json)


def _foreground(options: "Options", supervisor: "object", timeout: float, as_json: bool) -> None:
    import signal
    import subprocess

    from mlmesh import launch

    assert isinstance(supervisor, subprocess.Popen)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        state = _wait(options, supervisor, timeout, as_json)
        _announce(state, options.data_dir, as_json)
        code = supervisor.wait()
        if code:
            fail(f"the supervisor ended with code {code}; see {options.data_dir}/logs/supervisor.log", as_json=as_json)
    except KeyboardInterrupt:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if not as_json:
            console(stderr=True).print("stopping ...", style="dim")
        launch.stop(options.data_dir)
        supervisor.wait()


def _wait(options: "Options", supervisor: "object", timeout: float, as_json: bool) -> "MeshState":
    import subprocess

    from mlmesh import launch

    assert isinstance(supervisor, subprocess.Popen)
    errors = console(stderr=True)
    try:
        if as_json or not errors.is_terminal:
            return launch.wait_ready(options.data_dir, supervisor, timeout)
        from rich.live import Live
        from rich.text import Text

        with Live(console=errors, transient=True, refresh_per_second=12) as live:

            def show(state: "MeshState", health: dict[str, bool]) -> None:
                parts = [
                    (f"{'●' if health.get(name) else '○'} {name}  ", "green" if health.get(name) else "yellow")
                    for name in state.processes
                    if name != "ingress"
                ]
                live.update(Text.assemble("starting  ", *parts))

            return launch.wait_ready(options.data_dir, supervisor, timeout, show)
    except launch.LaunchError as error:
        fail(str(error), as_json=as_json)


def _announce(state: "MeshState", data_dir: Path, as_json: bool) -> None:
    if as_json:
        emit(
            {
                "ingress": state.ingress,
                "data_dir": str(data_dir),
                "pid": state.pid,
                "ready_seconds": state.ready_seconds,
                "services": {
                    name: {"pid": each.pid, **each.ports} for name, each in state.processes.items() if name != "ingress"
                },
            }
        )
        return
    console().print(f"[green]ready[/] in {state.ready_seconds:.1f} s at [bold]{state.ingress}[/]  (data: {data_dir})")


def down(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Stop the mesh: the ingress drains, then each service before those it calls."""
    from mlmesh import launch

    where = resolve_data_dir(data_dir)
    try:
        stopped = launch.stop(where)
    except launch.LaunchError as error:
        fail(str(error), as_json=as_json)
    if as_json:
        emit({"stopped": stopped, "data_dir": str(where)})
    else:
        console().print("stopped" if stopped else f"no mesh runs on {where}")


def status(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show services, their health, memory and ports. Exit code 1 if something is not well."""
    from dataclasses import asdict

    from mlmesh.status import read_status

    found = read_status(resolve_data_dir(data_dir))
    well = found.state == "ready" and all(row.healthy for row in found.services)
    if as_json:
        emit(asdict(found))
        raise typer.Exit(0 if well else 1)
    if found.state == "down":
        fail(f"no mesh runs on {found.data_dir}; start one with: mlmesh up")
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "service", "health", "pid", "up", "restarts", "memory", "processes", "ports", box=None, padding=(0, 2, 0, 0)
    )
    for row in found.services:
        word = "healthy" if row.healthy else row.state if row.state != "running" else "unhealthy"
        table.add_row(
            row.name,
            Text(word, "green" if row.healthy else "red"),
            str(row.pid or ""),
            human_seconds(row.uptime_seconds),
            f"{row.restarts}" + (f" ({row.last_exit})" if row.restarts else ""),
            human_bytes(row.memory_bytes),
            str(row.processes),
            "  ".join(f"{kind} {port}" for kind, port in row.ports.items()),
        )
    out = console()
    out.print(f"{found.state} at [bold]{found.ingress}[/]  (data: {found.data_dir}, supervisor: pid {found.pid})")
    out.print(table)
    out.print(
        f"ready after {found.ready_seconds:.1f} s; memory of all processes together: "
        f"[bold]{human_bytes(found.memory_bytes)}[/] ({found.memory_kind})"
    )
    raise typer.Exit(0 if well else 1)


def doctor(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Find what keeps the mesh from running, and say how to mend it. Exit code 1 if something is wrong."""
    from dataclasses import asdict

    from mlmesh.doctor import examine

    findings = examine(resolve_data_dir(data_dir))
    well = all(finding.ok for finding in findings)
    if as_json:
        emit({"ok": well, "findings": [asdict(finding) for finding in findings]})
        raise typer.Exit(0 if well else 1)
    out = console()
    for finding in findings:
        mark = "[green]✓[/]" if finding.ok else "[red]✗[/]"
        out.print(f"{mark} [bold]{finding.check}[/]: {finding.found}")
        if finding.mend:
            out.print(f"    → {finding.mend}")
    raise typer.Exit(0 if well else 1)


def render(
    target: Annotated[str, typer.Option(help="local, istio, knative or all")] = "all",
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 if a file is stale")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder to write to (deploy/ of the checkout)")] = None,
    description: Annotated[Path | None, typer.Option(help="Another description than deploy/mesh.yaml")] = None,
    as_json: Json = False,
) -> None:
    """Write Envoy's, Istio's and Knative's files from deploy/mesh.yaml."""
    from mlmesh.description import DescriptionError, load, repository_root
    from mlmesh.render.files import TARGETS, render_files, stale_files, write_files

    if target not in (*TARGETS, "all"):
        fail(f"there is no target {target!r}; choose one of {', '.join((*TARGETS, 'all'))}", as_json=as_json, code=2)
    targets = TARGETS if target == "all" else (target,)
    root = repository_root()
    folder = output or (root / "deploy" if root else None)
    if folder is None:
        fail("say where to write: --output FOLDER", as_json=as_json, code=2)
    try:
        files = render_files(load(description), targets)
        changed = stale_files(folder, files, targets) if check else write_files(folder, files, targets)
    except DescriptionError as error:
        fail(str(error), as_json=as_json)
    except OSError as error:
        fail(f"cannot write to {folder}: {error}", as_json=as_json)
    if as_json:
        emit({"folder": str(folder), "files": sorted(files), "stale" if check else "changed": changed})
    else:
        verb = "stale" if check else "written"
        for name in changed:
            console().print(f"{verb}: {folder / name}")
        console().print(f"{len(files)} files, {len(changed)} {verb}")
    if check and changed:
        raise typer.Exit(1)
