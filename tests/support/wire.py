"""An HTTP/2 server without a socket: bytes in, bytes out, and a clock that tests set."""

import asyncio
import struct
from collections.abc import Callable, Mapping
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
from mlmesh_kit.access import PUBLIC, AccessChecker, LocalReviewer
from mlmesh_kit.config import ServiceSettings
from mlmesh_kit.http2 import frames
from mlmesh_kit.http2.methods import Method, RawHandler, RawMethod
from mlmesh_kit.http2.server import Http2Server
from mlmesh_kit.http2.server_connection import ServerConnection
from mlmesh_kit.http2.settings import Limits
from mlmesh_kit.interceptor import Surroundings
from opentelemetry import trace

REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/Echo/Echo"),
    (":authority", "here"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


def message(data: bytes, flag: int = 0) -> bytes:
    """A gRPC message with its prefix."""
    return struct.pack(">BI", flag, len(data)) + data


class ManualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__()

    def time(self) -> float:
        return self.now


class Pipe(asyncio.Transport):
    """The server's transport: keeps what was written; can be full."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.unread = 0
        self.full = False
        self.closed = self.ended = False
        self.high = 65536
        self.protocol: Any = None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or self.high

    def get_write_buffer_size(self) -> int:
        return self.unread

    def write(self, data: Any) -> None:
        assert not self.closed and not self.ended, "written after the end"
        self.written += data
        if self.full:
            self.unread += len(data)
            if self.unread > self.high:
                self.protocol.pause_writing()

    def writelines(self, parts: Any) -> None:
        for part in parts:
            self.write(part)

    def drain(self) -> None:
        self.full, self.unread = False, 0
        self.protocol.resume_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connection_lost(None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 1234) if name == "peername" else default


class Wire:
    """A server with one connection.

    Args:
        handlers: By path; by default /Echo/Echo gives its request back.
        limits: Of the connection.
    """

    def __init__(
        self, handlers: Mapping[str, RawHandler] | None = None, limits: Limits | None = None, most_calls: int = 1024
    ) -> None:
        self.loop = ManualLoop()
        settings = ServiceSettings()
        reviewer = LocalReviewer(settings.local_user, settings.default_namespace)
        around = Surroundings(settings, AccessChecker(reviewer), trace.get_tracer("test"), self.loop)
        methods = {
            path: Method(path, RawMethod(handler), PUBLIC, around)
            for path, handler in (handlers or {"/Echo/Echo": lambda data, call: data}).items()
        }
        self.server = Http2Server(methods, self.loop, limits=limits, most_calls=most_calls)
        self.connect()

    def connect(self) -> None:
        self.connection = ServerConnection(self.server)
        self.pipe = Pipe()
        self.pipe.protocol = self.connection
        self.connection.connection_made(self.pipe)

    def close(self) -> None:
        self.pipe.abort()
        self.turn()
        self.loop.close()

    def turn(self, times: int = 3) -> None:
        """Lets callbacks run."""
        for _ in range(times):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def wait(self, seconds: int) -> None:
        """Lets time pass."""
        for _ in range(seconds):
            self.loop.now += 1
            for connection in list(self.server.connections):
                connection.second(self.loop.now)
            self.turn()

    def send(self, data: bytes) -> None:
        if not self.pipe.closed:
            self.connection.data_received(data)

    def read(self) -> bytes:
        """What the server wrote since the last time."""
        self.turn()
        data = bytes(self.pipe.written)
        self.pipe.written.clear()
        return data

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """The same as (type, flags, stream, payload)."""
        return split(self.read())

    def greet(self) -> None:
        self.send(frames.PREFACE + frames.settings_frame({}))
        self.read()


def split(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Takes frames apart; nothing may be left over."""
    found = []
    at = 0
    while at < len(data):
        high, low, kind, flags, stream = frames.FRAME_HEADER.unpack_from(data, at)
        size = high << 16 | low
        assert at + 9 + size <= len(data), "half a frame"
        found.append((kind, flags, stream, data[at + 9 : at + 9 + size]))
        at += 9 + size
    return found


class StrictClient:
    """The library h2 as a client: it raises at whatever breaks the rules."""

    def __init__(self, wire: Wire, settings: Mapping[int, int] | None = None) -> None:
        self.wire = wire
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=dict(settings))
        self.h2.initiate_connection()
        self.events: list[Any] = []
        self.exchange()

    def exchange(self) -> None:
        """Passes bytes to and fro until there are none."""
        while True:
            out = self.h2.data_to_send()
            if out:
                self.wire.send(out)
            back = self.wire.read()
            if back:
                self.events += self.h2.receive_data(back)
            elif not out:
                return

    def ask(
        self,
        body: bytes,
        headers: list[tuple[str, str]] | None = None,
        *,
        end: bool = True,
        path: str | None = None,
    ) -> int:
        """Begins a call; sends as much of the body as the windows allow, again and again."""
        fields = list(headers or REQUEST)
        if path is not None:
            fields = [(name, path if name == ":path" else value) for name, value in fields]
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, fields, end_stream=end and not body)
        self.push(stream, body, end=end)
        return stream

    def push(self, stream: int, body: bytes, *, end: bool = True) -> None:
        at = 0
        while at < len(body) and not self.of(h2.events.StreamReset, stream):
            size = min(
                self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, 65_536, len(body) - at
            )
            assert size > 0, "the window never opens"
            self.h2.send_data(stream, body[at : at + size], end_stream=end and at + size == len(body))
            at += size
            self.exchange()
        self.exchange()

    def take(self, stream: int) -> None:
        """Gives the windows back for all data that came on a stream."""
        for event in self.events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id == stream and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                event.flow_controlled_length = 0
        self.exchange()

    def body(self, stream: int) -> bytes:
        return b"".join(e.data for e in self.events if isinstance(e, h2.events.DataReceived) and e.stream_id == stream)

    def fields(self, stream: int) -> dict[str, str]:
        """All header fields and trailers of the answer."""
        found: dict[str, str] = {}
        for event in self.events:
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived) and event.stream_id == stream:
                found.update(dict(event.headers))
        return found

    def of(self, kind: type, stream: int) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind) and getattr(e, "stream_id", 0) == stream]


def until(condition: Callable[[], bool], wire: Wire, turns: int = 200) -> None:
    """Lets callbacks run until something is so."""
    for _ in range(turns):
        if condition():
            return
        wire.turn()
    raise AssertionError("it did not happen")
