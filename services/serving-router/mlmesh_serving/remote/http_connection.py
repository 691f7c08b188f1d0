"""One HTTP/1.1 connection of ours to a server: a request, its answer, and the next request."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import httptools

_MAX_HEADER_BYTES: Final = 64 << 10
_FIELD_BYTES: Final = 32  # what a field costs beside its text, as HTTP/2 counts
_HIGH_WATER: Final = 256 << 10  # bytes that wait to be taken, beyond which nothing more is read


class BrokenError(Exception):
    """An exchange has failed, and the connection with it."""


class HungUpError(BrokenError):
    """The connection is gone, and the answer is not whole."""


class NotHttpError(BrokenError):
    """What the server sent is no HTTP."""


class TooLargeError(BrokenError):
    """The answer is larger than it may be."""


class LateError(BrokenError):
    """The answer, or its next piece, did not come in time."""


class HttpConnection(asyncio.Protocol):
    """A connection. `ask` begins an exchange, `head` and then `whole` or `pieces` give the answer.

    Args:
        loop: Where it lives.

    Attributes:
        reusable: Whether another request may be sent: the last answer is whole, and the server keeps the connection.
        idle_since: Loop's time when it was last put aside.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.reusable = True
        self.idle_since = 0.0
        self._loop = loop
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._fault: BrokenError | None = None
        self._asking = False
        self._complete = True
        self._begin()

    def _begin(self) -> None:
        self._status = 0
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._taken_bytes = 0
        self._limit = 0
        self._paused = False
        self._wake: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._each = 0.0

    # For the client.

    def ask(self, request: bytes, body: bytes, *, seconds: float, limit: int, each: bool) -> None:
        """Sends a request.

        Args:
            request: Request line and headers.
            body: Of the request; may be empty.
            seconds: For the whole answer, or, with `each`, for each piece of it.
            limit: Bytes of the answer's body that are kept for `whole`; with `pieces`, nothing is kept.
            each: See `seconds`.
        """
        self._begin()
        self._asking, self._complete, self.reusable = True, False, False
        self._limit = limit
        self._each = seconds if each else 0.0
        self._timer = self._loop.call_later(seconds, self._expire)
        if len(body) < _HIGH_WATER:
            self._transport.write(request + body)
        else:
            self._transport.writelines((request, body))

    async def head(self) -> tuple[int, dict[str, str]]:
        """Gives status and headers, names in lower case.

        Raises:
            BrokenError: There is no answer.
        """
        while not self._status and self._fault is None:
            await self._more()
        if self._fault is not None:
            raise self._fault
        return self._status, self._headers

    async def whole(self) -> bytes:
        """Gives the body.

        Raises:
            BrokenError: It did not come, or is too large.
        """
        declared = self._headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._limit:
            raise TooLargeError
        while not self._complete:
            if self._waiting_bytes > self._limit:
                raise TooLargeError
            self._read_on()
            await self._more()
        if self._waiting_bytes > self._limit:
            raise TooLargeError
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Gives the body as it comes; what is not taken is not read on.

        Raises:
            BrokenError: It breaks off.
        """
        while True:
            while self._pieces:
                taken, self._pieces, self._waiting_bytes = self._pieces, [], 0
                for piece in taken:
                    yield piece
            if self._complete:
                return
            self._read_on()
            await self._more()

    def end(self) -> None:
        """Ends the exchange; where the answer is not whole, the connection too."""
        self._asking = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._complete or self._fault is not None:
            self.close()
        self._pieces = []

    def close(self) -> None:
        """Ends the connection."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    async def _more(self) -> None:
        if self._fault is not None:
            raise self._fault
        self._wake = self._loop.create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    def _read_on(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    # For the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if not self._asking or self._complete:  # nobody has asked for this
            self.close()
            return
        if self._each and self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_later(self._each, self._expire)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(NotHttpError())
            return
        if self._header_bytes > _MAX_HEADER_BYTES:
            self._fail(NotHttpError())
            return
        if self._waiting_bytes > _HIGH_WATER and self._waiting_bytes > self._limit and not self._complete:
            self._paused = True
            self._transport.pause_reading()
        self._awake()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.reusable = False
        if not self._asking or self._complete or self._fault is not None:
            return
        framed = "content-length" in self._headers or "transfer-encoding" in self._headers
        if self._status and not framed and error is None:  # its end is the body's end
            self._complete = True
            self._awake()
        else:
            self._fail(HungUpError())

    def _expire(self) -> None:
        self._fail(LateError())

    def _fail(self, fault: BrokenError) -> None:
        if self._fault is None:
            self._fault = fault
        self.close()
        self._awake()

    def _awake(self) -> None:
        if self._wake is None or self._wake.done():
            return
        if self._fault is not None and not self._complete:
            self._wake.set_exception(self._fault)
        else:
            self._wake.set_result(None)

    # For the parser.

    def on_message_begin(self) -> None:
        """An answer begins."""
        if self._complete:  # a second one, which nobody has asked for
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is there."""
        if self._complete:
            return
        self._header_bytes += len(name) + len(value) + _FIELD_BYTES
        if self._header_bytes <= _MAX_HEADER_BYTES:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """All headers are there."""
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:  # informational; the answer is still to come
            self._headers = {}
        else:
            self._status = status

    def on_body(self, data: bytes) -> None:
        """A piece of the body is there."""
        if self._complete:
            return
        self._pieces.append(data)
        self._waiting_bytes += len(data)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._status and not self._complete:
            self._complete = True
            self.reusable = self._parser.should_keep_alive() and self._fault is None
