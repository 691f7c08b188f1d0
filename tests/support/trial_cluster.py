"""A cluster for the tests of trials: the API by kmock; the tests are its controllers, and what its pods print."""

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp.web
import kmock
import yaml

JOBS = kmock.resource("batch", "v1", "jobs")
PYTORCHJOBS = kmock.resource("kubeflow.org", "v1", "pytorchjobs")
PODS = kmock.resource("", "v1", "pods")
CONFIG_MAPS = kmock.resource("", "v1", "configmaps")
KINDS = {"Job": JOBS, "PyTorchJob": PYTORCHJOBS, "Pod": PODS, "ConfigMap": CONFIG_MAPS}


class _Emulator(kmock.KubernetesEmulator):
    """The API; what is made gets a uid. `faults` maps an action of kmock to what befalls its next requests."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.faults: dict[str, list[int | str]] = {}
        self.befallen: list[tuple[str, int | str]] = []
        self.watched: set[str] = set()

    async def _handle(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        action = request.action.value.lower() if request.action else ""
        if action == "create":
            request.data["metadata"].setdefault("uid", uuid.uuid4().hex)
        if action == "watch":
            self.watched.add(request.params.get("fieldSelector", ""))
        waiting = self.faults.get(action, []) if request.resource in {JOBS, PYTORCHJOBS} else []
        if not waiting:
            return await super()._handle(request)
        fault = waiting.pop(0)
        self.befallen.append((action, fault))
        if fault == "gone":
            event = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
            return aiohttp.web.Response(text=json.dumps(event) + "\n", content_type="application/json")
        if fault == "cut":  # a watch whose connection ends at once
            return aiohttp.web.Response(text="", content_type="application/json")
        if fault == "lost":  # it is done, but the answer does not arrive
            await super()._handle(request)
            fault = 500
        status = {"kind": "Status", "code": fault, "message": "said by the test"}
        return aiohttp.web.json_response(status, status=fault)


class TrialCluster:
    """The API of a cluster, on a port of loopback, in a thread of its own.

    Args:
        folder: For the kubeconfig.
    """

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self._logs: dict[str, bytes] = {}
        self._ended: set[str] = set()
        self.readers = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> "TrialCluster":
        self._thread.start()
        assert self._ready.wait(20), "the API did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def call(self, function: Callable, *arguments):
        """Calls something in the thread of the server, where its objects may be touched."""

        async def run():
            found = function(*arguments)
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.api = _Emulator()
        for kind, resource in KINDS.items():
            verbs = ["get", "list", "watch", "create", "patch", "delete"]
            self.api.resources[resource] = {
                "kind": kind, "singular": kind.lower(), "namespaced": True, "verbs": verbs
            }  # fmt: skip
        self.api[PODS, kmock.subresource("log")] << self._log
        async with self.api, kmock.Server(self.api) as server:
            config = {
                "apiVersion": "v1", "kind": "Config", "current-context": "tests",
                "clusters": [{"name": "tests", "cluster": {"server": f"http://127.0.0.1:{server.port}"}}],
                "users": [{"name": "nobody", "user": {}}],
                "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "nobody"}}],
            }  # fmt: skip
            self.kubeconfig.write_text(yaml.safe_dump(config))
            self._ready.set()
            await self._stop.wait()

    async def _log(self, request: kmock.Request) -> AsyncIterator[bytes]:
        offset, name = 0, request.name or ""
        self.readers += 1
        try:
            while True:
                has_ended = name in self._ended
                piece = self._logs.get(name, b"")[offset:]
                offset += len(piece)
                yield piece
                if has_ended:
                    return
                await asyncio.sleep(0.02)
        finally:
            self.readers -= 1

    def fail(self, action: str, *faults: int | str) -> None:
        """Lets the next requests fail."""
        self.call(self.api.faults.setdefault(action, []).extend, faults)

    def objects(self, kind: str) -> dict[str, dict]:
        """Gives the resources of a kind that there are, by name."""

        def found() -> dict[str, dict]:
            return {
                name: json.loads(json.dumps(item.raw))
                for (resource, _, name), item in self.api.objects.items()
                if resource == KINDS[kind] and not item.deleted
            }

        return self.call(found)

    def wait_for(self, kind: str, name: str) -> dict:
        """Waits until there is a resource."""
        deadline = time.monotonic() + 20
        while name not in (found := self.objects(kind)):
            assert time.monotonic() < deadline, f"there is no {kind} {name}: {list(found)}"
            time.sleep(0.02)
        return found[name]

    def change(self, kind: str, name: str, patch: dict, namespace: str = "default") -> None:
        """Patches a resource, as its controller does."""

        async def run() -> None:
            item = self.api.objects[KINDS[kind], namespace, name]
            item.patch(patch)
            await self.api._buses[KINDS[kind]].put({"type": "MODIFIED", "object": item.raw})

        self.call(run)

    def put_config_map(self, name: str, data: dict[str, str], namespace: str = "default") -> None:
        """Makes a ConfigMap."""
        made = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "data": data,
        }

        def put() -> None:
            self.api.objects[CONFIG_MAPS, namespace, name] = made

        self.call(put)

    def end(self, kind: str, name: str, condition: str, namespace: str = "default") -> None:
        """Gives a resource a condition that is true."""
        conditions = [{"type": condition, "status": "True", "reason": f"Made{condition}", "message": "said"}]
        self.change(kind, name, {"status": {"conditions": conditions}}, namespace)

    def tell(self, event: str, kind: str, item: dict) -> None:
        """Tells those who watch of a resource, once more: kmock has no versions to watch from."""
        self.call(self.api._buses[KINDS[kind]].put, {"type": event, "object": item})

    def run_pod(self, name: str, of: dict, printed: str = "", *, ends: bool = False, **labels: str) -> None:
        """Makes a pod, as the controller of a resource does from the first template in it."""
        template = next(_templates(of))
        metadata = {
            "name": name, "namespace": of["metadata"]["namespace"], "uid": uuid.uuid4().hex,
            "labels": {**template["metadata"].get("labels", {}), **labels},
        }  # fmt: skip
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        self.say(name, printed, ends=ends)

        def make() -> None:
            self.api.objects[PODS, metadata["namespace"], name] = pod

        self.call(make)

    def say(self, pod: str, text: str, *, ends: bool = False) -> None:
        """Lets a pod print something."""
        self._logs[pod] = self._logs.get(pod, b"") + text.encode()
        if ends:
            self._ended.add(pod)


def _templates(value):
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield value
        for one in value.values():
            yield from _templates(one)
