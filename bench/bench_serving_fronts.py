"""What each part that stands before a revision costs for each request: microseconds of CPU on uvloop.

The backend answers in the next turn of the loop; 64 requests are in flight at a time. What the loop and the backend
themselves take (the first line) is subtracted from the others.
"""

import asyncio
import time
from collections.abc import Callable

import uvloop
from mlmesh_serving.backend import Backend, Door, WireAnswer, WireRequest
from mlmesh_serving.manifest import InferenceServiceSpec, PredictorSpec
from mlmesh_serving.protection.admission import Admission
from mlmesh_serving.protection.breaking import Breaking
from mlmesh_serving.protection.deadline import Deadlines
from mlmesh_serving.protection.front import Fronts
from mlmesh_serving.protection.hedge import Hedging
from mlmesh_serving.protection.retry import Retrying
from mlmesh_serving.protection.wheel import TimerWheel
from mlmesh_serving.scaling.activator import Activator
from mlmesh_serving.scaling.meter import InFlight
from mlmesh_serving.scaling.scaler import Scaler

REQUESTS = 100_000
AT_ONCE = 64
ROUNDS = 3
ANSWER = WireAnswer(b"")


class AtOnce:
    """Answers in the next turn of the loop."""

    in_flight = 0
    ready = 2

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def submit(self, request: WireRequest) -> asyncio.Future[WireAnswer]:
        future = self._loop.create_future()
        self._loop.call_soon(_answer, future)
        return future

    async def scale(self, replicas: int) -> None:
        pass

    async def close(self, grace_seconds: float) -> None:
        pass


def _answer(future: asyncio.Future[WireAnswer]) -> None:
    if not future.done():
        future.set_result(ANSWER)


def _activated() -> tuple[Activator, InFlight]:
    everywhere = InFlight()
    return Activator(AtOnce(), "m", everywhere=everywhere), everywhere


def _admission() -> Backend:
    activator, everywhere = _activated()
    return Admission(activator, "m", activator.meter, everywhere)


def _front() -> Backend:
    service = InferenceServiceSpec("m", PredictorSpec("sklearn", "file:///m", "predict", ""), None, None, (), ())
    return Fronts(Scaler()).put(("default", "m", 1), AtOnce(), service)


PARTS: dict[str, Callable[[], Backend]] = {
    "nothing": AtOnce,
    "activator": lambda: _activated()[0],
    "activator + admission": _admission,
    "deadlines": lambda: Deadlines(AtOnce(), "m", 60.0, TimerWheel()),
    "breaker": lambda: Breaking(AtOnce(), "m"),
    "retries": lambda: Retrying(AtOnce(), "m"),
    "hedges": lambda: Hedging(AtOnce(), "m"),
    "front (deadlines, admission, activator)": _front,
}


async def _measure(backend: Backend) -> float:
    """Gives microseconds of CPU for each request."""
    request = WireRequest(Door.GRPC, "m", b"x" * 100)
    begun = time.process_time()
    for _ in range(REQUESTS // AT_ONCE):
        last = [backend.submit(request) for _ in range(AT_ONCE)]
        for future in last:
            await future
    return (time.process_time() - begun) / REQUESTS * 1e6


async def main() -> None:
    found = {name: min([await _measure(make()) for _ in range(ROUNDS)]) for name, make in PARTS.items()}
    print(f"{'part':<42}{'us/request':>12}{'its own':>10}")
    for name, microseconds in found.items():
        print(f"{name:<42}{microseconds:>12.2f}{microseconds - found['nothing']:>10.2f}")


if __name__ == "__main__":
    uvloop.run(main())
