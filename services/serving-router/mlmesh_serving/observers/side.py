"""The process that looks at predictions: payload loggers and detectors of all subjects of one router.

Run as `python -m mlmesh_serving.observers.side SOCKET`. Frames in: SETUP (once), WATCH, UNWATCH, OBSERVATION, DRAIN.
Out: REPORT, what was counted and found, and DRAINED. It takes all that comes as fast as it comes: what a consumer
cannot keep up with is dropped at that consumer's own queue, and counted there: a slow sink holds up nobody else.
"""

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from mlmesh_kit.errors import ServiceError
from mlmesh_kit.logs import configure_logging

from mlmesh_serving.companion import FrameProtocol, frame
from mlmesh_serving.manifest import LoggerSpec
from mlmesh_serving.observers import kinds
from mlmesh_serving.observers.cloudevent import DRIFT, JSON, OUTLIER, CloudEvent
from mlmesh_serving.observers.contents import answer_tensors, request_tensors
from mlmesh_serving.observers.detectors.detector import Detector, Result, kept_file
from mlmesh_serving.observers.detectors.results import DriftResult
from mlmesh_serving.observers.observation import Observation, unpack
from mlmesh_serving.observers.payload_logger import PayloadLogger, event_id
from mlmesh_serving.observers.places import AllowedPlaces
from mlmesh_serving.observers.queue import BoundedQueue
from mlmesh_serving.observers.redaction import Redaction
from mlmesh_serving.observers.sinks.base import Outcome, Sink
from mlmesh_serving.observers.sinks.http import HttpSink
from mlmesh_serving.observers.sinks.store import StoreSink
from mlmesh_serving.observers.subject import Subject
from mlmesh_serving.remote.hosts import parse_hosts
from mlmesh_serving.tensor import Limits

logger = logging.getLogger(__name__)

_REPORT_SECONDS = 0.25
_DETECTOR_ITEMS = 2000
_DETECTOR_BYTES = 64 << 20


class Detectors:
    """The detectors of one subject, in the thread that all share; the loop hands observations over.

    Args:
        detectors: Those of the subject.
        pool: One thread.
        limits: Of tensors.
        found: Is told of each result, in the loop.
    """

    def __init__(
        self,
        detectors: list[Detector],
        pool: ThreadPoolExecutor,
        limits: Limits,
        found: Callable[[Detector, Result, str], None],
    ) -> None:
        self.all = detectors
        self._pool = pool
        self._limits = limits
        self._found = found
        self._loop = asyncio.get_running_loop()
        self._queue: BoundedQueue[tuple[Observation, str]] = BoundedQueue(_DETECTOR_ITEMS, _DETECTOR_BYTES)
        self._lock = threading.Lock()
        self._is_running = False
        pool.submit(self._load)

    @property
    def is_filling(self) -> bool:
        """Whether more than half of the room is taken."""
        return self._queue.is_filling

    def offer(self, observation: Observation, identifier: str) -> bool:
        """Takes an observation, or tells that too many wait."""
        with self._lock:
            if not self._queue.put((observation, identifier), observation.size):
                return False
            if not self._is_running:
                self._is_running = True
                self._pool.submit(self._work)
        return True

    def _load(self) -> None:
        for detector in self.all:
            detector.load()

    def _work(self) -> None:
        """Looks at what waits; after some it lets the detectors of others come to the thread."""
        for _ in range(64):
            with self._lock:
                taken = self._queue.take(1, 0)
                if not taken:
                    self._is_running = False
                    return
            self._look(*taken[0])
        self._pool.submit(self._work)

    def _look(self, observation: Observation, identifier: str) -> None:
        for side in ("request", "response"):
            wanting = [detector for detector in self.all if detector.spec.on == side]
            if not wanting or (side == "response" and observation.answer is None):
                continue
            try:
                if side == "request":
                    tensors = request_tensors(observation.request, self._limits)
                else:
                    assert observation.answer is not None
                    tensors = answer_tensors(observation.request.door, observation.answer, self._limits)
            except ServiceError as error:
                for detector in wanting:
                    detector.status.message = error.message
                continue
            for detector in wanting:
                for result in detector.observe(tensors):
                    self._loop.call_soon_threadsafe(self._found, detector, result, identifier)


class Watched:
    """One subject: its logger, its detectors, its sink, and what was counted of them.

    Args:
        subject: What it is.
        setup: What the router told at the start.
        pool: Where detectors compute.
    """

    def __init__(self, subject: Subject, setup: dict[str, Any], pool: ThreadPoolExecutor) -> None:
        self.subject = subject
        self.taken = 0
        self.dropped: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        limits = Limits(max_elements=setup["max_elements"], max_tensors=setup["max_tensors"])
        self._sink: Sink | None = None
        self._running: asyncio.Task[None] | None = None
        self._logger: PayloadLogger | None = None
        if subject.logger is not None:
            self._sink = self._make_sink(subject.logger, setup)
            self._running = asyncio.create_task(self._sink.run())
            redaction = Redaction(setup["redact_headers"], setup["redact_fields"])
            self._logger = PayloadLogger(subject, subject.logger, redaction, limits)
        self.detectors: Detectors | None = None
        if subject.detectors:
            kept = Path(setup["folder"]) / "references"
            made = [Detector(spec, kept_file(kept, subject.source, spec)) for spec in subject.detectors]
            self.detectors = Detectors(made, pool, limits, self._found)

    def observe(self, observation: Observation) -> None:
        """Hands an observation to all who want it."""
        self.taken += 1
        identifier = event_id(observation)
        if self._logger is not None:
            events = self._logger.events(observation, identifier)
            self.events["withheld"] += self._logger.wanted(observation) - len(events)
            for event in events:
                self._offer(event)
        if self.detectors is not None and not self.detectors.offer(observation, identifier):
            for spec in self.subject.detectors:
                self.dropped[f"{spec.name}/queue_full"] += 1

    @property
    def is_busy(self) -> bool:
        """Whether all who look at it have more than they can do: the router need not hand over what they would drop."""
        consumers = [consumer for consumer in (self._sink if self._logger else None, self.detectors) if consumer]
        return all(consumer.is_filling for consumer in consumers)

    def report(self) -> dict[str, Any]:
        """Gives what was counted and found so far."""
        found = self.detectors.all if self.detectors is not None else []
        return {
            "taken": self.taken,
            "busy": self.is_busy,
            "dropped": dict(self.dropped),
            "events": dict(self.events),
            "detectors": {detector.spec.name: asdict(detector.status) for detector in found},
        }

    async def drain(self, seconds: float) -> None:
        """Delivers what waits, at most so long; the rest is counted as dropped."""
        if self._sink is not None:
            self.dropped["logger/closing"] += await self._sink.drain(seconds)
        await self.close()

    async def close(self) -> None:
        """Ends the delivery."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
            self._running = None

    def _make_sink(self, spec: LoggerSpec, setup: dict[str, Any]) -> Sink:
        url = spec.url or setup["default_url"]
        if url.startswith(("http://", "https://")):
            return HttpSink(url, parse_hosts(setup["sink_hosts"]), self._told)
        place = [self.subject.namespace, self.subject.name, self.subject.component, spec.storage_path]
        folder = "/".join([url.rstrip("/"), *filter(None, place)])
        root = AllowedPlaces(setup["log_roots"]).root_of(folder) or url
        return StoreSink(root, folder, self._told, keep_bytes=setup["log_keep_bytes"])

    def _told(self, outcome: Outcome) -> None:
        self.events[outcome.value] += 1

    def _offer(self, event: CloudEvent) -> None:
        if self._sink is not None and not self._sink.offer(event):
            self.dropped["logger/sink_full"] += 1

    def _found(self, detector: Detector, result: Result, identifier: str) -> None:
        """Sends an event of each drift test, and of each request with an outlier."""
        spec, drift = detector.spec, isinstance(result, DriftResult)
        data = {
            "data": result.data(),
            "meta": {"name": spec.name, "detector_type": spec.type, "on": spec.on, "data_type": "tabular"},
        }
        self._offer(
            CloudEvent(
                DRIFT if drift else OUTLIER,
                self.subject.source,
                identifier,
                detector.status.last_seconds,
                JSON,
                orjson.dumps(data),
                {**self.subject.attributes(), "detector": spec.name},
            )
        )


class Side:
    """The loop's part: reads frames, reports."""

    def __init__(self) -> None:
        self._protocol = FrameProtocol(self._received, self._lost)
        self._setup: dict[str, Any] = {}
        self._watched: dict[int, Watched] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="detectors")
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, path: str) -> None:
        """Serves until the router is gone."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self._protocol, path)
        last = b""
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPORT_SECONDS):
                    await self._ended.wait()
            now = self._report()
            if now != last:
                self._protocol.send(frame(kinds.REPORT, now))
                last = now

    def _report(self) -> bytes:
        return orjson.dumps({str(number): watched.report() for number, watched in self._watched.items()})

    def _received(self, kind: int, content: bytes) -> None:
        if kind == kinds.OBSERVATION:
            observation = unpack(content)
            watched = self._watched.get(observation.subject)
            if watched is not None:
                self._observe(watched, observation)
            return
        message = orjson.loads(content)
        if kind == kinds.SETUP:
            self._setup = message
        elif kind == kinds.WATCH:
            subject = Subject.from_message(message["subject"])
            self._watched[message["number"]] = Watched(subject, self._setup, self._pool)
        elif kind == kinds.UNWATCH:
            self._spawn(self._leave(message["number"], message["seconds"]))
        elif kind == kinds.DRAIN:
            self._spawn(self._drain(message["seconds"]))

    @staticmethod
    def _observe(watched: Watched, observation: Observation) -> None:
        try:
            watched.observe(observation)
        except Exception:  # what one request brings about must not cost the others their observers
            logger.exception("a prediction cannot be looked at")
            for consumer in watched.subject.consumers:
                watched.dropped[f"{consumer}/error"] += 1

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _leave(self, number: int, seconds: float) -> None:
        watched = self._watched.get(number)
        if watched is not None:
            await watched.drain(seconds)
            self._protocol.send(frame(kinds.REPORT, self._report()))  # its last numbers
            del self._watched[number]

    async def _drain(self, seconds: float) -> None:
        await asyncio.gather(*(watched.drain(seconds) for watched in self._watched.values()))
        self._protocol.send([*frame(kinds.REPORT, self._report()), *frame(kinds.DRAINED)])

    def _lost(self) -> None:
        self._ended.set()


def main() -> None:
    """Runs the process."""
    configure_logging("serving-observers")

    async def run() -> None:
        await Side().serve(sys.argv[1])

    asyncio.run(run())
    os._exit(0)  # the detectors' thread may be in the middle of a long computation that nobody waits for


if __name__ == "__main__":
    main()
