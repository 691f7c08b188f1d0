"""What bench_serving measures of the serving router alone: stages, memory, servers elsewhere, cold starts.

What the service does not do is told as "not measured", with its own words.
"""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from mlmesh_protos.inference import grpc_service_pb2, grpc_service_pb2_grpc

from bench.serving_measuring import Found, Row, Turns
from bench.serving_models import Request, ask, iris, request
from bench.serving_servers import Server, deploy, inference_service, manifest, router

MOST_IDLE_MB = 150
MOST_STAGES_MS = 0.15
MOST_REMOTE_MS = 0.4
MOST_COLD_MS = 300
COLD_MODELS, RELOADS = 3, 10
COLD_ANNOTATIONS = {"autoscaling.knative.dev/window": "6s"}
"""The shortest that Knative allows; the grace period of 30 s comes on top."""
UNTIL_ZERO_SECONDS = 75.0


def verdict(value: float, target: float, *, at_least: bool = False) -> str:
    """Tells whether a target is met."""
    met = value >= target if at_least else value <= target
    return f"{'>=' if at_least else '<='} {target:g}: {'met' if met else 'MISSED'}"


def _more(turns: Turns, label: str, cases: list[tuple[Row, Server]], most: float, words: tuple[str, str]) -> None:
    """Measures two cases in turn and prints by how much the second is slower at p50."""
    found = turns.measure(cases)
    troubles = [one for one in found if isinstance(one, str)]
    if troubles:
        print(f"{label:24} not measured: {troubles[0]}", flush=True)
        return
    first, second = (one.load.percentile(50) for one in found if isinstance(one, Found))
    times = f"p50 {first:.3f} ms {words[0]}, {second:.3f} ms {words[1]}"
    print(f"{label:24} {times}: {second - first:+.3f} ms {verdict(second - first, most)}", flush=True)


def _refused(server: Server, described: Mapping[str, Any]) -> str:
    """Deploys what a manifest says; gives why not, if the service refuses it."""
    try:
        deploy(server, described)
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"
    return ""


def stages(turns: Turns, server: Server, file: Path) -> None:
    """A preprocessor and a postprocessor in the process, beside none."""
    model = iris()
    print("\npreprocessor and postprocessor in process, one client")
    deploy(server, manifest("staged", file, staged=True))
    for door in ("gRPC", "REST"):
        rows = [Row(name, request(door, name, model.data), model, 1) for name in (model.name, "staged")]
        _more(turns, door, [(row, server) for row in rows], MOST_STAGES_MS, ("without", "with"))


def idle_memory(folder: Path) -> None:
    """The router with one model that has answered once."""
    model = iris()
    with router(folder) as server:
        deploy(server, manifest(model.name, model.write(folder / "artifacts")))
        ask(request("gRPC", model.name, model.data), server.grpc, server.http)
        time.sleep(3)
        memory = server.memory()
    each = " + ".join(f"{one:.0f}" for one in memory)
    told = f"{sum(memory):.0f} MB (proportional set size: {each})"
    print(f"\nmemory of an idle router with one model: {told} {verdict(sum(memory), MOST_IDLE_MB)}", flush=True)


def remote(turns: Turns, behind: Server, folder: Path) -> None:
    """A router that passes requests on to a server elsewhere, beside that server asked directly."""
    model = iris()
    print("\nrouter before a server elsewhere, one client")
    with router(folder) as front:
        for door, url in (("gRPC", f"grpc://{behind.grpc}"), ("REST", behind.http)):
            name = f"by-{door.lower()}"
            elsewhere = {"predictor": {"remote": {"url": url, "model": model.name}}}
            refusal = _refused(front, inference_service(name, elsewhere))
            if refusal:
                print(f"{door:24} not measured: {refusal}", flush=True)
                continue
            rows = [Row(one, request(door, one, model.data), model, 1) for one in (model.name, name)]
            cases = [(rows[0], behind), (rows[1], front)]
            _more(turns, door, cases, MOST_REMOTE_MS, ("directly", "through the router"))


def cold_start(folder: Path) -> None:
    """The first answer of a model that was unloaded, and of one that was scaled to zero."""
    model = iris()
    file = model.write(folder / "artifacts")
    print(f"\ncold start, {RELOADS} and {COLD_MODELS} times")
    with router(folder) as server:
        deploy(server, manifest(model.name, file))
        warm = request("gRPC", model.name, model.data)
        _show_cold("unloaded, loaded, asked", _reloads(server, warm))
        before = len(server.processes())
        names = [f"cold-{number}" for number in range(COLD_MODELS)]
        for name in names:
            described = manifest(name, file, minReplicas=0)
            described["metadata"]["annotations"] = COLD_ANNOTATIONS
            refusal = _refused(server, described)
            if refusal:
                print(f"{'scaled to zero, asked':24} not measured: {refusal}", flush=True)
                return
        if len(server.processes()) < before + COLD_MODELS:
            print(f"{'scaled to zero, asked':24} not measured: models are not in processes of their own", flush=True)
            return
        deadline = time.monotonic() + UNTIL_ZERO_SECONDS
        while len(server.processes()) > before:
            if time.monotonic() > deadline:
                print(f"{'scaled to zero, asked':24} not measured: not scaled to zero in {UNTIL_ZERO_SECONDS:.0f} s")
                return
            time.sleep(0.5)
        sent = [request("gRPC", name, model.data) for name in names]
        _show_cold("scaled to zero, asked", [_milliseconds(server, one) for one in sent])


def _reloads(server: Server, warm: Request) -> list[float]:
    found = []
    with grpc.insecure_channel(server.grpc) as channel:
        stub: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(RELOADS):
            stub.RepositoryModelUnload(grpc_service_pb2.RepositoryModelUnloadRequest(model_name=warm.model))
            before = time.perf_counter()
            stub.RepositoryModelLoad(grpc_service_pb2.RepositoryModelLoadRequest(model_name=warm.model))
            loading = 1e3 * (time.perf_counter() - before)
            found.append(loading + _milliseconds(server, warm))
    return found


def _milliseconds(server: Server, sent: Request) -> float:
    """Asks once, on a new connection; gives how long the answer took."""
    before = time.perf_counter()
    ask(sent, server.grpc, server.http)
    return 1e3 * (time.perf_counter() - before)


def _show_cold(label: str, found: list[float]) -> None:
    worst = max(found)
    told = f"median {statistics.median(found):.0f} ms, longest {worst:.0f} ms"
    print(f"{label:24} {told} {verdict(worst, MOST_COLD_MS)}", flush=True)
