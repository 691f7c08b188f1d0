"""Servers of the Open Inference Protocol for tests: of gRPC, of HTTP, and ones that do not behave."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import uvicorn
from mlmesh_protos.inference import grpc_service_pb2 as oip


class GrpcModel:
    """A gRPC server with one model that answers what a function makes of the request.

    Args:
        infer: Gives the answer's bytes; may raise through `context.abort`.
        name: Of the model.
        credentials: For TLS; None: without it.
    """

    def __init__(
        self,
        infer: Callable[[bytes, Any], Awaitable[bytes]] | None = None,
        name: str = "there",
        credentials: Any = None,
    ) -> None:
        self.infer = infer or echo
        self._credentials = credentials
        self.name = name
        self.is_ready = True
        self.port = 0
        self.seen: list[tuple[bytes, dict[str, str], float | None]] = []
        self.cancelled = asyncio.Event()
        self._server: Any = None

    async def start(self) -> None:
        """Listens, where it has listened before."""
        handlers = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._infer),
            "ServerReady": grpc.unary_unary_rpc_method_handler(self._server_ready),
            "ModelReady": grpc.unary_unary_rpc_method_handler(self._model_ready),
        }
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)]
        )
        where = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(where)
        else:
            self.port = self._server.add_secure_port(where, self._credentials)
        await self._server.start()

    async def stop(self) -> None:
        """Ends it, with what is in flight."""
        await self._server.stop(None)

    async def _infer(self, message: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        self.seen.append((message, metadata, context.time_remaining()))
        try:
            return await self.infer(message, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _server_ready(self, message: bytes, context: Any) -> bytes:
        return oip.ServerReadyResponse(ready=self.is_ready).SerializeToString()

    async def _model_ready(self, message: bytes, context: Any) -> bytes:
        asked = oip.ModelReadyRequest.FromString(message)
        return oip.ModelReadyResponse(ready=self.is_ready and asked.name == self.name).SerializeToString()


async def echo(message: bytes, context: Any) -> bytes:
    """Answers with the inputs as outputs."""
    request = oip.ModelInferRequest.FromString(message)
    answer = oip.ModelInferResponse(
        model_name=request.model_name,
        model_version=request.model_version or "9",
        id=request.id,
        raw_output_contents=request.raw_input_contents,
    )
    for tensor in request.inputs:
        made = answer.outputs.add()
        made.MergeFromString(tensor.SerializeToString())
    return answer.SerializeToString()


@contextlib.asynccontextmanager
async def grpc_model(*args: Any, **kwargs: Any) -> AsyncIterator[GrpcModel]:
    """Runs a GrpcModel."""
    model = GrpcModel(*args, **kwargs)
    await model.start()
    try:
        yield model
    finally:
        await model.stop()


@contextlib.asynccontextmanager
async def http_server(app: Any, **options: Any) -> AsyncIterator[int]:
    """Runs an ASGI application by uvicorn, with further options of it; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1, **options)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def tcp_server(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Runs a TCP server that does with each connection what it is told to; gives its port."""
    running: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in running:
            task.cancel()


class Wire:
    """A TCP relay to a server that can be cut in the middle of everything, and mended.

    Args:
        behind: Port of the server.
    """

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._server: Any = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0

    async def mend(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Listens no more, and resets every connection."""
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for pump in list(self._pumps):
            pump.cancel()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._behind)
        self._writers |= {writer, back}
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pump(source, target))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                target.write(data)
                await target.drain()
        target.close()


@contextlib.asynccontextmanager
async def wire(behind: int) -> AsyncIterator[Wire]:
    """Runs a Wire."""
    made = Wire(behind)
    await made.mend()
    try:
        yield made
    finally:
        await made.cut()
