"""A worker's end of the socket to the router; blocking, for a worker has nothing else to do."""

import mmap
import select
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from mlmesh_serving.backend import Door
from mlmesh_serving.workers import frames
from mlmesh_serving.workers.doors import Buffer, Encoded
from mlmesh_serving.workers.engine import Reply

_SMALL: Final = 64 << 10  # joined and sent as one piece
_MOST_PIECES: Final = 512  # of one sendmsg; the system takes 1024


class Request(NamedTuple):
    """A frame from the router; see `WireRequest`. `deadline` is by `time.monotonic`, 0 for any."""

    number: int
    door: Door
    model: str
    body: Buffer
    json_length: int | None
    deadline: float


class RouterGone(Exception):
    """The router has closed the connection, or is dead."""


class Channel:
    """Reads requests and writes replies.

    Args:
        connection: To the router.
        mark: The file in which the number of the last request begun is kept.
    """

    def __init__(self, connection: socket.socket, mark: Path) -> None:
        self._socket = connection
        with mark.open("r+b") as file:
            self._mark = mmap.mmap(file.fileno(), frames.MARK.size)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._buffer = bytearray(frames.BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0

    def requests(self, wait_seconds: float | None) -> Iterator[Request]:
        """Gives all requests that have come.

        Args:
            wait_seconds: How long to wait for the first; None: until there is one.

        Raises:
            RouterGone: There will be no more.
        """
        if not self._read(wait_seconds):
            return
        while True:
            while (request := self._next()) is not None:
                yield request
            if self._start == self._end or not self._read(0):
                return

    def begin(self, number: int) -> None:
        """Notes that all requests up to this one are being worked on."""
        frames.MARK.pack_into(self._mark, 0, number)

    def reply(self, replies: Sequence[Reply]) -> None:
        """Sends replies, in as few calls of the system as there can be.

        Raises:
            RouterGone: Nobody takes them.
        """
        parts: list[Buffer] = []
        for reply in replies:
            answer = reply.answer
            length = frames.ALL_JSON if answer.json_length is None else answer.json_length
            parts.append(frames.ANSWER.pack(sum(map(len, answer.parts)), reply.number, length, reply.code))
            parts += answer.parts
        try:
            if sum(map(len, parts)) <= _SMALL:
                self._socket.sendall(b"".join(parts))
            else:
                self._send(parts)
        except OSError as error:
            raise RouterGone from error

    def tell(self, code: int, content: bytes) -> None:
        """Sends what has come of loading."""
        self.reply([Reply(0, code, Encoded([content]))])

    def plan(self) -> bytes:
        """Reads what is to be loaded: the first that the router sends.

        Raises:
            RouterGone: It sends nothing.
        """
        (length,) = frames.LENGTH.unpack(self._exactly(frames.LENGTH.size))
        return bytes(self._exactly(length))

    def _read(self, wait_seconds: float | None) -> bool:
        """Reads what is there; tells whether there was something."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start:
            rest = self._end - self._start
            self._view[:rest] = self._view[self._start : self._end]
            self._start, self._end = 0, rest
        try:
            if wait_seconds is not None and wait_seconds > 0 and not self._poll.poll(max(1.0, wait_seconds * 1000)):
                return False
            flags = socket.MSG_DONTWAIT if wait_seconds == 0 else 0
            size = self._socket.recv_into(self._view[self._end :], 0, flags)
        except BlockingIOError:
            return False
        except OSError as error:
            raise RouterGone from error
        if not size:
            raise RouterGone
        self._end += size
        return True

    def _next(self) -> Request | None:
        start, end = self._start, self._end
        if end - start < frames.REQUEST.size:
            return None
        size, number, length, name_size, door, deadline = frames.REQUEST.unpack_from(self._buffer, start)
        at = start + frames.REQUEST.size
        if end - at < name_size:
            return None
        body: Buffer
        if at + name_size + size <= end:
            body = bytes(self._view[at + name_size : at + name_size + size])
            self._start = at + name_size + size
        elif size + name_size + frames.REQUEST.size <= frames.BUFFER_BYTES:
            return None
        else:
            body = self._large(size, self._view[at + name_size : end])
            self._start = end
        model = str(self._view[at : at + name_size], "utf-8")
        json_length = None if length == frames.ALL_JSON else length
        return Request(number, frames.DOORS[door], model, body, json_length, deadline)

    def _large(self, size: int, begun: memoryview) -> memoryview:
        """Reads the rest of a large body where it stays; nothing is cleared or copied for it."""
        whole = np.empty(size, np.uint8).data
        whole[: len(begun)] = begun
        self._fill(whole[len(begun) :])
        return whole

    def _exactly(self, size: int) -> memoryview:
        whole = np.empty(size, np.uint8).data
        self._fill(whole)
        return whole

    def _fill(self, view: memoryview) -> None:
        while view:
            try:
                size = self._socket.recv_into(view, 0, socket.MSG_WAITALL)
            except OSError as error:
                raise RouterGone from error
            if not size:
                raise RouterGone
            view = view[size:]

    def _send(self, parts: list[Buffer]) -> None:
        waiting = [memoryview(part) for part in parts if len(part)]
        while waiting:
            sent = self._socket.sendmsg(waiting[:_MOST_PIECES])
            done = 0
            while done < len(waiting) and sent >= len(waiting[done]):
                sent -= len(waiting[done])
                done += 1
            del waiting[:done]
            if sent:
                waiting[0] = waiting[0][sent:]
