"""Runs a plan: all processes at once, each again when it ends, stopped in order."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from mlmesh_kit.launch import WarmLauncher

from mlmesh.supervisor import admin
from mlmesh.supervisor.child import Child
from mlmesh.supervisor.plan import INGRESS, MeshState, Plan
from mlmesh.supervisor.rotation import rotate

_ROTATION_SECONDS = 10.0
_SHARED = ("mlmesh_kit.server", "mlmesh_kit.database", "mlmesh_kit.launch", "google.api.annotations_pb2")
"""What every service imports. It is imported once, and services are forked from the process that has it."""


class Supervisor:
    """Runs one mesh.

    Args:
        plan: What to run.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._socket = Path(plan.admin_socket)
        # Read when a process begins, so too late for a forked one: threads share heaps, which takes less memory.
        self._launcher = WarmLauncher(_SHARED, env={**os.environ, "MALLOC_ARENA_MAX": "2"})
        self._children = {each.name: Child(each, self._launcher, self._write) for each in plan.processes}
        self._state = MeshState(
            plan.ingress_url,
            pid=os.getpid(),
            started=time.time(),
            processes={name: child.state for name, child in self._children.items()},
        )

    def _write(self) -> None:
        self._state.write(Path(self._plan.state))

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT, then stops everything in order."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self._write()
        keeping = [asyncio.create_task(child.run()) for child in self._children.values()]
        watching = [asyncio.create_task(self._watch()), asyncio.create_task(self._rotate())]
        await stop.wait()
        for task in watching:
            task.cancel()
        self._state.state = "stopping"
        self._write()
        await self._drain()
        for names in self._plan.stop_order:
            await asyncio.gather(*(self._children[name].stop() for name in names if name in self._children))
        await asyncio.gather(*keeping)
        await self._launcher.close()
        self._state.state = "stopped"
        self._write()

    async def _watch(self) -> None:
        """Waits until the ingress accepts and has found every service healthy."""
        services = self._children.keys() - {INGRESS}
        while True:
            with contextlib.suppress(OSError, ValueError):
                health = await admin.read_health(self._socket)
                for name in services:
                    if health.get(name) and self._children[name].state.state == "running":
                        continue
                    break
                else:
                    if await admin.is_live(self._socket):
                        break
            await asyncio.sleep(0.05)
        self._state.state = "ready"
        self._state.ready_seconds = round(time.time() - self._state.started, 3)
        self._write()

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(_ROTATION_SECONDS)
            for log in self._plan.rotated:
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(rotate, Path(log))

    async def _drain(self) -> None:
        """Lets the ingress refuse new connections and end the requests under way."""
        deadline = time.monotonic() + self._plan.drain_seconds
        with contextlib.suppress(OSError, ValueError):
            await admin.call(self._socket, "POST", "/drain_listeners?graceful&skip_exit")
            while time.monotonic() < deadline:
                _, body = await admin.call(self._socket, "GET", "/stats?filter=^http.ingress.downstream_rq_active$")
                if int(body.rsplit(b":", 1)[-1]) == 0:
                    return
                await asyncio.sleep(0.05)
