"""The processes around a router in the benchmark of its observers: a model, and a sink of events.

Run as `python -m bench.serving_observer_peers model|sink SOCKET_FD ...`.
"""

import asyncio
import socket
import struct
import sys
import time

FRAME = struct.Struct("<IQ")
"""Bytes of the body, number of the request."""


def model(descriptor: int, microseconds: float) -> None:
    """Answers requests with as many bytes as they have, after so much work for each."""
    connection = socket.socket(fileno=descriptor)
    buffer = bytearray()
    while chunk := connection.recv(1 << 18):
        buffer += chunk
        answers = []
        while len(buffer) >= FRAME.size:
            length, number = FRAME.unpack_from(buffer)
            if len(buffer) < FRAME.size + length:
                break
            body = bytes(buffer[FRAME.size : FRAME.size + length])
            del buffer[: FRAME.size + length]
            end = time.perf_counter() + microseconds / 1e6
            while time.perf_counter() < end:
                pass
            answers.append(FRAME.pack(len(body), number) + body)
        connection.sendall(b"".join(answers))


class Sink(asyncio.Protocol):
    """Takes POST requests of HTTP/1.1 and says 202, as cheaply as Python can."""

    def connection_made(self, transport):
        self._transport = transport
        self._buffer = b""

    def data_received(self, data):
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._transport.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")


def sink(descriptor: int) -> None:
    """Serves on a listening socket."""

    async def run():
        server = await asyncio.get_running_loop().create_server(Sink, sock=socket.socket(fileno=descriptor))
        await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    if sys.argv[1] == "model":
        model(int(sys.argv[2]), float(sys.argv[3]))
    else:
        sink(int(sys.argv[2]))
