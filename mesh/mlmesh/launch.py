"""Brings a mesh up and takes it down."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlmesh.description import INGRESS, Mesh, Ports
from mlmesh.logs import readable
from mlmesh.running import read_health
from mlmesh.supervisor import lock
from mlmesh.supervisor.layout import Layout
from mlmesh.supervisor.plan import MeshState, Plan, ProcessPlan

_CRASHES = 4
"""Ends in a row, before it ever was ready, after which a process is taken for broken."""
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z? ")


class LaunchError(Exception):
    """The mesh cannot be brought up or down; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a mesh is brought up.

    Args:
        data_dir: Where all state lives.
        port: Of the ingress; None: the description's, or with `auto_ports` any free one.
        auto_ports: All ports are picked from those that are free.
        services: Only these; empty: all.
        leave_with_parent: The mesh stops when this process dies.
    """

    data_dir: Path
    port: int | None = None
    auto_ports: bool = False
    services: tuple[str, ...] = ()
    leave_with_parent: bool = False


def start(mesh: Mesh, options: Options) -> "subprocess.Popen[bytes]":
    """Starts a mesh and returns at once; `wait_ready` waits.

    Raises:
        LaunchError: It cannot be started; nothing has been.
    """
    layout = Layout(options.data_dir)
    try:
        layout.prepare()
        held = lock.acquire(layout.lock)
    except OSError as error:
        raise LaunchError(f"the data directory cannot be used: {error}; choose another with --data-dir") from error
    if held is None:
        state = MeshState.read(layout.state)
        where = f" at {state.ingress} (pid {state.pid})" if state else ""
        raise LaunchError(
            f"a mesh runs already{where} on {options.data_dir}; stop it with: mlmesh down --data-dir {options.data_dir}"
        )
    try:
        layout.state.unlink(missing_ok=True)
        _prepare(mesh, options, layout).write(layout.plan)
        log = (layout.logs / "supervisor.log").open("ab")
        with log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlmesh.supervisor", str(layout.plan), str(held)),
                    *(["--leave-with-parent"] if options.leave_with_parent else []),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=options.data_dir,
                start_new_session=True,
                pass_fds=[held],
            )
    finally:
        os.close(held)


def _prepare(mesh: Mesh, options: Options, layout: Layout) -> Plan:
    """Checks what a mesh needs, chooses its ports and writes Envoy's files."""
    import yaml

    from mlmesh.envoy_binary import EnvoyMissingError, find_envoy
    from mlmesh.ports import PortTakenError
    from mlmesh.render.envoy import ADMIN_SOCKET, DESCRIPTOR_SET, render_ingress
    from mlmesh.render.methods import descriptor_set_path, read_methods

    names = _chosen(mesh, options.services)
    try:
        envoy = find_envoy()
        placement = _place(mesh, options, names)
    except (EnvoyMissingError, PortTakenError) as error:
        raise LaunchError(str(error)) from error
    shutil.copyfile(descriptor_set_path(), layout.run / DESCRIPTOR_SET)
    bootstrap = render_ingress(mesh, read_methods(), placement)
    (layout.run / "envoy.yaml").write_text(yaml.dump(bootstrap, Dumper=yaml.CSafeDumper, sort_keys=False))
    (layout.run / ADMIN_SOCKET).unlink(missing_ok=True)
    url = f"http://{mesh.ingress.host}:{placement.ingress_port}"
    arguments = ["-c", "envoy.yaml", "--log-level", "warning", "--use-dynamic-base-id"]
    arguments += ["--concurrency", str(mesh.ingress.threads), "--drain-time-s", f"{mesh.ingress.drain_seconds:.0f}"]
    processes = [
        ProcessPlan(
            name=INGRESS,
            argv=[str(envoy), *arguments, "--disable-hot-restart"],
            env={},
            cwd=str(layout.run),
            log=str(layout.log(INGRESS)),
            ports={INGRESS: placement.ingress_port},
        )
    ]
    processes += [_service_plan(mesh, name, placement.ports, url, layout) for name in names]
    return Plan(
        ingress_url=url,
        processes=processes,
        stop_order=[[INGRESS], *mesh.stop_order],
        admin_socket=str(layout.admin_socket),
        state=str(layout.state),
        rotated=[*(each.log for each in processes), str(layout.logs / "access.log")],
        drain_seconds=mesh.ingress.drain_seconds,
    )


def _chosen(mesh: Mesh, services: Sequence[str]) -> list[str]:
    unknown = sorted(set(services) - mesh.services.keys())
    if unknown:
        raise LaunchError(f"there is no service {unknown[0]!r}; there are: {', '.join(mesh.services)}")
    names = [name for name in mesh.services if not services or name in services]
    missing = [mesh.services[n].module for n in names if importlib.util.find_spec(mesh.services[n].module) is None]
    if missing:
        raise LaunchError(f"not installed: {', '.join(missing)}; install the whole of mlmesh with: pip install mlmesh")
    return names


def _place(mesh: Mesh, options: Options, names: Sequence[str]) -> "Placement":  # type: ignore[name-defined]  # noqa: F821
    from mlmesh import ports as port_tools
    from mlmesh.render.envoy import Placement

    host = mesh.ingress.host
    if not options.auto_ports:
        ports = {name: mesh.services[name].ports for name in names}
        ingress = options.port or mesh.ingress.port
        wanted = {INGRESS: ingress}
        wanted |= {f"{name}, {kind}": port for name in names for kind, port in ports[name].model_dump().items()}
        try:
            port_tools.check_free(wanted, host)
        except port_tools.PortTakenError as error:
            raise LaunchError(f"{error}\nstop what has it, or choose others with --port N or --auto-ports") from error
        return Placement(ingress, ports)
    if options.port:
        port_tools.check_free({INGRESS: options.port}, host)
    picked = port_tools.pick_free(2 * len(names) + 1, host, avoid=[options.port or 0])
    ingress = options.port or picked[-1]
    return Placement(ingress, {n: Ports(grpc=picked[2 * i], http=picked[2 * i + 1]) for i, n in enumerate(names)})


def _service_plan(mesh: Mesh, name: str, ports: dict[str, Ports], url: str, layout: Layout) -> ProcessPlan:
    service = mesh.services[name]
    settings = {
        "HOST": mesh.ingress.host,
        "GRPC_PORT": str(ports[name].grpc),
        "HTTP_PORT": str(ports[name].http),
        "DATA_DIR": str(layout.data_dir),
        "LOCAL_USER": mesh.identity.local_user,
    }
    for setting, peer in service.peers.items():
        if peer in ports:
            settings[setting.upper()] = f"{mesh.ingress.host}:{ports[peer].grpc}"
    if service.ingress_setting:
        settings[service.ingress_setting.upper()] = url
    prefix = f"MLMESH_{name.upper().replace('-', '_')}_"
    return ProcessPlan(
        name=name,
        argv=[sys.executable, "-m", service.module],
        env={
            "PYTHONUNBUFFERED": "1",
            "MLMESH_INGRESS": url,
            **service.env,
            **{prefix + key: value for key, value in settings.items()},
        },
        cwd=str(layout.data_dir),
        log=str(layout.log(name)),
        ports=ports[name].model_dump(),
    )


def wait_ready(
    data_dir: Path,
    supervisor: "subprocess.Popen[bytes]",
    timeout_seconds: float = 60,
    progress: Callable[[MeshState, dict[str, bool]], None] | None = None,
) -> MeshState:
    """Waits until every service is healthy in the eyes of the ingress.

    Args:
        data_dir: Of the mesh.
        supervisor: From `start`.
        timeout_seconds: Longest wait.
        progress: Called now and then with what is known, and which services are healthy.

    Raises:
        LaunchError: It is not ready in time, or a process cannot live; everything has been stopped.
    """
    layout = Layout(data_dir)
    before = {path: path.stat().st_size for path in layout.logs.glob("*.log")}
    deadline = time.monotonic() + timeout_seconds
    while True:
        state = MeshState.read(layout.state)
        if state and state.state == "ready":
            return state
        fault, name = "", "supervisor"
        if supervisor.poll() is not None:
            fault = f"the supervisor ended with code {supervisor.returncode}"
        if state:
            if progress:
                progress(state, read_health(layout))
            for broken in (n for n, each in state.processes.items() if each.restarts >= _CRASHES):
                fault, name = f"{broken} does not stay up: {state.processes[broken].last_exit}", broken
            if not fault and time.monotonic() > deadline:
                health = read_health(layout)
                sick = [n for n in state.processes if n != INGRESS and not health.get(n)]
                fault = f"not ready after {timeout_seconds:g} s: {', '.join(sick) or INGRESS}"
                name = sick[0] if sick else INGRESS
        if fault:
            stop(data_dir)
            tail = _tail(layout.log(name), before.get(layout.log(name), 0))
            raise LaunchError(f"{fault}\nthe end of {layout.log(name)}:\n{tail}" if tail else fault)
        time.sleep(0.05)


def _tail(log: Path, start: int, count: int = 15) -> str:
    """Gives the last lines that a process has written since `start`; what it says at each try only once."""
    try:
        with log.open("rb") as file:
            file.seek(start if start <= log.stat().st_size else 0)  # else it was rotated
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = (readable(line) for line in text.splitlines())
    return "\n".join(list({_TIME.sub("", line): line for line in lines}.values())[-count:])


def stop(data_dir: Path, timeout_seconds: float = 60) -> bool:
    """Stops the mesh on a data directory and waits for its end; tells whether there was one.

    Raises:
        LaunchError: It did not end in time.
    """
    layout = Layout(data_dir)
    if not lock.is_held(layout.lock):
        return False
    deadline = time.monotonic() + timeout_seconds
    told = False
    while lock.is_held(layout.lock):
        state = MeshState.read(layout.state)
        if state and state.pid and not told:
            os.kill(state.pid, signal.SIGTERM)
            told = True
        if time.monotonic() > deadline:
            raise LaunchError(
                f"the mesh on {data_dir} has not stopped after {timeout_seconds:g} s (pid of the supervisor: "
                f"{state.pid if state else 'unknown'})"
            )
        time.sleep(0.05)
    return True
