"""A unary call to a server elsewhere: sends its message, gathers the answer."""

import asyncio
import math
from typing import TYPE_CHECKING, Final

import grpc
from google.rpc import status_pb2

from mlmesh_kit.errors import (
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    Unimplemented,
    from_status,
)
from mlmesh_kit.http2.client_connection import ClientConnection
from mlmesh_kit.http2.faults import ErrorCode, StreamFault
from mlmesh_kit.http2.header_blocks import Fields, encode
from mlmesh_kit.http2.incoming import IncomingMessage
from mlmesh_kit.http2.response_head import read_response
from mlmesh_kit.http2.stream import Stream

if TYPE_CHECKING:
    from mlmesh_kit.http2.client import RawClient

_OF_RESET: Final = {
    ErrorCode.REFUSED_STREAM: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.CANCEL: grpc.StatusCode.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: grpc.StatusCode.PERMISSION_DENIED,
}
"""The other codes are INTERNAL (gRPC over HTTP/2: Errors)."""
_CODES: Final = frozenset(ErrorCode)
_MICROSECONDS: Final = 99.0  # up to so many seconds they fit into the eight digits of a timeout


class ClientCall:
    """One call.

    Args:
        client: Is told when a stream is free, and when the call may be sent again.
        head: Header block but for the timeout.
        message: Serialized request.
        deadline: Loop's time; None: any.
        answer: Gets the serialized answer or a ServiceError.
    """

    __slots__ = (
        "_again",
        "_begun",
        "_client",
        "_deadline",
        "_head",
        "_incoming",
        "_message",
        "_reserved",
        "_stream",
        "_timer",
        "answer",
    )

    def __init__(
        self,
        client: "RawClient",
        head: bytes,
        message: bytes,
        deadline: float | None,
        answer: "asyncio.Future[bytes]",
    ) -> None:
        self._client = client
        self._head = head
        self._message = message
        self._deadline = deadline
        self.answer = answer
        self._stream: Stream | None = None
        self._incoming = IncomingMessage(client.limits.message)
        self._begun = False
        self._reserved = False
        self._again = False
        self._timer = None if deadline is None else client.loop.call_at(deadline, self._expire)
        answer.add_done_callback(self._settled)

    # For the client.

    def send(self, connection: ClientConnection) -> None:
        """Sends the request; the answer is given to `answer`."""
        head = self._head
        if self._deadline is not None:
            head += _timeout(self._deadline - self._client.loop.time())
        self._stream = connection.ask(head, self, self._message)

    def fail(self, error: ServiceError) -> None:
        """Ends it with an error, unless it has ended."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def _expire(self) -> None:
        self.fail(DeadlineExceeded("the deadline has passed"))

    def _settled(self, answer: "asyncio.Future[bytes]") -> None:
        """It has an answer or an error, or the caller has given it up."""
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is None:
            self._client.drop(self)
        else:
            self._stream.abort(ErrorCode.CANCEL)  # where it is still open
            self._leave(self._stream)

    def _leave(self, stream: Stream) -> None:
        """The stream is not this call's any more."""
        self._stream = None
        if self._reserved:
            self._reserved = False
            self._client.reservations.release(stream)
        self._client.freed()

    # For the stream.

    def headers_received(self, fields: Fields, *, ended: bool) -> None:
        """See Exchange."""
        head = read_response(fields)
        if self.answer.done() or (head.is_informational and not ended):
            return
        if not ended:
            if self._begun:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "header fields amid the body")
            self._begun = True
            if not head.begins_grpc:
                self.fail(head.error())
        elif head.code:
            self.fail(head.error())
        elif head.code is None or not self._begun:
            self.fail(head.error() if head.code is None else Internal("the server behind sent a status, no message"))
        else:
            self._succeed()

    def _succeed(self) -> None:
        try:
            compressed, message = self._incoming.take()
        except (Internal, Unimplemented) as error:
            self.fail(Internal(f"the answer is unsound: {error.message}"))
            return
        if compressed:
            self.fail(Internal("the server behind compressed its answer, which it was not told to"))
        else:
            self.answer.set_result(message)

    def data_received(self, data: bytes) -> None:
        """See Exchange."""
        if self.answer.done():
            return
        try:
            missing = self._incoming.add(data)
        except (ResourceExhausted, Unimplemented) as error:
            self.fail(error if isinstance(error, ResourceExhausted) else Internal("the answer has two messages"))
            return
        stream = self._stream
        if stream is not None and missing > stream.receive_window:
            self._reserved = True
            self._client.reservations.ask(stream, missing - stream.receive_window)

    def ended(self) -> None:
        """See Exchange: without trailers, so without a status."""
        self.fail(Internal("the server behind ended its answer without a status"))

    def reset(self, code: int) -> None:
        """See Exchange."""
        stream = self._stream
        if stream is None:
            return
        self._leave(stream)
        if self.answer.done():
            return
        if code == ErrorCode.REFUSED_STREAM and not self._again:  # the server has not begun with it (gRFC A6)
            self._again = True
            self._client.submit(self)
        elif stream.connection.closed_at is not None:
            self.fail(Unavailable(f"the connection to {self._client.address} broke off"))
        else:
            known = _OF_RESET.get(ErrorCode(code)) if code in _CODES else None
            found = (known or grpc.StatusCode.INTERNAL).value[0]
            self.fail(
                from_status(status_pb2.Status(code=found, message=f"the server behind reset the stream ({code})"))
            )

    def data_sent(self, size: int) -> None:
        """See Exchange."""


def _timeout(seconds: float) -> bytes:
    """Gives the header field (gRPC over HTTP/2: Timeout), rounded up."""
    if seconds <= _MICROSECONDS:
        value = b"%du" % max(1, math.ceil(seconds * 1e6))
    else:
        value = b"%dS" % min(math.ceil(seconds), 99_999_999)
    return encode([(b"grpc-timeout", value)])
