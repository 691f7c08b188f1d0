"""Export and import: `GET /metadata/v1/export`, `POST /metadata/v1/import`, `POST /api/v1/lineage`."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from mlmesh_kit.access import Access
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.http import route
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mlmesh_metadata.exporting import export_jsonl, export_openlineage
from mlmesh_metadata.importing import Batches, JsonLinesImport, Summary
from mlmesh_metadata.openlineage_import import OpenLineageImport
from mlmesh_metadata.store import Store

MAX_LINE_BYTES = 1 << 20
MAX_EVENT_BYTES = 8 << 20
BATCH_LINES = 500
_BATCH_BYTES = 8 << 20
_EXPORTS: dict[str, Callable[[Store], Iterator[bytes]]] = {"jsonl": export_jsonl, "openlineage": export_openlineage}
_IMPORTS: dict[str, Callable[[Store], Batches]] = {"jsonl": JsonLinesImport, "openlineage": OpenLineageImport}


class ExchangeRoutes:
    """Takes everything out, and puts it in.

    Args:
        store: Where everything is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> Sequence[Route]:
        """Gives the routes."""
        read, write = Access("get", "metadata"), Access("update", "metadata")
        return [
            route("/metadata/v1/export", self.export, access=read),
            route("/metadata/v1/import", self.take, access=write, methods=["POST"]),
            # Where OpenLineage's HTTP transport sends its events, so that its producers can be pointed here.
            route("/api/v1/lineage", self.event, access=write, methods=["POST"]),
        ]

    async def export(self, request: Request) -> Response:
        """Streams everything, a line each."""
        name = _format(request, _EXPORTS)
        return StreamingResponse(
            _in_threads(_EXPORTS[name](self._store)),
            media_type="application/x-ndjson",
            headers={"Content-Disposition": f'attachment; filename="metadata.{name}.ndjson"'},
        )

    async def take(self, request: Request) -> Response:
        """Reads lines and stores them, a batch in a transaction."""
        into = _IMPORTS[_format(request, _IMPORTS)](self._store)
        _check_encoding(request)
        summary = Summary()
        async for batch in _batches(request):
            try:
                summary.add(await asyncio.to_thread(into.put, batch))
            except InvalidArgument as error:
                kept = f"lines 1 to {summary.lines} are stored" if summary.lines else "nothing was stored"
                field, text = error.violations[0] if error.violations else ("", error.message)
                raise InvalidArgument(
                    f"{text}; {kept}, and nothing after them; the file can be imported again", field=field
                ) from error
        if not summary.lines:
            raise InvalidArgument("has no line", field="body")
        return JSONResponse(summary.plain())

    async def event(self, request: Request) -> Response:
        """Stores one event of OpenLineage."""
        _check_encoding(request)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_EVENT_BYTES:
                raise InvalidArgument(f"must be at most {MAX_EVENT_BYTES} bytes", field="body")
        await asyncio.to_thread(OpenLineageImport(self._store).put_one, bytes(body))
        return Response(status_code=201)


def _format(request: Request, known: Sequence[str] | dict[str, object] | object) -> str:
    name = request.query_params.get("format", "jsonl")
    if name not in known:  # type: ignore[operator]
        raise InvalidArgument("must be jsonl or openlineage", field="format")
    return name


def _check_encoding(request: Request) -> None:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidArgument("must not be compressed", field="content-encoding")


async def _in_threads(pages: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Takes each page in a thread; when the client has gone, lets go of the transaction that the pages are from."""
    try:
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            if page:
                yield page
    finally:
        asyncio.get_running_loop().run_in_executor(None, _close, pages)


def _close(pages: Iterator[bytes]) -> None:
    while True:
        try:
            pages.close()  # type: ignore[attr-defined]
            return
        except ValueError:  # a thread is still at a page
            time.sleep(0.05)


async def _batches(request: Request) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Gives the body's lines with their numbers; empty ones are passed over."""
    number, rest, size = 0, bytearray(), 0
    batch: list[tuple[int, bytes]] = []
    async for chunk in _with_end(request.stream()):
        *lines, last = (rest + chunk).split(b"\n")
        rest = bytearray(last)
        for line in [*lines, rest] if len(rest) > MAX_LINE_BYTES else lines:
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise InvalidArgument(f"is longer than {MAX_LINE_BYTES} bytes", field=f"line {number}")
            if line.strip():
                batch.append((number, bytes(line)))
                size += len(line)
            if len(batch) >= BATCH_LINES or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


async def _with_end(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Ends the last line."""
    async for chunk in chunks:
        yield chunk
    yield b"\n"
