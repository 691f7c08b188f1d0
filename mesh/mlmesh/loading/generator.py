"""A process that puts load on a server: reads a plan from standard input, writes what it has measured each second."""

import asyncio
import base64
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from mlmesh.loading.grpc_client import GrpcClient
from mlmesh.loading.http_client import HttpClient
from mlmesh.loading.latencies import Latencies
from mlmesh.loading.plan import Plan

_PAUSE_SECONDS = 0.1  # before a client that has no connection tries again


async def generate(plan: Plan, report: Callable[[dict[str, Any]], None]) -> None:
    """Sends what the plan says.

    Args:
        plan: Of this process.
        report: Called each second, and at the end, with what was measured since: `outcomes` (what → how many),
            `latencies` (class → how many) of the answers that were no errors, `busy` (seconds of processor), `seconds`.
    """
    measured = _Measured()
    begin = time.monotonic()
    end = begin + plan.warm_up_seconds + plan.seconds

    async def client(number: int) -> None:
        connection = _connection(plan)
        sent = 0
        try:
            while True:
                started = time.monotonic()
                if plan.rate:
                    due = begin + (plan.first + number + sent * plan.clients) / plan.rate
                    await asyncio.sleep(max(0.0, due - started))
                    started = due  # waiting for a client that is late counts, as it does for a user
                sent += 1
                if max(started, time.monotonic()) >= end:
                    return
                outcome = await _asked(connection, plan.timeout_seconds)
                measured.count(outcome, time.monotonic() - started)
                if outcome in _UNREACHED:
                    await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            connection.close()

    tasks = [asyncio.create_task(client(number)) for number in range(plan.clients)]
    try:
        await asyncio.wait(tasks, timeout=plan.warm_up_seconds)
        measured.take()
        while not all(task.done() for task in tasks):
            await asyncio.wait(tasks, timeout=1)
            report(measured.take())
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


_TIMEOUT, _UNCONNECTED = "no answer in time", "no connection"
_UNREACHED = frozenset({_TIMEOUT, _UNCONNECTED, "UNAVAILABLE"})


async def _asked(connection: HttpClient | GrpcClient, timeout_seconds: float) -> str:
    try:
        async with asyncio.timeout(timeout_seconds):
            return await connection.ask()
    except TimeoutError:
        connection.close()
        return _TIMEOUT
    except OSError:
        return _UNCONNECTED


def _connection(plan: Plan) -> HttpClient | GrpcClient:
    kind = GrpcClient if plan.grpc else HttpClient
    return kind(plan.url, plan.path, base64.b64decode(plan.body))


class _Measured:
    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._latencies = Latencies()
        self._busy = time.process_time()
        self._since = time.monotonic()

    def count(self, outcome: str, seconds: float) -> None:
        self._outcomes[outcome] += 1
        if outcome == "OK":
            self._latencies.add(seconds)

    def take(self) -> dict[str, Any]:
        """Gives what there is, and begins anew."""
        busy, now = time.process_time(), time.monotonic()
        found = {
            "outcomes": dict(self._outcomes),
            "latencies": dict(self._latencies.classes),
            "busy": busy - self._busy,
            "seconds": now - self._since,
        }
        self._outcomes, self._latencies, self._busy, self._since = Counter(), Latencies(), busy, now
        return found


def main() -> None:
    """Runs a plan."""
    plan = Plan(**json.loads(sys.stdin.readline()))

    def report(found: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()

    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        import uvloop

        uvloop.run(generate(plan, report))


if __name__ == "__main__":
    main()
