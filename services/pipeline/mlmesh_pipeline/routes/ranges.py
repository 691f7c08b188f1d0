"""Bytes of an object store over HTTP: whole, or the range that was asked for (RFC 9110)."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import BinaryIO, TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from mlmesh_pipeline.artifacts import Content
from mlmesh_pipeline.engine.transfers import in_thread

T = TypeVar("T")

_CHUNK = 1 << 20
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII | re.IGNORECASE)
_MOST_DIGITS = 19


class Reads:
    """Reads from stores, a few at a time. A store that does not answer keeps nobody else waiting.

    Args:
        at_a_time: How many; more wait.
    """

    def __init__(self, at_a_time: int) -> None:
        self._slots = asyncio.Semaphore(at_a_time)

    async def run(self, read: Callable[[], T]) -> T:
        """Runs something that blocks; gives or raises what it does."""
        async with self._slots:
            return await in_thread(lambda _: read())


class NotSatisfiable(ValueError):
    """The range begins behind the end."""


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Gives first byte and length of what a Range header asks for.

    Args:
        header: Its value.
        size: Of what there is.

    Returns:
        None: All is to be sent, since it is no range of bytes, or several.

    Raises:
        NotSatisfiable: There is no byte of it.
    """
    match = _RANGE.fullmatch(header)
    if match is None or max(map(len, match.groups())) > _MOST_DIGITS:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise NotSatisfiable
    return start, end - start


def is_known(request: Request, tag: str) -> bool:
    """Tells whether the client has what a tag is of (If-None-Match)."""
    return tag in [one.strip() for one in request.headers.get("if-none-match", "").split(",")]


async def respond(request: Request, content: Content, reads: Reads) -> Response:
    """Answers a GET or HEAD with the bytes of a content, streamed.

    Args:
        request: What was asked.
        content: What there is.
        reads: Runs what blocks.
    """
    tag = f'"{content.etag}"'
    headers = {
        "accept-ranges": "bytes",
        "etag": tag,
        "content-disposition": f"attachment; filename*=utf-8''{quote(content.filename)}",
    }
    if is_known(request, tag):
        return Response(status_code=304, headers={"etag": tag})
    asked = request.headers.get("range", "")
    if request.headers.get("if-range", tag) != tag:
        asked = ""
    try:
        part = parse_range(asked, content.size) if asked else None
    except NotSatisfiable:
        return PlainTextResponse(status_code=416, headers={"content-range": f"bytes */{content.size}"})
    start, length = part or (0, content.size)
    headers["content-length"] = str(length)
    if part:
        headers["content-range"] = f"bytes {start}-{start + length - 1}/{content.size}"
    status = 206 if part else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="application/octet-stream")
    # Opened before the answer begins, so that what is wrong has a status of its own.
    stream = await reads.run(lambda: content.open(start, length))
    body = _chunks(stream, length, reads)
    return StreamingResponse(body, status, headers=headers, media_type="application/octet-stream")


async def _chunks(stream: BinaryIO, length: int, reads: Reads) -> AsyncIterator[bytes]:
    try:
        while length > 0 and (chunk := await reads.run(partial(stream.read, min(_CHUNK, length)))):
            length -= len(chunk)
            yield chunk
    finally:  # a read that still waits for the store holds the stream's lock
        threading.Thread(target=stream.close, name="close", daemon=True).start()
