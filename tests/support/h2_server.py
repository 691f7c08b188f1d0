"""A server on the library h2 whose answers a test writes itself: for clients, which must bear all of them."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import h2.config
import h2.connection
import h2.events

HEAD = [(":status", "200"), ("content-type", "application/grpc")]

Script = Callable[["H2Peer", int, bytes], None]


class H2Peer(asyncio.Protocol):
    """One connection of the server.

    Args:
        script: Called with the peer, the stream and the body of each request that is there.
        settings: Told to the client.
    """

    def __init__(self, script: Script, settings: Mapping[int, int]) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self._script = script
        self._settings = settings
        self.requests: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.resets: dict[int, int] = {}
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.h2.initiate_connection()
        if self._settings:
            self.h2.update_settings(dict(self._settings))  # type: ignore[arg-type]
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.requests[event.stream_id] = dict(event.headers)  # type: ignore[arg-type]
                self.bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.resets[event.stream_id] = int(event.error_code)
            elif isinstance(event, h2.events.StreamEnded):
                self._script(self, event.stream_id, self.bodies[event.stream_id])
        self.flush()

    def answer(
        self,
        stream: int,
        body: bytes = b"",
        head: list[tuple[str, str]] | None = None,
        end: list[tuple[str, str]] | None = None,
    ) -> None:
        """Sends headers, a body, trailers (None: `grpc-status: 0`; empty: none)."""
        trailers = [("grpc-status", "0")] if end is None else end
        self.h2.send_headers(stream, head or HEAD)
        if body:
            self.h2.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self.h2.send_headers(stream, trailers, end_stream=True)
        elif not body:
            self.h2.end_stream(stream)
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())


class H2Server:
    """Listens on a free port of loopback.

    Args:
        script: As of H2Peer.
        settings: As of H2Peer.
    """

    def __init__(self, script: Script, settings: Mapping[int, int] | None = None) -> None:
        self._script = script
        self._settings = settings or {}
        self.peers: list[H2Peer] = []

    def _peer(self) -> H2Peer:
        self.peers.append(H2Peer(self._script, self._settings))
        return self.peers[-1]

    async def __aenter__(self) -> "H2Server":
        self._server = await asyncio.get_running_loop().create_server(self._peer, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for peer in self.peers:
            peer.transport.abort()
