"""A call that another server answers: header lists and bytes pass from stream to stream as the windows allow.

Nothing is understood on the way, so deadlines, metadata, compression, trailers and status details arrive as they were
sent; cancellation is RST_STREAM. A byte that one side has not taken is not asked of the other.
"""

from typing import TYPE_CHECKING

import grpc

from mlmesh_kit.http2 import status
from mlmesh_kit.http2.faults import ErrorCode, StreamFault
from mlmesh_kit.http2.header_blocks import Fields
from mlmesh_kit.http2.request_head import RequestHead, check_trailers
from mlmesh_kit.http2.stream import Stream

if TYPE_CHECKING:
    from mlmesh_kit.http2.upstream import Upstream


def relay(upstream: "Upstream | None", down: Stream, head: RequestHead) -> None:
    """Hands the call that the stream `down` has opened to the server behind.

    Args:
        upstream: Of the server behind; None: there is none, and the method does not exist.
        down: Of the client.
        head: Its request.
    """
    if upstream is None:
        name = head.path.decode("latin-1")[:200]
        block = status.trailers_only(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {name}")
        down.exchange = _Deaf()
        down.send_headers(block, end=True)
        return
    connection = upstream.connection
    if connection is None:
        down.exchange = _Deaf()
        down.send_headers(status.trailers_only(grpc.StatusCode.UNAVAILABLE, "not now; try again"), end=True)
        return
    answer = _Answer(down)
    up = connection.open(head.fields.block(), answer, end=down.remote_closed)
    answer.up = up
    down.exchange = _Request(down, up)


class _Deaf:
    """Behind a stream that has been answered already."""

    def headers_received(self, fields: Fields, *, ended: bool) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        pass

    def ended(self) -> None:
        pass

    def reset(self, code: int) -> None:
        pass

    def data_sent(self, size: int) -> None:
        pass


class _Request:
    """From the client to the server behind. Sits behind the client's stream."""

    def __init__(self, down: Stream, up: Stream) -> None:
        self._down = down
        self._up = up

    def headers_received(self, fields: Fields, *, ended: bool) -> None:
        if not ended:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "header fields amid the body")
        check_trailers(fields)
        if not self._up.local_closed:
            self._up.finish(fields.block())

    def data_received(self, data: bytes) -> None:
        if self._up.local_closed:  # answered already
            return
        self._up.send_data(data)

    def ended(self) -> None:
        if not self._up.local_closed:
            self._up.finish()

    def reset(self, code: int) -> None:
        self._up.abort(ErrorCode.CANCEL)

    def data_sent(self, size: int) -> None:
        self._up.consumed(size)


class _Answer:
    """From the server behind to the client. Sits behind the stream to the server."""

    def __init__(self, down: Stream) -> None:
        self._down = down
        self._begun = False
        self.up: Stream | None = None

    def headers_received(self, fields: Fields, *, ended: bool) -> None:
        if ended:
            self._down.finish(fields.block())
            self._let_go()
        elif not self._down.local_closed:
            self._begun = True
            self._down.send_headers(fields.block())

    def data_received(self, data: bytes) -> None:
        if not self._down.local_closed:
            self._down.send_data(data)

    def ended(self) -> None:
        if not self._down.local_closed:
            self._down.finish()
        self._let_go()

    def _let_go(self) -> None:
        """The answer is there: what the request still has to say does not matter."""
        if self.up is not None and not self.up.local_closed:
            self.up.abort(ErrorCode.NO_ERROR)

    def reset(self, code: int) -> None:
        down = self._down
        if down.local_closed or down.trailers is not None:
            return
        if self.up is not None and self.up.connection.closed_at is None:
            down.abort(ErrorCode(code) if code <= max(ErrorCode) else ErrorCode.INTERNAL_ERROR)
            return
        message = "the connection to the server behind broke off"
        if self._begun:
            down.finish(status.trailers(grpc.StatusCode.UNAVAILABLE, message))
        else:
            down.send_headers(status.trailers_only(grpc.StatusCode.UNAVAILABLE, message), end=True)

    def data_sent(self, size: int) -> None:
        self._down.consumed(size)
