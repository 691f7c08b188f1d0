"""One worker process, as the router sees it."""

import asyncio
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass

import orjson
from mlmesh_kit.errors import FailedPrecondition, ServiceError, Unavailable
from mlmesh_kit.launch import ExitStatus, Process

from mlmesh_serving.backend import WireAnswer, WireRequest
from mlmesh_serving.datatypes import TensorInfo
from mlmesh_serving.workers import frames
from mlmesh_serving.workers.faults import decode_fault
from mlmesh_serving.workers.plan import Loaded

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LARGE = 16 << 10  # bodies below it are joined with what precedes them


@dataclass(slots=True)
class Entry:
    """A request that was submitted.

    Attributes:
        request: What is asked.
        future: Gets the answer.
        tries: How many workers it was handed to.
        since: Loop's time when the last of them got it.
    """

    request: WireRequest
    future: "asyncio.Future[WireAnswer]"
    tries: int = 0
    since: float = 0.0


class Worker:
    """Hands requests to one process and answers out; see `Link`.

    Args:
        plan: What it is to load, serialized.
        mark: Where the worker notes the number of the last request it has begun.
        answered: Called with each request that was answered.
        lost: Called when it is gone.
        loop: The router's.
    """

    def __init__(
        self,
        plan: bytes,
        mark: mmap.mmap,
        answered: Callable[[Entry], None],
        lost: Callable[["Worker"], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._plan = plan
        self._mark = mark
        self._answered = answered
        self._lost = lost
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._last = 0
        self.pending: dict[int, Entry] = {}
        self.loaded: asyncio.Future[Loaded] = loop.create_future()
        self.gone = False
        self.oversize = False
        self.changed = asyncio.Event()  # it is gone, or oversize
        self._answered_all = asyncio.Event()
        self.process: Process | None = None
        self.killed_for = ""

    @property
    def pid(self) -> int:
        """Of the process; 0: it has not started."""
        return self.process.pid if self.process is not None else 0

    def submit(self, entry: Entry) -> None:
        """Hands a request over; it leaves with all others of this round of the loop."""
        assert self._transport is not None
        self._last = number = self._last + 1
        request = entry.request
        entry.tries += 1
        entry.since = self._loop.time()
        self.pending[number] = entry
        name = request.model.encode()
        body = request.body
        head = frames.REQUEST.pack(
            len(body),
            number,
            frames.ALL_JSON if request.json_length is None else request.json_length,
            len(name),
            frames.DOOR_NUMBERS[request.door],
            request.deadline or frames.NO_DEADLINE,
        )
        if len(body) < _LARGE:
            self._transport.write(head + name + body)
        else:
            self._transport.writelines((head + name, body))

    # For the link.

    def connected(self, transport: asyncio.Transport) -> None:
        """See Peer."""
        self._transport = transport
        transport.writelines((frames.LENGTH.pack(len(self._plan)), self._plan))

    def answered(self, number: int, code: int, body: bytes, json_length: int | None) -> None:
        """See Peer."""
        if not number:
            self._settle_loading(code, body)
            return
        entry = self.pending.pop(number)
        if not entry.future.done():  # else its client has gone
            if code:
                entry.future.set_exception(decode_fault(code, body))
            else:
                entry.future.set_result(WireAnswer(body, json_length))
        if not self.pending:
            self._answered_all.set()
        self._answered(entry)

    def disconnected(self) -> None:
        """See Peer."""
        self._transport = None
        self._end()

    # For who looks after it.

    def ended(self, status: ExitStatus) -> None:
        """The process has ended."""
        if not self.loaded.done():
            self.loaded.set_exception(
                FailedPrecondition(f"the worker {self.killed_for or status.describe()} while loading")
            )
            self.loaded.exception()  # whoever waits hears it; nobody has to
        self._end()

    def _end(self) -> None:
        if not self.gone:
            self.gone = True
            self.changed.set()
            self._answered_all.set()
            self._lost(self)

    async def idle(self) -> None:
        """Waits until it has answered all it has, or is gone."""
        while self.pending and not self.gone:
            self._answered_all.clear()
            await self._answered_all.wait()

    def split(self) -> tuple[list[Entry], list[Entry]]:
        """Takes what has no answer: what the worker had begun, and what it had not."""
        (begun,) = frames.MARK.unpack_from(self._mark)
        pending, self.pending = self.pending, {}
        lost = [entry for number, entry in pending.items() if number <= begun]
        untouched = [entry for number, entry in pending.items() if number > begun]
        return lost, untouched

    def overdue(self, now: float, timeout_seconds: float, grace_seconds: float) -> bool:
        """Tells whether it is at a request for much longer than it may, or has not even begun the first it has.

        Args:
            now: Loop's time.
            timeout_seconds: What a request without a deadline may take.
            grace_seconds: How much longer than that, or than its deadline.
        """
        (begun,) = frames.MARK.unpack_from(self._mark)
        for position, (number, entry) in enumerate(self.pending.items()):
            if position and number > begun:
                return False
            until = entry.since + timeout_seconds
            if entry.request.deadline is not None and number <= begun:
                until = min(until, entry.request.deadline)
            if now > until + grace_seconds:
                return True
        return False

    def resident_bytes(self) -> int:
        """Gives its resident memory without mapped files; what it shares with other workers counts. 0: not known."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb", buffering=0) as file:
                fields = file.read(256).split()
        except OSError:
            return 0
        return (int(fields[1]) - int(fields[2])) * _PAGE

    def outgrow(self) -> None:
        """It has grown too large: a successor is to take its place."""
        if not self.oversize:
            self.oversize = True
            self.changed.set()

    def kill(self, why: str) -> None:
        """Ends it at once."""
        self.killed_for = why
        if self.process is not None:
            self.process.kill()

    async def retire(self, grace_seconds: float) -> None:
        """Lets it end by itself, for it has nothing left to do; kills it if it does not."""
        if self._transport is not None:
            self._transport.close()
        if self.process is not None:
            try:
                async with asyncio.timeout(grace_seconds):
                    await self.process.wait()
            except TimeoutError:
                self.kill("did not end when it was asked to")
                await self.process.wait()

    def _settle_loading(self, code: int, body: bytes) -> None:
        if self.loaded.done():
            return
        if code:
            self.loaded.set_exception(decode_fault(code, body))
            self.loaded.exception()
            return
        content = orjson.loads(body)
        inputs, outputs = (
            [TensorInfo(name, datatype, tuple(shape)) for name, datatype, shape in content[key]]
            for key in ("inputs", "outputs")
        )
        self.loaded.set_result(Loaded(content["platform"], inputs, outputs))


def unavailable(why: str) -> ServiceError:
    """The error of a request whose worker ended."""
    return Unavailable(f"the model's worker {why} while it worked on this; try again", retry_after_seconds=1)
