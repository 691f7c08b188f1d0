"""A cluster for tests: the API by kmock, and the small Argo of `support.argo` as its controller."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp.web
import kmock
import yaml
from support.argo import Interpreter, Pods, Spoil

WORKFLOWS = kmock.resource("argoproj.io", "v1alpha1", "workflows")
PODS = kmock.resource("", "v1", "pods")
CLAIMS = kmock.resource("", "v1", "persistentvolumeclaims")


class FaultyEmulator(kmock.KubernetesEmulator):
    """The API, with faults.

    `faults` maps an action of kmock ("create", "watch", ...) to what befalls its next requests on Workflows: a status
    instead of an answer; "lost" does as asked, and answers 500; "gone" ends a watch with 410.
    """

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.faults: dict[str, list[int | str]] = {}
        self.befallen: list[int | str] = []

    async def _handle(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        action = request.action.value.lower() if request.action else ""
        waiting = self.faults.get(action, []) if request.resource == WORKFLOWS else []
        if not waiting:
            return await super()._handle(request)
        fault = waiting.pop(0)
        self.befallen.append(fault)
        if fault == "gone":
            event = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
            return aiohttp.web.Response(text=json.dumps(event) + "\n", content_type="application/json")
        if fault == "lost":
            await super()._handle(request)
            fault = 500
        status = {"kind": "Status", "code": fault, "message": "said by the test"}
        return aiohttp.web.json_response(status, status=fault)


class Door:
    """A port of loopback that leads to another, and can be shut.

    Args:
        port: The other.
    """

    def __init__(self, port: int) -> None:
        self._behind = port
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> int:
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self._port

    async def shut(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._behind)
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer), return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()


class Kubernetes:
    """The API of a cluster, on a port of loopback, in a thread of its own.

    Args:
        folder: For what pods leave, and the kubeconfig.
        controller: Whether Workflows are run.
        spoil: See `support.argo.Pods`.
    """

    def __init__(self, folder: Path, *, controller: bool = True, spoil: Spoil | None = None) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self.controller = controller
        self.pods = Pods(folder, spoil)
        self.runs: dict[str, Interpreter] = {}
        self.fault: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> "Kubernetes":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        assert self._ready.wait(20), "the API did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._stop.set)
        self._thread.join(20)
        assert self.fault is None or isinstance(self.fault, asyncio.CancelledError), self.fault

    def call(self, function: Callable, *arguments):
        """Calls something in the thread of the server, where its objects may be touched."""

        async def run():
            found = function(*arguments)
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.api = FaultyEmulator()
        for resource, kind, names in (
            (WORKFLOWS, "Workflow", "workflow"),
            (PODS, "Pod", "pod"),
            (CLAIMS, "PersistentVolumeClaim", "persistentvolumeclaim"),
        ):
            self.api.resources[resource] = {
                "kind": kind, "singular": names, "namespaced": True,
                "verbs": ["get", "list", "watch", "create", "patch", "delete"],
            }  # fmt: skip
        self.api[PODS, kmock.subresource("log")] << self._log
        async with self.api:
            server = await kmock.Server(self.api).__aenter__()
            self._door = Door(server.port)
            self.url = f"http://127.0.0.1:{await self._door.open()}"
            self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(self.url)))
            async with self.pods if self.controller else _Nothing():
                control = asyncio.create_task(self._control())
                self._ready.set()
                await self._stop.wait()
                control.cancel()
                (self.fault,) = await asyncio.gather(control, return_exceptions=True)
            await self._door.shut()
            await server.__aexit__(None, None, None)

    def go_away(self) -> None:
        """Cuts all connections, and takes none."""
        self.call(self._door.shut)

    def come_back(self) -> None:
        """Listens again, where it did."""
        self.call(self._door.open)

    async def _log(self, request: kmock.Request) -> AsyncIterator[bytes]:
        path, offset = self.pods.log(request.name or ""), 0
        while True:
            follow = request.params.get("follow") == "true" and self._is_running(request.name or "")
            piece = path.read_bytes()[offset:] if path.exists() else b""
            offset += len(piece)
            yield piece
            if not follow:
                return
            await asyncio.sleep(0.02)

    def _is_running(self, pod: str) -> bool:
        return any(run.nodes[pod]["phase"] == "Running" for run in self.runs.values() if pod in run.nodes)

    async def _control(self) -> None:
        if not self.controller:
            return
        async with asyncio.TaskGroup() as group:
            while not self._stop.is_set():
                for (resource, namespace, name), item in list(self.api.objects.items()):
                    if resource == WORKFLOWS and name not in self.runs and not item.deleted:
                        self.runs[name] = self._interpreter(namespace, name, json.loads(json.dumps(item.raw)))
                        group.create_task(self._run(self.runs[name]))
                await asyncio.sleep(0.01)

    async def _run(self, run: Interpreter) -> None:
        await run.run()

    def _interpreter(self, namespace: str, name: str, workflow: dict) -> Interpreter:
        def is_ending() -> bool:
            item = self.api.objects[WORKFLOWS, namespace, name]
            return item.deleted or item.raw["spec"].get("shutdown") == "Terminate"

        def publish(status: dict) -> None:
            asyncio.get_running_loop().create_task(self.change(namespace, name, {"status": status}))

        return Interpreter(workflow, self.pods, publish, is_ending)

    async def change(self, namespace: str, name: str, patch: dict) -> None:
        """Patches a Workflow, as the controller does: whether or not others reach the API."""
        item = self.api.objects[WORKFLOWS, namespace, name]
        if not item.deleted:
            item.patch(patch)
            await self.api._buses[WORKFLOWS].put({"type": "MODIFIED", "object": item.raw})

    def workflows(self) -> dict[str, dict]:
        """Gives the Workflows that there are, by name."""

        def found() -> dict[str, dict]:
            return {
                name: json.loads(json.dumps(item.raw))
                for (resource, _, name), item in self.api.objects.items()
                if resource == WORKFLOWS and not item.deleted
            }

        return self.call(found)


class _Nothing:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


def _kubeconfig(url: str) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "clusters": [{"name": "tests", "cluster": {"server": url}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "nobody"}}],
    }
