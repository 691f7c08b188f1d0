"""A Backend that explains what another one answers: worker processes, one request each at a time.

Explaining is slow and hungry by nature. So it has processes of its own, takes no more requests than it has workers, and
asks the predictor in batches, one after the other, as any client does: what it can take from predictions is bounded.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from mlmesh_kit.errors import DeadlineExceeded, Internal, ResourceExhausted, ServiceError, Unavailable, Unimplemented
from mlmesh_kit.launch import Launcher, Limits

from mlmesh_serving.backend import Backend, Door, WireAnswer, WireRequest
from mlmesh_serving.companion import Companion, FrameProtocol, frame, start_companion
from mlmesh_serving.explainers import kinds
from mlmesh_serving.explainers.plan import ExplainerPlan
from mlmesh_serving.workers.faults import decode_fault, encode_fault

logger = logging.getLogger(__name__)

MODULE = "mlmesh_serving.explainers.worker"
_LOAD_SECONDS = 120.0
_PATIENCE_SECONDS = 2.0
_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 30.0


class _Explaining:
    """A request that a worker is at."""

    def __init__(self, number: int, request: WireRequest, deadline: float) -> None:
        self.number = number
        self.request = request
        self.deadline = deadline
        self.future: asyncio.Future[WireAnswer] = asyncio.get_running_loop().create_future()


class _Worker:
    """One process, started again when it ends.

    Args:
        start: Starts the process with the protocol that it is given.
        plan: What it does.
        predictor: Is asked by it.
    """

    def __init__(
        self, start: Callable[[FrameProtocol], "asyncio.Future[Companion]"], plan: ExplainerPlan, predictor: Backend
    ) -> None:
        self._start = start
        self._plan = plan
        self._predictor = predictor
        self._loop = asyncio.get_running_loop()
        self._loading: FrameProtocol | None = None
        self._protocol: FrameProtocol | None = None
        self._companion: Companion | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Future[WireAnswer] | None = None
        self._is_asked = False
        self.current: _Explaining | None = None
        self.is_busy = False
        self.first: asyncio.Future[None] = self._loop.create_future()
        self.keeping = asyncio.create_task(self._keep(), name="explainer")

    @property
    def is_ready(self) -> bool:
        """Whether the process has loaded what it needs."""
        return self._protocol is not None

    @property
    def pid(self) -> int | None:
        """Process id."""
        return self._companion.process.pid if self._companion is not None else None

    def begin(self, explaining: _Explaining) -> None:
        """Hands a request over; the worker is ready and not busy."""
        assert self._protocol is not None
        self.current, self.is_busy = explaining, True
        request = explaining.request
        model = request.model.encode()
        length = kinds.ALL_JSON if request.json_length is None else request.json_length
        head = kinds.REQUEST.pack(explaining.number, length, len(model))
        self._protocol.send(frame(kinds.EXPLAIN, head, model, request.body))
        self._timer = self._loop.call_at(explaining.deadline, self._expire, explaining)
        explaining.future.add_done_callback(lambda _: self._settled(explaining))

    async def stop(self) -> None:
        """Ends the process; what it was at is answered Unavailable."""
        self.keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.keeping

    def _expire(self, explaining: _Explaining) -> None:
        if not explaining.future.done():
            explaining.future.set_exception(DeadlineExceeded("the explanation took longer than the request allows"))

    def _settled(self, explaining: _Explaining) -> None:
        """The client has its answer, or waits no longer; then the worker is to stop soon."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.current is not explaining:
            return
        self.current = None
        if self._asking is not None:
            self._asking.cancel()
        elif self._is_asked:
            self._give_up()
        self._timer = self._loop.call_later(_PATIENCE_SECONDS, self._kill)

    def _kill(self) -> None:
        """It computes for nobody: what does not ask the model cannot be told to stop."""
        self._timer = None
        if self.is_busy and self._companion is not None:
            self._companion.process.kill()

    def _received(self, kind: int, content: bytes) -> None:
        if kind == kinds.EXPLAINED:
            number, code = kinds.EXPLAINED_HEAD.unpack_from(content)
            self._explained(number, code, content[kinds.EXPLAINED_HEAD.size :])
        elif kind == kinds.PREDICT:
            self._is_asked = True
            self._predict(content)
        elif kind == kinds.READY and not self.first.done():
            self._protocol = self._loading
            self.first.set_result(None)
        elif kind == kinds.FAILED and not self.first.done():
            self.first.set_exception(decode_fault(content[0], content[1:]))

    def _explained(self, number: int, code: int, body: bytes) -> None:
        explaining, self.current, self.is_busy = self.current, None, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if explaining is None or explaining.number != number or explaining.future.done():
            return
        if code:
            explaining.future.set_exception(decode_fault(code, body))
        else:
            explaining.future.set_result(WireAnswer(body))

    def _predict(self, content: bytes) -> None:
        number, length = kinds.PREDICT_HEAD.unpack_from(content)
        explaining = self.current
        if explaining is None or explaining.number != number:
            self._give_up()
            return
        body = content[kinds.PREDICT_HEAD.size :]
        request = WireRequest(Door.REST_V2, explaining.request.model, body, length, deadline=explaining.deadline)
        try:
            self._asking = self._predictor.submit(request)
        except ServiceError as error:
            self._tell(*encode_fault(error))
            return
        self._asking.add_done_callback(self._predicted)

    def _predicted(self, done: "asyncio.Future[WireAnswer]") -> None:
        self._asking = None
        if done.cancelled():
            self._give_up()
            return
        error = done.exception()
        if error is None:
            answer = done.result()
            self._tell(0, answer.body, answer.json_length)
        elif isinstance(error, ServiceError):
            self._tell(*encode_fault(error))
        else:
            self._tell(*encode_fault(Internal(f"the model raised {type(error).__name__}")))

    def _give_up(self) -> None:
        self._tell(*encode_fault(Unavailable("nobody waits for it")))

    def _tell(self, code: int, body: bytes, json_length: int | None = None) -> None:
        if not self._is_asked or self._protocol is None:
            return
        self._is_asked = False
        length = kinds.ALL_JSON if json_length is None else json_length
        self._protocol.send(frame(kinds.PREDICTED, kinds.PREDICTED_HEAD.pack(code, length), body))

    async def _keep(self) -> None:
        wait = _FIRST_WAIT_SECONDS
        while True:
            began = time.monotonic()
            try:
                await self._run_once()
            except ServiceError as error:
                logger.warning("an explainer cannot be started: %s", error.message)
            if time.monotonic() - began > _LONGEST_WAIT_SECONDS:
                wait = _FIRST_WAIT_SECONDS
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
            if self.first.done():
                self.first = self._loop.create_future()

    async def _run_once(self) -> None:
        """Starts the process, and waits for its end."""
        protocol = FrameProtocol(self._received, _nothing)
        self._companion = await self._start(protocol)
        self._loading = protocol
        try:
            protocol.send(frame(kinds.PLAN, orjson.dumps(self._plan.message())))
            ended = asyncio.create_task(self._companion.process.wait())
            try:
                both: list[asyncio.Future[Any]] = [ended, self.first]
                await asyncio.wait(both, timeout=_LOAD_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if not self.first.done():
                    self.first.set_exception(Unavailable("the explainer ended, or took too long, before it was ready"))
                if self.first.exception() is None:
                    await asyncio.shield(ended)
            finally:
                ended.cancel()
        finally:
            self._protocol = self._loading = None
            companion, self._companion = self._companion, None
            await companion.kill()
            self._is_asked = self.is_busy = False
            explaining, self.current = self.current, None
            if explaining is not None and not explaining.future.done():
                explaining.future.set_exception(Unavailable("the explainer ended", retry_after_seconds=1))


def _nothing() -> None:
    pass


class ExplainerBackend:
    """Explains; see the module and `Backend`. It answers `Door.EXPLAIN` alone.

    Args:
        launcher: Forks the workers.
        plan: What they do.
        predictor: Is asked about perturbed instances.
        folder: Working directory, and logs, of the workers.
        memory_bytes: Of a worker; 0: no limit.
        nice: How much a worker stands back for those that predict, 0 to 19.
    """

    def __init__(
        self,
        launcher: Launcher,
        plan: ExplainerPlan,
        predictor: Backend,
        folder: Path,
        *,
        memory_bytes: int = 4 << 30,
        nice: int = 5,
    ) -> None:
        self._launcher = launcher
        self._plan = plan
        self._predictor = predictor
        self._folder = folder
        self._limits = Limits(memory_bytes=memory_bytes, nice=nice, oom_score=500, log_bytes=4 << 20)
        self._workers: list[_Worker] = []
        self._explaining: set[_Explaining] = set()
        self._last_number = 0
        self._is_closed = False

    @property
    def in_flight(self) -> int:
        """See Backend."""
        return len(self._explaining)

    @property
    def ready(self) -> int:
        """See Backend."""
        return sum(worker.is_ready for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def submit(self, request: WireRequest) -> "asyncio.Future[WireAnswer]":
        """See Backend.

        Raises:
            Unavailable: No worker is ready.
            ResourceExhausted: All are busy: nothing waits here.
            Unimplemented: It is no request for an explanation.
        """
        if request.door is not Door.EXPLAIN:
            raise Unimplemented("an explainer answers :explain alone")
        ready = [worker for worker in self._workers if worker.is_ready]
        if self._is_closed or not ready:
            raise Unavailable("no explainer is ready", retry_after_seconds=1)
        free = next((worker for worker in ready if not worker.is_busy), None)
        if free is None:
            raise ResourceExhausted(
                f"{len(ready)} explanations are being made, which is the most allowed", retry_after_seconds=1
            )
        loop = asyncio.get_running_loop()
        latest = loop.time() + self._plan.timeout_seconds
        self._last_number += 1
        deadline = latest if request.deadline is None else min(latest, request.deadline)
        explaining = _Explaining(self._last_number, request, deadline)
        self._explaining.add(explaining)
        explaining.future.add_done_callback(lambda _: self._explaining.discard(explaining))
        free.begin(explaining)
        return explaining.future

    async def scale(self, replicas: int) -> None:
        """See Backend.

        Raises:
            FailedPrecondition: The explainer cannot be loaded.
            Unavailable: Its process cannot be started.
        """
        while len(self._workers) > replicas:
            await self._workers.pop().stop()
        added = [self._worker() for _ in range(replicas - len(self._workers))]
        try:
            await asyncio.gather(*(worker.first for worker in added))
        except BaseException:
            for worker in added:
                await worker.stop()
            raise
        self._workers += added

    async def close(self, grace_seconds: float) -> None:
        """See Backend."""
        self._is_closed = True
        if self._explaining:
            await asyncio.wait([explaining.future for explaining in self._explaining], timeout=grace_seconds)
        await self.scale(0)

    def _worker(self) -> _Worker:
        def start(protocol: FrameProtocol) -> "asyncio.Future[Companion]":
            return asyncio.ensure_future(start_companion(self._launcher, MODULE, protocol, self._folder, self._limits))

        return _Worker(start, self._plan, self._predictor)
