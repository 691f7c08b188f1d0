"""Envoy's admin interface, over its unix socket."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any


@contextlib.asynccontextmanager
async def _connect(socket: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    # A socket's path must not be longer than 107 bytes; through the folder's descriptor it never is.
    folder = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{socket.name}")
    finally:
        os.close(folder)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def call(socket: Path, method: str, path: str, timeout_seconds: float = 2.0) -> tuple[int, bytes]:
    """Calls the admin interface; gives status and body.

    Raises:
        OSError: Envoy is not there (TimeoutError is one).
    """
    async with asyncio.timeout(timeout_seconds), _connect(socket) as (reader, writer):
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 3:
        raise OSError("no answer from Envoy")
    if b"transfer-encoding: chunked" in head.lower():
        body = _unchunked(body)
    return int(words[1]), body


def _unchunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        if length == 0:
            break
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)


async def read_health(socket: Path) -> dict[str, bool]:
    """Asks which clusters have a healthy endpoint, by the cluster's name.

    Raises:
        OSError: Envoy is not there.
        ValueError: What it said is not JSON.
    """
    _, body = await call(socket, "GET", "/clusters?format=json")
    answer: dict[str, Any] = json.loads(body)
    return {
        cluster["name"]: any(_is_healthy(host) for host in cluster.get("host_statuses", []))
        for cluster in answer.get("cluster_statuses", [])
    }


def _is_healthy(host: dict[str, Any]) -> bool:
    status = host.get("health_status", {})
    return not any(value is True for name, value in status.items() if name.startswith(("failed_", "pending_")))


async def is_live(socket: Path) -> bool:
    """Tells whether Envoy has started wholly: its listeners accept.

    Raises:
        OSError: Envoy is not there.
    """
    status, _ = await call(socket, "GET", "/ready")
    return status == 200
