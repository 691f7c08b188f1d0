"""The router's side: takes predictions off their path in a microsecond or two, and hands them to another process.

On the path there is `Tap.offer`: two references into a bounded queue, or a count. A few milliseconds later, the loop
writes what waits into a socket, a little at a time.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import orjson
from mlmesh_kit.errors import InvalidArgument, ServiceError
from mlmesh_kit.launch import Launcher, Limits

from mlmesh_serving.backend import WireAnswer, WireRequest
from mlmesh_serving.companion import FrameProtocol, frame, start_companion
from mlmesh_serving.observers import kinds, metrics
from mlmesh_serving.observers.observation import ID_HEADER, pack
from mlmesh_serving.observers.places import AllowedPlaces
from mlmesh_serving.observers.queue import BoundedQueue
from mlmesh_serving.observers.settings import ObserverSettings
from mlmesh_serving.observers.subject import Subject
from mlmesh_serving.remote.hosts import parse_hosts

logger = logging.getLogger(__name__)

MODULE = "mlmesh_serving.observers.side"
_FLUSH_SECONDS = 0.02
_WINDOW_SECONDS = 0.05
_AGAIN_SECONDS = 0.001
_SLICE_ITEMS = 64
_SLICE_BYTES = 256 << 10
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 10.0

_Item = tuple["Tap", float, WireRequest, WireAnswer | None]


class Tap:
    """Where the predictions of one revision are offered; made by `Observers.watch`."""

    def __init__(self, observers: "Observers", number: int, subject: Subject, rate: float = 0.0) -> None:
        """Takes at most `rate` predictions a second; 0: all."""
        self.number = number
        self.subject = subject
        logged = subject.logger.metadata_headers if subject.logger is not None else ()
        self.headers = (ID_HEADER, *logged)
        self.sent = 0
        self.is_busy = False
        self.report: dict[str, Any] = {}
        self._observers = observers
        self._wants_answers = subject.wants_answers
        self._share = rate * _WINDOW_SECONDS if rate else math.inf
        self._window_ends = 0.0
        self._left = self._share
        self._beyond = 0  # dropped in this window; counted at its end, for counting takes longer than dropping
        self._counters: dict[str, list[Any]] = {}  # looking them up takes longer than counting

    def offer(self, request: WireRequest, answer: WireAnswer | None = None) -> None:
        """Offers a prediction; never waits, never raises.

        Args:
            request: As it came.
            answer: As it went out; None: the prediction failed.
        """
        now = time.time()
        if now >= self._window_ends:
            self._next_window(now)
        if self.is_busy:
            self.drop("busy")
        elif self._left < 1:
            self._beyond += 1
        elif answer is None or not self._wants_answers:
            self._left -= 1
            self._observers.take((self, now, request, None), len(request.body))
        else:
            self._left -= 1
            self._observers.take((self, now, request, answer), len(request.body) + len(answer.body))

    def _next_window(self, now: float) -> None:
        self._window_ends = now + _WINDOW_SECONDS
        self._left = min(self._left, 1.0) + self._share  # a rate below one a window adds up
        self.settle()

    def settle(self) -> None:
        """Counts what was dropped and not counted yet."""
        if self._beyond:
            self.drop("rate", self._beyond)
            self._beyond = 0

    def drop(self, reason: str, count: int = 1) -> None:
        """Counts predictions that no consumer saw."""
        counters = self._counters.get(reason)
        if counters is None:
            subject = self.subject
            labels = [(subject.namespace, subject.name, consumer, reason) for consumer in subject.consumers]
            counters = self._counters[reason] = [metrics.DROPPED.labels(*label) for label in labels]
        for counter in counters:
            counter.inc(count)


class Observers:
    """All that looks at predictions, and the process that it runs in; there is none while nothing is watched.

    Args:
        launcher: Forks the process.
        settings: Limits and places.
    """

    def __init__(self, launcher: Launcher, settings: ObserverSettings) -> None:
        self._launcher = launcher
        self._settings = settings
        self._hosts = parse_hosts(settings.sink_hosts)
        self._places = AllowedPlaces(settings.log_roots)
        self._queue: BoundedQueue[_Item] = BoundedQueue(settings.queue_items, settings.queue_bytes)
        self._max_bytes = settings.max_payload_bytes
        self._taps: dict[int, Tap] = {}
        self._leaving: dict[int, Tap] = {}
        self._last_number = 0
        self._protocol: FrameProtocol | None = None
        self._is_scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted = asyncio.Event()
        self._drained = asyncio.Event()
        self.pid: int | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the process while something is watched; on leaving what waits is delivered, for a few seconds."""
        self._loop = asyncio.get_running_loop()
        keeping = asyncio.create_task(self._keep_running(), name="observers")
        try:
            yield
        finally:
            await self._drain()
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            self._loop = None

    def check(self, subject: Subject) -> None:
        """Checks at the door that a subject asks for nothing that is not allowed.

        Raises:
            InvalidArgument, FailedPrecondition: It does; the message names the field.
        """
        spec = subject.logger
        url = spec.url or self._settings.default_url if spec is not None else ""
        if spec is not None and not url:
            raise InvalidArgument("must be there: the service has no default", field=f"{spec.field}.url")
        if spec is not None and url.startswith(("http://", "https://")):
            self._hosts.check(urlsplit(url).hostname or "", f"{spec.field}.url")
        elif spec is not None:
            self._places.check(url, f"{spec.field}.url", "MLMESH_SERVING_LOG_ROOTS")

    def watch(self, subject: Subject) -> Tap | None:
        """Begins to look at a revision; None: nobody wants to.

        Raises:
            InvalidArgument, FailedPrecondition: See `check`.
        """
        if not subject.is_observed:
            return None
        self.check(subject)
        self._last_number += 1
        tap = self._taps[self._last_number] = Tap(self, self._last_number, subject, self._settings.rate)
        self._wanted.set()
        if self._protocol is not None:
            self._protocol.send(self._watch_frame(tap))
        return tap

    def unwatch(self, tap: Tap) -> None:
        """Looks no longer at a revision; what waits is still delivered."""
        tap.settle()
        self._flush_all()
        if self._taps.pop(tap.number, None) is not None and self._protocol is not None:
            self._leaving[tap.number] = tap
            message = {"number": tap.number, "seconds": self._settings.drain_seconds}
            self._protocol.send(frame(kinds.UNWATCH, orjson.dumps(message)))

    def status(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """Tells what is known of an InferenceService's observers, a revision after the other."""
        found = []
        for tap in self._taps.values():
            subject = tap.subject
            if (subject.namespace, subject.name) != (namespace, name):
                continue
            known = tap.report.get("detectors", {})
            found.append(
                {
                    "revision": subject.revision,
                    "events": tap.report.get("events", {}),
                    "detectors": [
                        {"name": spec.name, "type": spec.type, "on": spec.on, **known.get(spec.name, _UNKNOWN)}
                        for spec in subject.detectors
                    ],
                }
            )
        return found

    def take(self, item: _Item, size: int) -> None:
        """Queues a prediction or counts it; called by `Tap.offer`."""
        if size > self._max_bytes:
            item[0].drop("too_large")
        elif not self._queue.put(item, size):
            item[0].drop("queue_full")
        elif not self._is_scheduled:
            self._schedule(_FLUSH_SECONDS)

    def _schedule(self, seconds: float) -> None:
        if self._loop is not None and self._protocol is not None and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_later(seconds, self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        protocol = self._protocol
        if protocol is None or not protocol.is_writable:
            return  # whoever connects, or is writable again, goes on
        self._send_some(protocol)
        if len(self._queue):
            self._schedule(_AGAIN_SECONDS)

    def _flush_all(self) -> None:
        while len(self._queue) and self._protocol is not None:
            self._send_some(self._protocol)

    def _send_some(self, protocol: FrameProtocol) -> None:
        parts: list[bytes] = []
        for tap, seconds, request, answer in self._queue.take(_SLICE_ITEMS, _SLICE_BYTES):
            parts += frame(kinds.OBSERVATION, *pack(tap.number, seconds, request, answer, tap.headers))
            tap.sent += 1
        protocol.send(parts)

    def _writable(self) -> None:
        self._schedule(0)

    async def _keep_running(self) -> None:
        wait = _FIRST_WAIT_SECONDS
        while True:
            await self._wanted.wait()
            began = time.monotonic()
            try:
                await self._run_once()
            except ServiceError as error:
                logger.warning("the process that looks at predictions cannot be started: %s", error.message)
            if time.monotonic() - began > _LONGEST_WAIT_SECONDS:
                wait = _FIRST_WAIT_SECONDS
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    async def _run_once(self) -> None:
        """Starts the process and waits for its end."""
        protocol = FrameProtocol(self._received, _nothing)
        limits = Limits(
            nice=self._settings.nice, oom_score=500, memory_bytes=self._settings.memory_bytes, log_bytes=4 << 20
        )
        companion = await start_companion(
            self._launcher, MODULE, protocol, self._settings.folder, limits, secrets="MLMESH_S3_"
        )
        try:
            protocol.send(frame(kinds.SETUP, orjson.dumps(self._settings.message())))
            for tap in self._taps.values():
                tap.sent, tap.report = 0, {}
                protocol.send(self._watch_frame(tap))
            protocol.writable = self._writable
            self._protocol, self.pid = protocol, companion.process.pid
            self._schedule(0)
            ended = await companion.process.wait()
            metrics.RESTARTS.inc()
            logger.warning("the process that looks at predictions %s", ended.describe())
        finally:
            self._protocol, self.pid = None, None
            await companion.kill()
            for tap in [*self._taps.values(), *self._leaving.values()]:
                lost = tap.sent - tap.report.get("taken", 0)
                if lost:  # at most: what it took since its last report is among them
                    tap.drop("process_ended", lost)
                tap.sent, tap.is_busy = 0, False
            self._leaving.clear()

    async def _drain(self) -> None:
        self._flush_all()
        if self._protocol is None:
            return
        seconds = self._settings.drain_seconds
        self._protocol.send(frame(kinds.DRAIN, orjson.dumps({"seconds": seconds})))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + 1):
                await self._drained.wait()

    def _watch_frame(self, tap: Tap) -> list[bytes]:
        return frame(kinds.WATCH, orjson.dumps({"number": tap.number, "subject": tap.subject.message()}))

    def _received(self, kind: int, content: bytes) -> None:
        if kind == kinds.DRAINED:
            self._drained.set()
        elif kind == kinds.REPORT:
            reports = {int(number): report for number, report in orjson.loads(content).items()}
            for number, report in reports.items():
                tap = self._taps.get(number) or self._leaving.get(number)
                if tap is not None:
                    _tell(tap, report)
                    tap.report, tap.is_busy = report, report["busy"]
            for number in [number for number in self._leaving if number not in reports]:
                del self._leaving[number]


_UNKNOWN: dict[str, Any] = {"state": "STARTING", "message": ""}


def _nothing() -> None:
    pass


def _tell(tap: Tap, report: dict[str, Any]) -> None:
    """Adds to the metrics what has been counted since the last report."""
    subject, before = tap.subject, tap.report
    model = (subject.namespace, subject.name)
    for key, count in report["dropped"].items():
        if more := count - before.get("dropped", {}).get(key, 0):
            consumer, reason = key.split("/")
            metrics.DROPPED.labels(*model, consumer, reason).inc(more)
    for outcome, count in report["events"].items():
        if more := count - before.get("events", {}).get(outcome, 0):
            metrics.EVENTS.labels(*model, outcome).inc(more)
    for name, now in report["detectors"].items():
        then = before.get("detectors", {}).get(name, {})
        for field, counter in _COUNTERS.items():
            if more := now[field] - then.get(field, 0):
                counter.labels(*model, name).inc(more)
        if now["windows"]:
            metrics.P_VALUE.labels(*model, name).set(min(now["last"]["p_val"]))


_COUNTERS = {
    "instances": metrics.INSTANCES,
    "outliers": metrics.OUTLIERS,
    "windows": metrics.WINDOWS,
    "drifts": metrics.DRIFTS,
}
