"""The one interceptor: what surrounds every RPC of every service.

In order: decode the request, name the caller, check access, run the handler (on the loop or in a thread), map what it
raises to a status, count, trace and log. Handlers hold none of this.
"""

import asyncio
import contextvars
import functools
import inspect
import ipaddress
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from opentelemetry import trace
from opentelemetry.trace import Span, Tracer

from mlmesh_kit.access import (
    IN_DOMAIN,
    Access,
    AccessChecker,
    AccessRule,
    namespace_of,
    set_checker,
)
from mlmesh_kit.config import ServiceSettings
from mlmesh_kit.errors import Internal, InvalidArgument, ServiceError, Unauthenticated, Unimplemented, to_status
from mlmesh_kit.identity import USER_HEADER, Caller, set_caller
from mlmesh_kit.telemetry import RPC_IN_FLIGHT, RPC_SECONDS, RPC_TOTAL, QuietSpan, exports_traces, start_server_span

logger = logging.getLogger(__name__)

STATUS_DETAILS_KEY = "grpc-status-details-bin"
QUICK = "mlmesh_quick"
"""Attribute of a plain handler: a function that says of a request whether it is answered without waiting for anything,
in well under a millisecond. Such a call stays on the event loop, for going to a thread and back would take longer."""
_MAX_MESSAGE_LENGTH = 4096  # of an error, percent-encoded: it travels in an HTTP/2 trailer
_MAX_TRAILERS = 7000  # clients take 8192 bytes of trailers, and drop the answer when there are more


def caller_of(user: str | None, settings: ServiceSettings) -> Caller:
    """Names the caller from the ingress's header; without one, on loopback, it is the local user."""
    if user is None and is_loopback(settings.host):
        user = settings.local_user
    return Caller(user or "", settings.default_namespace)


def one_user(values: Sequence[str]) -> str | None:
    """Reads the user's header: None where there is none, "" (nobody) where there are several.

    The ingress sets one. A second is a forgery beside it, and would fool whoever reads the other of the two.
    """
    if len(values) > 1:
        return ""
    return values[0] if values else None


def is_loopback(host: str) -> bool:
    """Tells whether `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith("unix:")


def escaped(error: Exception) -> Internal:
    """Stands in for an exception that nobody meant for the client; the log has the whole of it."""
    span = trace.get_current_span().get_span_context()
    logger.error("unexpected %s", type(error).__name__, exc_info=error)
    return Internal(f"internal error (trace {span.trace_id:032x})" if span.is_valid else "internal error")


# Finding a metric by its labels takes longer than counting with it.
_seconds = functools.cache(RPC_SECONDS.labels)
_total = functools.cache(RPC_TOTAL.labels)


def count_call(method: str, code: str, seconds: float) -> None:
    """Counts a call that has ended with a code."""
    _seconds(method).observe(seconds)
    _total(method, code).inc()


class Surroundings:
    """What an RPC and an HTTP request have in common: caller, access, trace, metrics, errors.

    Args:
        settings: Of the service.
        checker: Decides about access.
        tracer: Makes the spans.
        loop: The server's event loop.
    """

    def __init__(
        self, settings: ServiceSettings, checker: AccessChecker, tracer: Tracer, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.settings = settings
        self._checker = checker
        self._tracer = tracer
        self._loop = loop
        self._exports = exports_traces()

    async def admit(self, rule: AccessRule, user: str | None, request: Any) -> None:
        """Sets the caller of this context and checks that they may.

        Raises:
            Unauthenticated, PermissionDenied, Unavailable: see `AccessChecker.check`.
        """
        caller = caller_of(user, self.settings)
        asks = isinstance(rule, Access) and rule.namespace is not IN_DOMAIN
        found = self.admit_fast(rule, caller, namespace_of(rule, request) if asks else "")  # type: ignore[arg-type]
        if not isinstance(found, Caller):
            await found

    def admit_fast(self, rule: AccessRule, caller: Caller, wanted: str) -> Caller | Coroutine[Any, Any, Caller]:
        """As `admit`, without waiting where the decision is remembered.

        Args:
            rule: Of the RPC.
            caller: Who calls.
            wanted: Namespace that the request names; "": none.

        Returns:
            The caller, or a coroutine that asks, and gives the caller. Both set the caller of their context.
        """
        set_checker(self._checker, self._loop)
        set_caller(caller)
        if not isinstance(rule, Access):
            return caller
        if rule.namespace is IN_DOMAIN:
            if not caller.user:
                raise Unauthenticated(f"no user: the ingress sets the header {USER_HEADER}")
            return caller
        decided = self._checker.recall(caller, rule.verb, rule.resource, wanted)
        if decided is None:
            return self._ask(rule, caller, wanted)
        return _settled(caller, wanted, decided)

    async def _ask(self, rule: Access, caller: Caller, wanted: str) -> Caller:
        return _settled(caller, wanted, await self._checker.check(caller, rule.verb, rule.resource, wanted))

    def caller(self, users: Sequence[str]) -> Caller:
        """Names the caller from the values of the user's header."""
        return caller_of(one_user(users), self.settings)

    def span(self, method: str, headers: list[tuple[str, str]]) -> Span:
        """Starts the span of a call; where none is exported, one that costs next to nothing."""
        if self._exports:
            return start_server_span(self._tracer, method, headers)
        return QuietSpan(headers)

    @contextmanager
    def observed(self, method: str, headers: list[tuple[str, str]]) -> Iterator[list[str]]:
        """Times, counts and traces the block; the block puts the code it ended with into the list given."""
        outcome = ["OK"]
        started = time.perf_counter()
        RPC_IN_FLIGHT.inc()
        span = start_server_span(self._tracer, method, headers)
        try:
            with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
                yield outcome
        finally:
            RPC_IN_FLIGHT.dec()
            count_call(method, outcome[0], time.perf_counter() - started)


def _settled(caller: Caller, wanted: str, decided: str) -> Caller:
    """Gives the caller with the namespace that was decided for a request that names none."""
    if not wanted and decided != caller.default_namespace:
        caller = Caller(caller.user, decided)
        set_caller(caller)
    return caller


class MeshInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps every handler once, then serves the wrapped one.

    Args:
        surroundings: Shared with the HTTP routes.
        rules: Full method name (`/package.Service/Method`) → access rule. A method that is not there is not ours
            (health, reflection) and passes untouched.
        pool: Where plain (not async) handlers run.
    """

    def __init__(self, surroundings: Surroundings, rules: Mapping[str, AccessRule], pool: Executor) -> None:
        self._around = surroundings
        self._rules = rules
        self._pool = pool
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Called by grpc for each RPC."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        rule = self._rules.get(method)
        if handler is None or rule is None:
            return handler
        wrapped = self._wrap(method, handler, rule)
        self._wrapped[method] = wrapped
        return wrapped

    def _wrap(self, method: str, handler: Any, rule: AccessRule) -> Any:
        decode = _decoder(handler.request_deserializer)
        serialize = _encoder(handler.response_serializer)
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(method, handler.stream_stream, rule, decode, request_streaming=True), None, serialize
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, handler.unary_stream, rule, decode, request_streaming=False), None, serialize
            )
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(
                self._unary(method, handler.stream_unary, rule, decode, request_streaming=True), None, serialize
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, handler.unary_unary, rule, decode, request_streaming=False), None, serialize
        )

    def _unary(
        self,
        method: str,
        behavior: Callable[..., Any],
        rule: AccessRule,
        decode: Callable[[Any], Any],
        *,
        request_streaming: bool,
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        is_async = inspect.iscoroutinefunction(behavior)
        is_quick: Callable[[Any], bool] | None = getattr(behavior, QUICK, None)

        async def handle(raw: Any, context: Any) -> Any:
            user, headers = _headers(context)
            with self._around.observed(method, headers) as outcome:
                try:
                    request = _decoded(raw, decode) if request_streaming else decode(raw)
                    await self._around.admit(rule, user, None if request_streaming else request)
                    if is_async:
                        return await behavior(request, context)
                    if is_quick is not None and is_quick(request):
                        return behavior(request, context)
                    run = contextvars.copy_context().run
                    return await asyncio.get_running_loop().run_in_executor(self._pool, run, behavior, request, context)
                except Exception as error:
                    failure = failure_of(error)
                    outcome[0] = failure.code.name
            return await _abort(context, failure)

        return handle

    def _streaming(
        self,
        method: str,
        behavior: Callable[..., Any],
        rule: AccessRule,
        decode: Callable[[Any], Any],
        *,
        request_streaming: bool,
    ) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def handle(raw: Any, context: Any) -> AsyncIterator[Any]:
            user, headers = _headers(context)
            failure: ServiceError | None = None
            with self._around.observed(method, headers) as outcome:
                try:
                    request = _decoded(raw, decode) if request_streaming else decode(raw)
                    await self._around.admit(rule, user, None if request_streaming else request)
                    answers = behavior(request, context)
                    if inspect.isawaitable(answers):  # a base class's UNIMPLEMENTED
                        answers = await answers
                    async for answer in answers:
                        yield answer
                except Exception as error:
                    failure = failure_of(error)
                    outcome[0] = failure.code.name
            if failure is not None:
                await _abort(context, failure)

        return handle


def _headers(context: Any) -> tuple[str | None, list[tuple[str, str]]]:
    users = []
    headers = []
    for key, value in context.invocation_metadata() or ():
        if key == USER_HEADER:
            users.append(value)
        elif key in {"traceparent", "tracestate"}:
            headers.append((key, value))
    return one_user(users), headers


def _decoder(deserialize: Callable[[bytes], Any] | None) -> Callable[[Any], Any]:
    if deserialize is None:
        return lambda raw: raw

    def decode(raw: bytes) -> Any:
        try:
            return deserialize(raw)
        except (DecodeError, ValueError, RecursionError) as error:
            raise InvalidArgument("the request is not a valid message of its type") from error

    return decode


def _encoder(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
    """Lets a handler answer with bytes where it has its answer encoded already."""
    if serialize is None:
        return None
    return lambda answer: answer if type(answer) is bytes else serialize(answer)


async def _decoded(stream: AsyncIterator[Any], decode: Callable[[Any], Any]) -> AsyncIterator[Any]:
    async for raw in stream:
        yield decode(raw)


def failure_of(error: Exception) -> ServiceError:
    """Gives what the client sees of an exception."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, NotImplementedError):  # what generated base classes raise
        return Unimplemented("this RPC is not served yet")
    return escaped(error)


async def _abort(context: Any, error: ServiceError) -> None:
    message, details = status_of(error)
    trailers = () if details is None else ((STATUS_DETAILS_KEY, details),)
    await context.abort(error.code, message, trailers)


def status_of(error: ServiceError) -> tuple[str, bytes | None]:
    """Gives an error's message and details (a serialized `google.rpc.Status`), cut to what an answer can carry."""
    status = to_status(error)
    status.message, length = _fitting(status.message)
    if error.details and length + status.ByteSize() * 4 / 3 <= _MAX_TRAILERS:  # in base 64
        return status.message, status.SerializeToString()
    return status.message, None


def _fitting(message: str) -> tuple[str, int]:
    """Cuts a message to what an answer can carry; gives its length on the wire, too."""
    length = 0
    for number, character in enumerate(message):
        more = 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode(errors="replace"))
        if length + more > _MAX_MESSAGE_LENGTH:
            return message[:number], length
        length += more
    return message, length
