"""A unary call that is answered here: gathers its message, runs its method, sends the answer."""

import asyncio
import contextvars
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import grpc

from mlmesh_kit.errors import DeadlineExceeded, Internal, InvalidArgument, ResourceExhausted, Unavailable, Unimplemented
from mlmesh_kit.http2 import status
from mlmesh_kit.http2.compression import decompress, decompress_small
from mlmesh_kit.http2.faults import ErrorCode, StreamFault
from mlmesh_kit.http2.header_blocks import Fields
from mlmesh_kit.http2.incoming import IncomingMessage
from mlmesh_kit.http2.methods import Method, as_future
from mlmesh_kit.http2.request_head import RequestHead, check_trailers
from mlmesh_kit.http2.stream import Stream
from mlmesh_kit.identity import ANONYMOUS, Caller
from mlmesh_kit.interceptor import failure_of, status_of
from mlmesh_kit.observation import Observation

if TYPE_CHECKING:
    from mlmesh_kit.http2.server_connection import ServerConnection


class UnaryCall:
    """One call, from its header list to its trailers; handed to the method's handler.

    Attributes:
        caller: Who calls, and in which namespace.
        deadline: Loop's time by which the client wants the answer; None: any.
        trailing_metadata: Sent with the answer; the handler may set it.
    """

    __slots__ = (
        "_connection",
        "_future",
        "_head",
        "_incoming",
        "_method",
        "_observation",
        "_over",
        "_reserved",
        "_running",
        "_stream",
        "_timer",
        "caller",
        "deadline",
        "trailing_metadata",
    )

    def __init__(self, connection: "ServerConnection", stream: Stream, head: RequestHead, method: Method) -> None:
        self._connection = connection
        self._stream = stream
        self._head = head
        self._method = method
        self._incoming = IncomingMessage(connection.limits.message)
        self._reserved = False
        self._over = False  # answered, or nobody waits for an answer
        self._running = False
        self._future: asyncio.Future[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._observation: Observation | None = None
        self.caller: Caller = ANONYMOUS
        self.deadline: float | None = None
        self.trailing_metadata: list[tuple[str, str | bytes]] = []

    # For the handler.

    @property
    def method(self) -> str:
        """`/package.Service/Method`."""
        return self._method.path

    @property
    def metadata(self) -> list[tuple[str, str | bytes]]:
        """What the client sent along; bytes under names that end in `-bin`.

        Raises:
            InvalidArgument: One of those is not base 64.
        """
        return self._head.metadata()

    @property
    def peer(self) -> str:
        """Address of the other side of the connection."""
        return self._connection.peer

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None: there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - self._connection.loop.time())

    # For the connection.

    def begin(self) -> None:
        """The header list has come; refuses what cannot be served."""
        head = self._head
        door = self._connection.door
        if head.timeout is not None:
            self.deadline = self._connection.loop.time() + head.timeout
        if head.method != b"POST" or not head.content_type.startswith(b"application/grpc"):
            self._over = True
            self._stream.send_headers(status.NOT_GRPC, end=True)
        elif head.fields.size > self._connection.limits.header_list:
            self._fail(ResourceExhausted(f"more than {self._connection.limits.header_list} bytes of metadata"))
        elif head.refusal is not None:
            self._fail(head.refusal)
        elif door.calls >= door.most_calls:
            self._fail(ResourceExhausted(f"{door.most_calls} calls are in flight already", retry_after_seconds=1))

    def data_received(self, data: bytes) -> None:
        """See Exchange."""
        if self._over:
            return
        try:
            missing = self._incoming.add(data)
        except (ResourceExhausted, Unimplemented) as error:
            self._fail(error)
            return
        if missing > self._stream.receive_window:
            self._reserved = True
            self._connection.reservations.ask(self._stream, missing - self._stream.receive_window)

    def headers_received(self, fields: Fields, *, ended: bool) -> None:
        """See Exchange: the request's trailers, of which gRPC has none, but HTTP does."""
        if not ended:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "header fields amid the body")
        check_trailers(fields)
        self.ended()

    def ended(self) -> None:
        """See Exchange: the request is there."""
        if self._over:
            return
        try:
            compressed, message = self._incoming.take()
            if compressed and (compressed != 1 or not self._head.encoding):
                raise Internal("a message marked as compressed, and no grpc-encoding")
        except (Internal, Unimplemented) as error:
            self._fail(error)
            return
        self._release()
        contextvars.copy_context().run(self._run, message, compressed)

    def _run(self, message: bytes, compressed: int) -> None:
        self._running = True
        self._connection.door.calls += 1
        self._observation = self._method.begin(self._head)
        try:
            inflated = self._inflate(message) if compressed else message
            answer = self._admit(inflated) if isinstance(inflated, bytes) else self._inflate_and_admit(inflated)
            if isinstance(answer, bytes):
                self._ran()
                self._answer(answer)
                return
            self._future = future = as_future(answer, self._connection.loop)
        except Exception as error:
            self._ran()
            self._fail(error)
            return
        future.add_done_callback(self._settled)
        if self.deadline is not None:
            self._timer = self._connection.loop.call_at(self.deadline, self._expire)

    def _inflate(self, message: bytes) -> bytes | Awaitable[bytes]:
        limit = self._connection.limits.message
        found = decompress_small(self._head.encoding, message, limit)
        if found is not None:
            return found
        return self._connection.loop.run_in_executor(None, decompress, self._head.encoding, message, limit)

    async def _inflate_and_admit(self, inflating: Awaitable[bytes]) -> bytes:
        answer = self._admit(await inflating)
        return answer if isinstance(answer, bytes) else await answer

    def _admit(self, message: bytes) -> bytes | Awaitable[bytes]:
        caller = self._method.admit(self._head, message)
        if not isinstance(caller, Caller):
            return self._admit_and_run(caller, message)
        self.caller = caller
        return self._method.handler(message, self)

    async def _admit_and_run(self, admission: Awaitable[Caller], message: bytes) -> bytes:
        self.caller = await admission
        answer = self._method.handler(message, self)
        return answer if isinstance(answer, bytes) else await answer

    def _ran(self) -> None:
        self._running = False
        self._connection.door.calls -= 1

    def _settled(self, future: "asyncio.Future[bytes]") -> None:
        self._ran()
        if future.cancelled():
            self._fail(Unavailable("the service gave the call up; try again"))
            return
        error = future.exception()
        if error is None:
            self._answer(future.result())
        else:
            self._fail(error if isinstance(error, Exception) else Internal("internal error"))

    def _expire(self) -> None:
        self._fail(DeadlineExceeded("the deadline has passed"))

    def _answer(self, message: object) -> None:
        if self._over:
            return
        if not isinstance(message, bytes):
            self._fail(TypeError(f"a raw handler gave {type(message).__name__}, not bytes"))
            return
        if len(message) > self._connection.limits.message:
            limit = self._connection.limits.message
            self._fail(ResourceExhausted(f"the answer has {len(message)} bytes; at most {limit} are sent"))
            return
        end = status.TRAILERS_OK
        if self.trailing_metadata:
            try:
                end = status.trailers(grpc.StatusCode.OK, metadata=self.trailing_metadata)
            except InvalidArgument as error:
                self._fail(Internal(f"the answer's {error.message}"))
                return
        self._finish("OK")
        stream = self._stream
        if self._connection.outbox.message(stream, status.RESPONSE_HEAD, message, end):
            self._connection.local_end(stream)
            return
        stream.send_headers(status.RESPONSE_HEAD)
        stream.send_message(message, end)

    def _fail(self, error: Exception) -> None:
        if self._over:
            return
        failure = failure_of(error)
        message, details = status_of(failure)
        self._finish(failure.code.name)
        self._stream.send_headers(status.trailers_only(failure.code, message, details), end=True)

    def _finish(self, code: str) -> None:
        """Nothing more is to come of it but bytes that are queued."""
        self._over = True
        self._incoming = IncomingMessage(0)  # what has come is not needed any more
        self._release()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._future is not None and not self._future.done():
            self._future.cancel()
        if self._observation is not None:
            self._observation.end(code)
            self._observation = None

    def _release(self) -> None:
        if self._reserved:
            self._reserved = False
            self._connection.reservations.release(self._stream)

    def reset(self, code: int) -> None:
        """See Exchange: nobody waits for the answer."""
        if not self._over:
            self._finish("CANCELLED")

    def data_sent(self, size: int) -> None:
        """See Exchange."""

    def shut(self) -> None:
        """The server has waited for it long enough."""
        self._fail(Unavailable("the service is shutting down; try again", retry_after_seconds=1))

    def second(self, now: float) -> None:
        """Looks after what did not happen; called every second."""
        if self.deadline is not None and now > self.deadline:
            self._expire()  # while the request was still coming: the handler has a timer of its own
        if now - self._stream.since <= self._connection.limits.stall_seconds or self._running:
            return
        if not self._over:
            self._fail(DeadlineExceeded("the request did not come"))
        elif self._stream.queue:  # an answer that nobody takes
            self._stream.abort(ErrorCode.CANCEL)
