"""Runs a load test: processes that put on the load, and what they measure, added up."""

import json
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mlmesh.loading.latencies import Latencies
from mlmesh.loading.plan import Plan

_SHORT = 0.5  # seconds: the last part of a test, too short to say anything


@dataclass(slots=True)
class Measured:
    """What was measured so far.

    Attributes:
        latencies: Of the answers that were no errors, seconds.
        outcomes: `OK`, a status code or what else befell a request → how many.
        rates: Answers/s without error, each second.
        busy: Share of a processor that the busiest process took: near 1, it is the load that is at its limit.
        seconds: How long was measured.
    """

    latencies: Latencies = field(default_factory=Latencies)
    outcomes: Counter[str] = field(default_factory=Counter)
    rates: list[float] = field(default_factory=list)
    busy: float = 0.0
    seconds: float = 0.0

    @property
    def answers(self) -> int:
        """How many were no errors."""
        return self.outcomes["OK"]

    @property
    def errors(self) -> int:
        """How many were errors."""
        return self.outcomes.total() - self.answers


class LoadFailed(Exception):
    """A process that puts on load has ended before its time."""


def run(plan: Plan, processes: int) -> Iterator[Measured]:
    """Puts load on a server; gives what was measured so far each second, and at last the whole.

    Args:
        plan: Of all processes together.
        processes: How many share it; at most one for each client.

    Raises:
        LoadFailed: A process ended before its time.
    """
    processes = min(processes, plan.clients)
    said: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
    measured = Measured()
    with ExitStack() as stack:
        running: list[subprocess.Popen[str]] = []
        for number in range(processes):
            clients = plan.clients // processes + (number < plan.clients % processes)
            share = replace(plan, clients=clients, rate=plan.rate * clients / plan.clients, first=number / processes)
            process = subprocess.Popen(
                [sys.executable, "-m", "mlmesh.loading.generator"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            running.append(stack.enter_context(process))
            stack.callback(process.kill)
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(share)) + "\n")
            process.stdin.flush()
            threading.Thread(target=_listen, args=(number, process, said), daemon=True).start()
        waiting = set(range(processes))
        counted: Counter[int] = Counter()
        while waiting:
            number, line = said.get()
            if not line:
                waiting.discard(number)
                if running[number].wait() != 0:
                    raise LoadFailed("a process that puts on the load has failed; its message is above")
                continue
            _add(measured, json.loads(line), counted[number])
            counted[number] += 1
            yield measured


def _listen(number: int, process: subprocess.Popen[str], said: "queue.SimpleQueue[tuple[int, str]]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.put((number, line))
    said.put((number, ""))


def _add(measured: Measured, found: dict[str, Any], second: int) -> None:
    measured.outcomes.update(found["outcomes"])
    measured.latencies.merge(Latencies({int(index): count for index, count in found["latencies"].items()}))
    seconds = max(found["seconds"], 1e-9)
    if second >= len(measured.rates):
        measured.rates.append(0.0)
        measured.seconds += seconds
    measured.rates[second] += found["outcomes"].get("OK", 0) / seconds
    if seconds > _SHORT:
        measured.busy = max(measured.busy, found["busy"] / seconds)
