"""How services talk to a Kubernetes cluster: where it is, what its errors mean, and answers that go on.

Needs the package `kubernetes`, which the services that use this depend on; the kit does not.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import urllib3
from kubernetes import client, config
from kubernetes.client.rest import ApiException

from mlmesh_kit.errors import FailedPrecondition, NotFound, PermissionDenied, ServiceError, Unavailable

_Item = TypeVar("_Item")
_CHUNK = 64 << 10
_AHEAD = 16
"""Pieces that are read before they are asked for."""


class Gone(Exception):
    """The version from which was to be watched is too old; list anew."""


class Refused(ServiceError):
    """The cluster says that what we ask is wrong; asking again changes nothing."""

    code = FailedPrecondition.code


def connect(kubeconfig: str = "", context: str = "") -> client.ApiClient:
    """Makes a client of a cluster.

    Args:
        kubeconfig: File that says where it is; empty: of the pod that we run in, or else the user's.
        context: In that file; empty: its current one.

    Raises:
        FailedPrecondition: No cluster is configured.
    """
    settings = client.Configuration()
    try:
        if kubeconfig:
            config.load_kube_config(kubeconfig, context or None, client_configuration=settings)
        else:
            try:
                config.load_incluster_config(client_configuration=settings)
            except config.ConfigException:
                config.load_kube_config(context=context or None, client_configuration=settings)
    except (config.ConfigException, OSError) as error:
        raise FailedPrecondition(f"no cluster is configured: {error}") from error
    settings.retries = False
    return client.ApiClient(settings)


@contextmanager
def cluster_errors(kind: str, name: str) -> Iterator[None]:
    """Turns what the client raises into the kit's errors.

    Args:
        kind: What is asked for.
        name: Which.

    Raises:
        NotFound: It is not there.
        Gone: The version to watch from is too old.
        PermissionDenied: The cluster does not let us.
        Refused: The cluster says that the request is wrong.
        Unavailable: The cluster cannot be reached, or cannot answer.
    """
    try:
        yield
    except ApiException as error:
        raise _service_error(error, kind, name) from error
    except (urllib3.exceptions.HTTPError, OSError, json.JSONDecodeError) as error:
        raise Unavailable("the cluster cannot be reached", retry_after_seconds=1) from error


def _service_error(error: ApiException, kind: str, name: str) -> Exception:
    if error.status == 404:
        return NotFound(kind, name)
    if error.status == 410:
        return Gone()
    if error.status in {401, 403}:
        return PermissionDenied(f"the cluster does not let the service at {kind} {name!r}")
    words = _words(error)
    if error.status in {400, 422}:
        return Refused(f"the cluster refused {kind} {name!r}: {words}")
    return Unavailable(f"the cluster answered {error.status}: {words}", retry_after_seconds=1)


def _words(error: ApiException) -> str:
    try:
        message = json.loads(error.body or "{}").get("message", "")
    except (ValueError, AttributeError):
        message = ""
    return str(message or error.reason)[:500]


class Answer:
    """An answer of the cluster that goes on: a watch, a log.

    Args:
        response: As the client gives it with `_preload_content=False`.
        kind: What was asked for.
        name: Which.
    """

    def __init__(self, response: Any, kind: str, name: str) -> None:
        self._response = response
        self._kind = kind
        self._name = name

    def pieces(self) -> Iterator[bytes]:
        """Gives it as it comes, and closes it in the end. Blocks; raises as `cluster_errors`."""
        with self._closing():
            yield from self._response.stream(_CHUNK)

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Gives the events of a watch, pairs of kind and object, until it ends or says nothing for long. Blocks.

        Raises:
            Gone: The version is too old.
            Unavailable: The cluster ended it, or cannot be reached.
        """
        rest = b""
        with self._closing():
            try:
                for piece in self._response.stream(None):
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in filter(bytes.strip, lines):
                        yield _event(json.loads(line))
            except urllib3.exceptions.ReadTimeoutError:  # the next watch goes on from here
                return

    def end(self) -> None:
        """Ends it, from any thread: who waits for more of it in another one is told that there is none."""
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # it has ended, or has no connection any more
            self._response.shutdown()

    @contextmanager
    def _closing(self) -> Iterator[None]:
        with cluster_errors(self._kind, self._name):
            try:
                yield
            finally:
                self._response.release_conn()
                self._response.close()


def _event(event: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if event["type"] == "ERROR":
        if event["object"].get("code") == 410:
            raise Gone
        raise Unavailable(f"the watch ended: {event['object'].get('message', '')[:200]}")
    return event["type"], event["object"]


async def follow(
    ask: Callable[[], Answer], read: Callable[[Answer], Iterator[_Item]], name: str
) -> AsyncGenerator[_Item, None]:
    """Reads an answer in a thread of its own: who follows what is silent must not hold one of the pool's.

    When nobody reads any more, the answer is ended and its connection closed, whether or not it was silent.

    Args:
        ask: Asks the cluster.
        read: `Answer.pieces` or `Answer.events`.
        name: Of the thread.
    """
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[tuple[_Item] | BaseException | None] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)
    lock = threading.Lock()
    gone = False
    answer: Answer | None = None

    def tell(item: tuple[_Item] | BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(items.put_nowait, item)

    def run() -> None:
        nonlocal answer
        try:
            found = ask()
            with lock:
                answer = found
                if gone:
                    found.end()
            for item in read(found):
                room.acquire()
                if gone:
                    break
                tell((item,))
            tell(None)
        except BaseException as error:
            tell(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        while (item := await items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item[0]
    finally:
        with lock:
            gone = True
            if answer is not None:
                answer.end()
        room.release()
