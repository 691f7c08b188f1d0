"""A service for the kit's tests: `python -m kit_echo_service`. It does what the request's `verb` says."""

import asyncio
import contextlib
import contextvars
import json
import threading
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, ClassVar

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.wrappers_pb2 import StringValue
from mlmesh_kit.access import IN_DOMAIN, PUBLIC, Access, arequire, require
from mlmesh_kit.config import ServiceSettings
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from mlmesh_kit.http import route
from mlmesh_kit.http2.call import UnaryCall
from mlmesh_kit.http2.methods import RawMethod
from mlmesh_kit.identity import current_caller
from mlmesh_kit.raw_routes import RawRequest, RawResponse, RawRoute
from mlmesh_kit.server import ServiceDefinition, Servicer, serve
from mlmesh_protos.mlmesh.profile.v1.access_pb2 import ReviewAccessRequest
from pydantic_settings import SettingsConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

SERVICE = "mlmesh.echo.v1.EchoService"
FLOOD_BYTES = 1 << 16
SECRET = "the-password-is-hunter2"


class Settings(ServiceSettings):
    """`MLMESH_ECHO_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="MLMESH_ECHO_", extra="ignore")
    service: ClassVar[str] = "echo"
    forget_rule: str = ""
    raw: bool = False


def _descriptor() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="echo.proto", package="mlmesh.echo.v1", syntax="proto3")
    file.dependency.extend(["mlmesh/profile/v1/access.proto", "google/protobuf/wrappers.proto"])
    service = file.service.add(name="EchoService")
    for name in ("Do", "DoAsync", "DoInDomain", "Stream", "Chat", "Collect", "Open"):
        service.method.add(
            name=name,
            input_type=".mlmesh.profile.v1.ReviewAccessRequest",
            output_type=".google.protobuf.StringValue",
            client_streaming=name in {"Chat", "Collect"},
            server_streaming=name in {"Stream", "Chat"},
        )
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return descriptor_pool.Default().FindServiceByName(SERVICE)


def _act(verb: str, argument: str) -> str:
    if verb == "invalid":
        raise InvalidArgument.of([("spec.a", "must be a number"), ("spec.b", "is missing")])
    if verb == "missing":
        raise NotFound("thing", argument)
    if verb == "exhausted":
        raise ResourceExhausted("quota of 3 used up", retry_after_seconds=2.5)
    if verb == "precondition":
        raise FailedPrecondition((argument or "x") * 20_000)
    if verb == "violations":
        raise InvalidArgument.of([(f"spec[{argument!r}]", argument * 40)] * 20)
    if verb == "crash":
        raise RuntimeError(SECRET)
    if verb == "unserved":
        raise NotImplementedError
    if verb == "who":
        caller = current_caller()
        return f"{caller.user}/{caller.default_namespace}"
    if verb == "big":
        return "x" * int(argument)
    return f"{verb}:{argument}"


class Echo:
    """The handlers, plain and async."""

    def __init__(self, marks: Path) -> None:
        self._marks = marks
        self.counted = 0

    def _slow(self, verb: str, argument: str) -> bool:
        if verb != "slow":
            return False
        with (self._marks / "slow.began").open("a") as file:
            file.write(".")
        return True

    def Do(self, request: ReviewAccessRequest, context: Any) -> StringValue:
        if self._slow(request.verb, request.name):
            threading.Event().wait(float(request.name))
            (self._marks / "slow.ended").touch()
        return StringValue(value=_act(request.verb, request.name))

    async def DoAsync(self, request: ReviewAccessRequest, context: Any) -> StringValue:
        self.counted += request.verb == "count"
        if self._slow(request.verb, request.name):
            try:
                await asyncio.sleep(float(request.name))
            except asyncio.CancelledError:
                (self._marks / "slow.cancelled").touch()
                raise
        return StringValue(value=_act(request.verb, request.name))

    def DoInDomain(self, request: ReviewAccessRequest, context: Any) -> StringValue:
        return StringValue(value=require("update", "things", request.namespace, request.name))

    async def Stream(self, request: ReviewAccessRequest, context: Any) -> AsyncIterator[StringValue]:
        if request.verb == "flood":
            for number in range(int(request.name)):
                (self._marks / "flood").write_text(str(number + 1))
                yield StringValue(value="x" * FLOOD_BYTES)
            return
        for number in range(3):
            yield StringValue(value=str(number))
        _act(request.verb, request.name)

    async def Chat(self, requests: AsyncIterator[ReviewAccessRequest], context: Any) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield StringValue(value=_act(request.verb, request.name))

    async def Collect(self, requests: AsyncIterator[ReviewAccessRequest], context: Any) -> StringValue:
        await arequire("update", "things", "")
        return StringValue(value=",".join([request.name async for request in requests]))

    def Open(self, request: ReviewAccessRequest, context: Any) -> StringValue:
        return StringValue(value=f"open to {current_caller().user or 'nobody'}")


def _raw_methods(echo: Echo) -> dict[str, RawMethod]:
    """The unary methods again, as bytes: on the loop, in a future and in a task."""

    def namespace(message: bytes) -> str:
        return ReviewAccessRequest.FromString(message).namespace

    def do(message: bytes, call: UnaryCall) -> bytes | asyncio.Future[bytes]:
        request = ReviewAccessRequest.FromString(message)
        if request.verb == "metadata":
            call.trailing_metadata = [("mlmesh-took", "1")]
            return repr(call.metadata).encode()
        if request.verb != "slow":
            return StringValue(value=_act(request.verb, request.name)).SerializeToString()
        context = contextvars.copy_context()
        run = asyncio.get_running_loop().run_in_executor(None, context.run, echo.Do, request, None)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        run.add_done_callback(lambda done: answer.done() or answer.set_result(done.result().SerializeToString()))
        return answer

    async def do_async(message: bytes, call: UnaryCall) -> bytes:
        answer = await echo.DoAsync(ReviewAccessRequest.FromString(message), None)
        return answer.SerializeToString()

    async def do_in_domain(message: bytes, call: UnaryCall) -> bytes:
        request = ReviewAccessRequest.FromString(message)
        found = await arequire("update", "things", request.namespace, request.name)
        return StringValue(value=found).SerializeToString()

    def open_to_all(message: bytes, call: UnaryCall) -> bytes:
        return StringValue(value=f"open to {call.caller.user or 'nobody'}").SerializeToString()

    return {
        f"/{SERVICE}/Do": RawMethod(do, namespace),
        f"/{SERVICE}/DoAsync": RawMethod(do_async, namespace),
        f"/{SERVICE}/DoInDomain": RawMethod(do_in_domain),
        f"/{SERVICE}/Open": RawMethod(open_to_all),
    }


def _add(descriptor: Any) -> Any:
    def add(echo: Echo, server: Any) -> None:
        kinds = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }
        handlers = {
            method.name: kinds[method.client_streaming, method.server_streaming](
                getattr(echo, method.name), ReviewAccessRequest.FromString, StringValue.SerializeToString
            )
            for method in descriptor.methods
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    return add


async def _do(request: Request) -> Response:
    body = await request.body()
    verb = request.path_params["verb"]
    if verb == "size":
        return JSONResponse({"size": len(body)})
    if verb == "slow":
        await asyncio.sleep(1)
    name = request.query_params.get("name") or request.headers.get("x-name", "")
    return JSONResponse({"answer": _act(verb, name)})


def _raw_route(marks: Path) -> RawRoute:
    """The route again, as bytes: at once, in a future and in a task."""

    def do(request: RawRequest) -> RawResponse | Awaitable[RawResponse]:
        verb = request.path_params["verb"]
        if verb == "size":
            return RawResponse(json.dumps({"size": len(request.body)}).encode(), headers=[("X-Size", "1")])
        if verb == "binary":
            return RawResponse(request.body[::-1], "application/octet-stream", [("X-Kind", "binary")])
        if verb == "later":
            answer = asyncio.get_running_loop().create_future()
            answer.get_loop().call_later(0.1, answer.set_result, RawResponse(b"{}"))
            return answer
        if verb == "given-up":
            answer = asyncio.get_running_loop().create_future()
            answer.get_loop().call_soon(answer.cancel)
            return answer
        if verb == "wrong":
            return b"no response"  # type: ignore[return-value]
        return in_task(verb, request)

    async def in_task(verb: str, request: RawRequest) -> RawResponse:
        if verb == "slow":
            try:
                (marks / "raw.began").touch()
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                (marks / "raw.cancelled").touch()
                raise
        answer = _act(verb, request.headers.get("x-name", ""))
        return RawResponse(json.dumps({"answer": answer}).encode())

    access = Access("get", "things", namespace=lambda request: request.headers.get("x-namespace", ""))
    return RawRoute("/raw/{verb}", do, access)


def build(settings: Settings) -> ServiceDefinition:
    """Makes the service."""
    rules: dict[str, Any] = {
        "Do": Access("update", "things", namespace="namespace"),
        "DoAsync": Access("get", "things", namespace="namespace"),
        "DoInDomain": Access("update", "things", namespace=IN_DOMAIN),
        "Stream": Access("list", "things", namespace="namespace"),
        "Chat": Access("update", "things"),
        "Collect": Access("update", "things", namespace=IN_DOMAIN),
        "Open": PUBLIC,
    }
    rules.pop(settings.forget_rule, None)
    marks = settings.service_dir
    echo = Echo(marks)

    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        (marks / "entered").touch()
        yield
        slow_ended = (marks / "slow.ended").exists()
        (marks / "counted").write_text(str(echo.counted))
        (marks / "left").write_text("after the call" if slow_ended else "before the call")

    descriptor = _descriptor()
    access = Access("get", "things", namespace=lambda request: request.query_params.get("namespace", ""))
    return ServiceDefinition(
        name="echo",
        servicers=[Servicer(descriptor, _add(descriptor), echo)],
        access={SERVICE: rules},
        http_routes=[route("/do/{verb}", _do, access=access, methods=["GET", "POST"])],
        raw_routes=[_raw_route(marks)],
        lifespans=[lifespan],
        raw_methods=_raw_methods(echo) if settings.raw else {},
    )


if __name__ == "__main__":
    raise SystemExit(serve(build, Settings))
