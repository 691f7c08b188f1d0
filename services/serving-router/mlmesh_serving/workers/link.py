"""The router's end of the socket to a worker: answers are read where they come, in few calls, and handed out."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from mlmesh_serving.workers import frames

_HEAD = frames.ANSWER.size


class Peer(Protocol):
    """Who is behind a link: the router's view of one worker."""

    def connected(self, transport: asyncio.Transport) -> None:
        """The worker has greeted."""

    def answered(self, number: int, code: int, body: bytes, json_length: int | None) -> None:
        """A frame has come."""

    def disconnected(self) -> None:
        """The worker is gone."""


class Link(asyncio.BufferedProtocol):
    """Reads a worker's token, then its frames.

    Args:
        claim: Gives the worker that a token stands for; None: there is none, and the connection is closed.
    """

    def __init__(self, claim: Callable[[str], Peer | None]) -> None:
        self._claim = claim
        self._peer: Peer | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(frames.BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        # A body that does not fit into the buffer: where it goes, how much has come, and what its frame said.
        self._large: bytearray | None = None
        self._filled = 0
        self._head = (0, 0, 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not one by its class

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self._peer is not None:
            self._peer.disconnected()

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        if self._large is not None:
            return memoryview(self._large)[self._filled :]
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        if self._large is not None:
            self._filled += nbytes
            if self._filled == len(self._large):
                body, self._large = bytes(self._large), None
                self._hand_out(*self._head, body)
            return
        self._end += nbytes
        if self._peer is None and not self._greet():
            return
        while self._end - self._start >= _HEAD:
            size, number, length, code = frames.ANSWER.unpack_from(self._buffer, self._start)
            begin = self._start + _HEAD
            if begin + size > self._end:
                if size + _HEAD > frames.BUFFER_BYTES:
                    self._begin_large(size, begin)
                    self._head = (number, code, length)
                break
            self._start = begin + size
            self._hand_out(number, code, length, bytes(self._view[begin : begin + size]))
        self._compact()

    def _greet(self) -> bool:
        if self._end < frames.TOKEN_BYTES:
            return False
        assert self._transport is not None
        token = bytes(self._view[: frames.TOKEN_BYTES]).decode("ascii", "replace")
        self._start = frames.TOKEN_BYTES
        self._peer = self._claim(token)
        if self._peer is None:
            self._transport.abort()
            return False
        self._peer.connected(self._transport)
        return True

    def _begin_large(self, size: int, begin: int) -> None:
        self._large = bytearray(size)
        self._filled = self._end - begin
        self._large[: self._filled] = self._view[begin : self._end]
        self._start = self._end

    def _compact(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start:
            rest = self._end - self._start
            self._view[:rest] = self._view[self._start : self._end]
            self._start, self._end = 0, rest

    def _hand_out(self, number: int, code: int, length: int, body: bytes) -> None:
        assert self._peer is not None
        self._peer.answered(number, code, body, None if length == frames.ALL_JSON else length)
