"""What payload logging and detectors cost the predictions: latency with all of them on beside all off.

A router's loop (uvloop) asks a model in a process of its own, which works 150 us for each request (as much as a small
scikit-learn model), over a unix socket. On: the payload logger (mode all, CloudEvents to an HTTP sink, a process that
stands back as if it were on another machine), a Kolmogorov-Smirnov and a k-nearest-neighbours detector. Rounds with and
without take turns, so that whatever else the machine does meets both; what is told is the median over the rounds.
"""

import asyncio
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
import uvloop
from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.companion import CompanionLauncher
from mlmesh_serving.manifest import LoggerMode, LoggerSpec
from mlmesh_serving.observers import metrics
from mlmesh_serving.observers.backend import ObservedBackend
from mlmesh_serving.observers.observers import MODULE, Observers
from mlmesh_serving.observers.settings import ObserverSettings
from mlmesh_serving.observers.spec import Detection
from mlmesh_serving.observers.subject import Subject

from bench.serving_observer_peers import FRAME

ROUNDS = 9
SECONDS = 2.0
WORK_MICROSECONDS = 150
PEERS = [sys.executable, "-m", "bench.serving_observer_peers"]


class ModelProcess(asyncio.Protocol):
    """A Backend of one process."""

    ready = 1

    def __init__(self):
        self._waiting = {}
        self._number = 0
        self._buffer = bytearray()

    @property
    def in_flight(self):
        return len(self._waiting)

    def connection_made(self, transport):
        self._transport = transport

    def submit(self, request):
        self._number += 1
        future = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        self._transport.writelines([FRAME.pack(len(request.body), self._number), request.body])
        return future

    def data_received(self, data):
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= FRAME.size:
            length, number = FRAME.unpack_from(self._buffer, start)
            end = start + FRAME.size + length
            if len(self._buffer) < end:
                break
            self._waiting.pop(number).set_result(WireAnswer(bytes(self._buffer[start + FRAME.size : end])))
            start = end
        del self._buffer[:start]

    async def scale(self, replicas):
        pass

    async def close(self, grace_seconds):
        self._transport.close()


async def paced(backend, requests, rate):
    """Sends at a fixed rate, whatever the answers take; gives latencies in seconds."""
    loop = asyncio.get_running_loop()
    latencies, pending = [], set()
    begin = loop.time()
    for number in range(int(rate * SECONDS)):
        due = begin + number / rate
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        future = backend.submit(requests[number % len(requests)])
        started = time.perf_counter()
        future.add_done_callback(lambda _, at=started: latencies.append(time.perf_counter() - at))
        pending.add(future)
        future.add_done_callback(pending.discard)
    if pending:
        await asyncio.wait(pending)
    return latencies


async def closed(backend, requests, clients):
    """So many clients, each asking again when it has its answer."""
    latencies = []
    end = time.perf_counter() + SECONDS

    async def client(number):
        while (started := time.perf_counter()) < end:
            await backend.submit(requests[number % len(requests)])
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return latencies


def offer_cost(tap, request):
    """Gives what `offer` takes, in microseconds, median and 99th percentile, when it takes and when it drops."""
    answer = WireAnswer(request.body)
    costs = {}
    for name, count in (("taken", 1500), ("dropped", 3000)):
        taken = []
        for _ in range(count):
            started = time.perf_counter_ns()
            tap.offer(request, answer)
            taken.append(time.perf_counter_ns() - started)
        part = sorted(taken[-1000:])
        costs[name] = (part[500] / 1000, part[990] / 1000)
    return costs


def start_peers(model, listener):
    """Starts the model and the sink."""
    listener.set_inheritable(True)
    work = [*PEERS, "model", str(model.fileno()), str(WORK_MICROSECONDS)]
    sink = ["nice", "-n", "19", *PEERS, "sink", str(listener.fileno())]
    processes = [
        subprocess.Popen(work, pass_fds=[model.fileno()]),
        subprocess.Popen(sink, pass_fds=[listener.fileno()], start_new_session=True),
    ]
    model.close()
    with contextlib.suppress(OSError):
        Path(f"/proc/{processes[1].pid}/autogroup").write_text("19")
    return processes


async def main():
    ours, theirs = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    processes = start_peers(theirs, listener)
    random = np.random.default_rng(0)
    rows = [random.normal(size=(1, 4)).round(3).tolist() for _ in range(512)]
    requests = [WireRequest(Door.REST_V1, "iris", orjson.dumps({"instances": row})) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference.npy"
        np.save(reference, random.normal(size=(2000, 4)))
        where = {"reference_uri": reference.as_uri(), "reference_path": str(reference)}
        detectors = (Detection("drift", "ks", **where), Detection("odd", "knn", **where))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        subject = Subject(
            "default", "iris", 1, logger=LoggerSpec(LoggerMode.ALL, url, (), {}, "logger"), detectors=detectors
        )
        try:
            async with CompanionLauncher(MODULE) as launcher:
                observers = Observers(launcher, ObserverSettings(Path(folder)))
                async with observers.running():
                    _, plain = await asyncio.get_running_loop().create_unix_connection(ModelProcess, sock=ours)
                    tap = observers.watch(subject)
                    while observers.pid is None:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                    observed = ObservedBackend(plain, tap)
                    for name, load in (
                        ("1000 requests/s", lambda backend: paced(backend, requests, 1000)),
                        ("1 client", lambda backend: closed(backend, requests, 1)),
                        ("16 clients", lambda backend: closed(backend, requests, 16)),
                    ):
                        await compare(name, load, plain, observed, tap)
                        await asyncio.sleep(2)
                    for name, (median, high) in offer_cost(tap, requests[0]).items():
                        print(f"offer, {name}: p50 {median:.2f} us, p99 {high:.2f} us")
        finally:
            for process in processes:
                process.kill()


async def compare(name, load, plain, observed, tap):
    """Prints the latencies of both, and the ratio."""
    found = {"off": [], "on": []}
    asked = dropped = events = 0
    for _ in range(ROUNDS):
        for mode, backend in (("off", plain), ("on", observed)):
            before, sent = all_dropped(), count(metrics.EVENTS, "default", "iris", "sent")
            cpu = time.process_time()
            latencies = sorted(await load(backend))
            await asyncio.sleep(0.5)  # what waits is looked at before the other's turn
            cpu = time.process_time() - cpu
            places = [latencies[int(len(latencies) * share)] * 1e6 for share in (0.5, 0.99)]
            found[mode].append((*places, len(latencies) / SECONDS, cpu / len(latencies) * 1e6))
            if mode == "on":
                asked += len(latencies)
                dropped += all_dropped() - before
                events += count(metrics.EVENTS, "default", "iris", "sent") - sent
    print(f"\n{name}: {ROUNDS} rounds of {SECONDS:g} s each way")
    for mode, rounds in found.items():
        p50, p99, rate, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"  {mode:3}  p50 {p50:7.0f} us  p99 {p99:7.0f} us  {rate:6.0f} requests/s  {cpu:4.0f} us CPU of the router"
        )
    for place, label in ((0, "p50"), (1, "p99"), (2, "rate"), (3, "CPU")):
        ratios = [on[place] / off[place] for on, off in zip(found["on"], found["off"], strict=True)]
        print(
            f"  on/off {label}: median {statistics.median(ratios):.3f} (rounds {min(ratios):.2f} to {max(ratios):.2f})"
        )
    print(f"  on: {asked} predictions, {events:.0f} events sent, {dropped:.0f} not seen by a consumer")


def count(counter, *labels):
    return counter.labels(*labels)._value.get()


def all_dropped():
    return sum(
        count(metrics.DROPPED, "default", "iris", consumer, reason)
        for consumer in ("logger", "drift", "odd")
        for reason in ("queue_full", "sink_full", "too_large", "process_ended")
    )


if __name__ == "__main__":
    uvloop.run(main())
