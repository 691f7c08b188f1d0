"""The serving router beside MLServer and kserve: the same scikit-learn models, requests and load generator.

`make bench-serving`. Every server is in processes of its own and up all the time; they are measured in turn, again and
again (A B C A B C ...), so that whatever else the machine does hits all of them alike; what is measured while other
processes are busy is measured once more. The load generator is h2load, on the same cores. Before a server is measured,
stock clients check what it answers against scikit-learn itself, and after it the bodies' bytes are compared with that
answer's: a gRPC error is a 200 without a body.

MLServer runs with one parallel worker, its default, and with none; ratios and targets are to the better of the two in
each row, and in the last column to its default. kserve's server for scikit-learn is no package: serving_kserve.py does
the same with kserve's own classes. A rate is the median of the repeats, times are of all repeats together, CPU is of
the server's processes for one answer.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import serving_h2load as h2load
from bench.serving_h2load import Load
from bench.serving_measuring import Found, Row, Turns
from bench.serving_models import Model, iris, request, wide
from bench.serving_ourselves import cold_start, idle_memory, remote, stages, verdict
from bench.serving_servers import KSERVE, MLSERVER, Server, deploy, kserve, manifest, mesh, mlserver, router

OURS, BEHIND_ENVOY, PEER, PEERS_DEFAULT = "mlmesh", "mlmesh, Envoy", "MLServer", "MLServer, 1 workers"
CLIENTS = (1, 16, 64)
LEAST_RATE, LEAST_LARGE_RATE, MOST_P50 = 3, 2, 0.6
PARTS = ("memory", "stages", "remote", "cold", "small", "large")
Loads = Mapping[str, Load]
"""By the name of the server."""


def heading(title: str) -> None:
    """Prints the head of a table."""
    columns = f"{'req/s':>9} {'p50 ms':>9} {'p99 ms':>9} {'CPU ms':>7}"
    print(f"\n{title}\n{'':47} {columns} {'req/s x':>8} {'p50 x':>7} {'default x':>9}   (x: ratio to MLServer)")


def best_peer(loads: Loads, key: Callable[[Load], float]) -> float | None:
    """Gives the best (smallest) value of MLServer's; None: it was not measured."""
    return min((key(load) for name, load in loads.items() if name.startswith(PEER)), default=None)


def ratios(row: Row, name: str, loads: Loads) -> str:
    """Compares a server with MLServer."""
    load, rate, p50 = loads[name], best_peer(loads, lambda one: -one.rate), best_peer(loads, _p50)
    if rate is None or p50 is None:
        return ""
    speed, wait = load.rate / -rate, _p50(load) / p50
    text = f" {speed:8.2f} {wait:7.2f}"
    text += f" {load.rate / loads[PEERS_DEFAULT].rate:9.2f}" if PEERS_DEFAULT in loads else f" {'':9}"
    if row.rate_target and name.startswith(OURS):
        text += f"   req/s x {verdict(speed, row.rate_target, at_least=True)}"
    if row.p50_target and name.startswith(OURS):
        text += f"   p50 x {verdict(wait, row.p50_target)}"
    return text


def table(turns: Turns, rows: Sequence[Row], servers: Sequence[Server]) -> list[tuple[Row, Loads]]:
    """Measures rows, one after the other, and prints a line for each server."""
    measured = []
    for row in rows:
        results = dict(zip((one.name for one in servers), turns.measure([(row, one) for one in servers]), strict=True))
        loads = {name: one.load for name, one in results.items() if isinstance(one, Found)}
        for name, one in results.items():
            line = f"{row.label:24} {name:22}"
            if isinstance(one, str):
                print(f"{line} not measured: {one}", flush=True)
                continue
            load = loads[name]
            line += f" {load.rate:9.0f} {_p50(load):9.3f} {load.percentile(99):9.3f} {one.cpu:7.3f}"
            disturbed = f"   (others used {one.others:.2f} CPUs)" if one.disturbed else ""
            print(line + ratios(row, name, loads) + disturbed, flush=True)
        measured.append((row, loads))
    return measured


def small_tensors(turns: Turns, servers: Sequence[Server]) -> None:
    """Iris by both protocols, and what Envoy costs."""
    model = iris()
    heading("iris: LogisticRegression, 1x4 FP64")
    rows = []
    for door in ("gRPC", "REST"):
        sent = request(door, model.name, model.data)
        for clients in CLIENTS:
            targets = (0, MOST_P50) if clients == 1 else (LEAST_RATE, 0)
            rows.append(Row(f"{door}, {clients} clients", sent, model, clients, 1, *targets))
    rows.append(Row("gRPC, 1 with 16 streams", request("gRPC", model.name, model.data), model, 1, 16))
    measured = table(turns, rows, servers)
    print("\nwhat Envoy costs")
    for row, loads in measured:
        if OURS in loads and BEHIND_ENVOY in loads:
            direct, behind = loads[OURS], loads[BEHIND_ENVOY]
            rate = behind.rate / direct.rate
            print(f"{row.label:24} {_p50(behind) - _p50(direct):+.3f} ms at p50, {rate:.2f} of the req/s", flush=True)


def large_tensors(turns: Turns, servers: Sequence[Server]) -> None:
    """1 MiB by both protocols."""
    model = wide()
    heading("1 MiB: LinearRegression with one output, 1x262144 FP32")
    sent = [request(door, model.name, model.data) for door in ("gRPC", "REST", "REST binary")]
    rows = [
        Row(f"{one.door}, {clients} clients", one, model, clients, rate_target=LEAST_LARGE_RATE)
        for one in sent
        for clients in (1, 16)
    ]
    table(turns, rows, servers)


def _p50(load: Load) -> float:
    return load.percentile(50)


def _deployed(server: Server, artifacts: Path, models: Sequence[Model]) -> Server:
    for model in models:
        deploy(server, manifest(model.name, model.write(artifacts)))
    return server


def _measure(parts: Sequence[str], turns: Turns, folder: Path, *, with_peers: bool) -> None:
    models = [iris(), wide()]
    if "memory" in parts:
        idle_memory(folder / "idle")
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(router(folder / "router"))
        servers = [_deployed(ours, folder / "router" / "artifacts", models)]
        if "stages" in parts:
            stages(turns, ours, folder / "router" / "artifacts" / "iris" / "model.joblib")
        if "remote" in parts:
            remote(turns, ours, folder / "front")
        if "cold" in parts:
            cold_start(folder / "cold")
        if "small" in parts or "large" in parts:
            behind = stack.enter_context(mesh(folder / "mesh"))
            servers.append(_deployed(behind, folder / "mesh" / "artifacts", models))
            if with_peers:
                peers = [mlserver(models, folder / f"mlserver-{workers}", workers) for workers in (0, 1)]
                servers[:0] = [stack.enter_context(one) for one in (*peers, kserve(models, folder / "kserve"))]
        if "small" in parts:
            small_tensors(turns, servers)
        if "large" in parts:
            large_tensors(turns, servers)


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tries", type=int, default=3, help="of each repeat, while other processes are busy")
    parser.add_argument("--without-peers", action="store_true", help="measure only ourselves")
    options = parser.parse_args()
    if not h2load.installed():
        print(h2load.INSTALL, file=sys.stderr)
        return 2
    if not options.without_peers and not (MLSERVER.exists() and KSERVE.exists()):
        print("the peers are not installed: make bench-serving", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        turns = Turns(options.seconds, options.repeats, options.tries)
        _measure(options.only, turns, Path(folder), with_peers=not options.without_peers)
    return 0


if __name__ == "__main__":
    if code := main():  # `python -m bench` goes on to the next
        raise SystemExit(code)
