"""Raw methods: unary RPCs that are answered as bytes, with all that surrounds an RPC and little that costs."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from mlmesh_kit.access import IN_DOMAIN, Access, AccessRule
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.http2.request_head import RequestHead
from mlmesh_kit.identity import Caller
from mlmesh_kit.interceptor import Surroundings
from mlmesh_kit.observation import Observation

if TYPE_CHECKING:
    from mlmesh_kit.http2.call import UnaryCall

RawAnswer = bytes | Awaitable[bytes]
RawHandler = Callable[[bytes, "UnaryCall"], RawAnswer]


@dataclass(frozen=True, slots=True)
class RawMethod:
    """A unary method that takes its request and gives its answer as bytes.

    Args:
        handler: Called on the event loop with the serialized request and the call. Gives the serialized answer, or a
            future of it (cheap: no task is made), or is `async def`. The future or task is cancelled when the client
            cancels or its deadline passes. Errors are raised as anywhere: `mlmesh_kit.errors`.
        namespace: Reads the namespace off the serialized request, for the access rule of the method. None: the rule
            names none, or says IN_DOMAIN or PUBLIC.
    """

    handler: RawHandler
    namespace: Callable[[bytes], str] | None = None


class Method:
    """A raw method in its surroundings.

    Args:
        path: `/package.Service/Method`.
        raw: Handler, and how the namespace is found.
        rule: Who may.
        around: Caller, access, traces, metrics.

    Raises:
        ValueError: The rule needs a namespace that nobody reads off the bytes.
    """

    __slots__ = ("_around", "_namespace", "_rule", "handler", "path")

    def __init__(self, path: str, raw: RawMethod, rule: AccessRule, around: Surroundings) -> None:
        reads = isinstance(rule, Access) and rule.namespace is not None and rule.namespace is not IN_DOMAIN
        if reads and raw.namespace is None:
            raise ValueError(f"raw method {path}: its access rule needs a namespace; say how to read it off the bytes")
        self.path = path
        self.handler = raw.handler
        self._namespace = raw.namespace
        self._rule = rule
        self._around = around

    def begin(self, head: RequestHead) -> Observation:
        """Begins to time, count and trace a call; the current context is the call's own."""
        return Observation(self.path, self._around.span(self.path, head.trace))

    def admit(self, head: RequestHead, message: bytes) -> Caller | Awaitable[Caller]:
        """Names the caller and checks access: at once where the answer is remembered.

        Raises:
            InvalidArgument: The namespace cannot be read off the message.
            Unauthenticated, PermissionDenied, Unavailable: see `AccessChecker.check`.
        """
        wanted = ""
        if self._namespace is not None:
            try:
                wanted = self._namespace(message)
            except (DecodeError, ValueError, RecursionError) as error:
                raise InvalidArgument("the request is not a valid message of its type") from error
        if head.caller is None:
            head.caller = self._around.caller(head.users)
        return self._around.admit_fast(self._rule, head.caller, wanted)


def as_future(answer: Awaitable[bytes], loop: asyncio.AbstractEventLoop) -> "asyncio.Future[bytes]":
    """Gives what a handler returned as a future; a coroutine becomes a task."""
    if asyncio.isfuture(answer):
        return answer
    if asyncio.iscoroutine(answer):
        return loop.create_task(answer)
    raise TypeError(f"a raw handler gives bytes, a future or a coroutine, not {type(answer).__name__}")
