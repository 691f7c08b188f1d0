"""May this caller do this? One table per service, one question to the profile service, answers cached for seconds."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc

from mlmesh_kit.errors import PermissionDenied, Unauthenticated, Unavailable
from mlmesh_kit.identity import USER_HEADER, Caller, current_caller


class _InDomain:
    """The domain knows the namespace, the request does not (a run by id)."""

    def __repr__(self) -> str:
        return "IN_DOMAIN"


IN_DOMAIN: Final = _InDomain()

NamespaceOf = str | Callable[[Any], str] | _InDomain | None


@dataclass(frozen=True, slots=True)
class Access:
    """What an RPC or a route asks for.

    Args:
        verb: Kubernetes verb or one of the service's own (run, terminate, infer).
        resource: Plural, lower case.
        namespace: Field path in the request, a function of the request, IN_DOMAIN, or None (the caller's default).
    """

    verb: str
    resource: str
    namespace: NamespaceOf = None


class _Public:
    def __repr__(self) -> str:
        return "PUBLIC"


PUBLIC: Final = _Public()
"""Everybody may: health, server metadata."""

AccessRule = Access | _Public
AccessTable = Mapping[str, Mapping[str, AccessRule]]
"""Full service name → RPC name → rule."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of a review: whether, why not, and in which namespace it was decided."""

    allowed: bool
    reason: str
    namespace: str


class AccessReviewer(Protocol):
    """Answers whether a user may use a verb on a resource in a namespace."""

    async def review(self, user: str, verb: str, resource: str, namespace: str, name: str) -> Decision:
        """Decides. An empty namespace means the user's default.

        Raises:
            Unavailable: the question could not be answered; the caller must treat that as no.
        """
        ...


class LocalReviewer:
    """Without a profile service: the local user may do everything, nobody else anything."""

    def __init__(self, local_user: str, default_namespace: str) -> None:
        self._user = local_user
        self._namespace = default_namespace

    async def review(self, user: str, verb: str, resource: str, namespace: str, name: str) -> Decision:
        """See AccessReviewer."""
        if user == self._user:
            return Decision(True, "", namespace or self._namespace)
        return Decision(False, "this mesh has a single local user", namespace)


class RemoteReviewer:
    """Asks `mlmesh.profile.v1.AccessService`, through a channel that reconnects by itself.

    Args:
        address: host:port of the profile service.
        timeout_seconds: Longest wait for an answer; after it the caller gets UNAVAILABLE.
    """

    def __init__(self, address: str, *, timeout_seconds: float = 2.0) -> None:
        from mlmesh_protos.mlmesh.profile.v1 import access_pb2, access_pb2_grpc

        self._request = access_pb2.ReviewAccessRequest
        options = [("grpc.max_reconnect_backoff_ms", 1000), ("grpc.initial_reconnect_backoff_ms", 100)]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._stub: Any = access_pb2_grpc.AccessServiceStub(self._channel)
        self._timeout = timeout_seconds

    async def review(self, user: str, verb: str, resource: str, namespace: str, name: str) -> Decision:
        """See AccessReviewer."""
        request = self._request(user=user, verb=verb, resource=resource, namespace=namespace, name=name)
        try:
            answer = await self._stub.ReviewAccess(
                request, timeout=self._timeout, metadata=((USER_HEADER, user),), wait_for_ready=True
            )
        except grpc.aio.AioRpcError as error:
            raise Unavailable(
                f"the access check could not be made ({error.code().name}); try again", retry_after_seconds=1
            ) from error
        return Decision(answer.allowed, answer.reason, answer.namespace or namespace)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close(None)


DENIAL_SECONDS = 0.5
"""How long a refusal is remembered: enough to blunt a flood, too short to bother who was just given a role."""


class AccessChecker:
    """Reviews with a short memory, so that a busy caller costs one question every few seconds.

    Args:
        reviewer: Who decides.
        cache_seconds: How long an answer holds; 0 asks each time. Also how long a revocation may take.
        max_entries: Answers remembered; the oldest go first.
    """

    def __init__(self, reviewer: AccessReviewer, *, cache_seconds: float = 3.0, max_entries: int = 10_000) -> None:
        self._reviewer = reviewer
        self._cache_seconds = cache_seconds
        self._max_entries = max_entries
        self._known: dict[tuple[str, str, str, str], tuple[float, Decision]] = {}

    async def check(self, caller: Caller, verb: str, resource: str, namespace: str = "", name: str = "") -> str:
        """Returns the namespace if the caller may.

        Names are left out of the cache's key, since roles are given per namespace, not per name.

        Raises:
            Unauthenticated: nobody is calling.
            PermissionDenied: the caller may not.
            Unavailable: it could not be decided.
        """
        known = self.recall(caller, verb, resource, namespace)
        if known is not None:
            return known
        now = time.monotonic()
        decision = await self._reviewer.review(caller.user, verb, resource, namespace, name)
        key = (caller.user, verb, resource, namespace)
        self._known.pop(key, None)
        while len(self._known) >= self._max_entries:
            self._known.pop(next(iter(self._known)))
        hold = self._cache_seconds if decision.allowed else min(self._cache_seconds, DENIAL_SECONDS)
        self._known[key] = (now + hold, decision)
        return _allowed(decision, *key)

    def recall(self, caller: Caller, verb: str, resource: str, namespace: str = "") -> str | None:
        """Does what `check` does where the answer is remembered; None: it is not, and has to be asked for.

        Raises:
            Unauthenticated, PermissionDenied: as `check`.
        """
        if not caller.user:
            raise Unauthenticated(f"no user: the ingress sets the header {USER_HEADER}")
        key = (caller.user, verb, resource, namespace)
        known = self._known.get(key)
        if known is None or known[0] <= time.monotonic():
            return None
        return _allowed(known[1], *key)


def _allowed(decision: Decision, user: str, verb: str, resource: str, namespace: str) -> str:
    if not decision.allowed:
        where = f" in namespace {namespace!r}" if namespace else ""
        raise PermissionDenied(f"{user} may not {verb} {resource}{where}: {decision.reason}".rstrip(": "))
    return decision.namespace


_checker: ContextVar[tuple[AccessChecker, asyncio.AbstractEventLoop] | None] = ContextVar("mlmesh_access", default=None)


def set_checker(checker: AccessChecker, loop: asyncio.AbstractEventLoop) -> None:
    """Makes `require` work in the current context (the server does, once)."""
    _checker.set((checker, loop))


async def arequire(verb: str, resource: str, namespace: str = "", name: str = "") -> str:
    """Checks in an async handler, once the domain knows the namespace; returns the namespace. Raises as `check`."""
    found = _checker.get()
    if found is None:
        raise RuntimeError("arequire() is for handlers: no access checker in this context")
    return await found[0].check(current_caller(), verb, resource, namespace, name)


def require(verb: str, resource: str, namespace: str = "", name: str = "") -> str:
    """As `arequire`, for plain handlers, which run in threads."""
    found = _checker.get()
    if found is None:
        raise RuntimeError("require() is for handlers: no access checker in this context")
    checker, loop = found
    question = checker.check(current_caller(), verb, resource, namespace, name)
    try:
        return asyncio.run_coroutine_threadsafe(question, loop).result(timeout=10)
    except FutureTimeoutError as error:
        raise Unavailable("the access check took too long; try again", retry_after_seconds=1) from error


def namespace_of(rule: Access, request: Any) -> str:
    """Reads the namespace that a request names, by its rule; "" where it names none."""
    where = rule.namespace
    if where is None or isinstance(where, _InDomain):
        return ""
    if callable(where):
        return where(request)
    value = request
    for part in where.split("."):
        value = getattr(value, part, "")
    text = str(value or "")
    parts = text.split("/")
    return parts[1] if parts[0] == "namespaces" and len(parts) > 1 else text
