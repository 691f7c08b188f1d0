"""The ingress, as the commands talk to it: HTTP and JSON, nothing else."""

import ipaddress
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx

from mlmesh.running import running

_TIMEOUT = httpx.Timeout(60, connect=5)
_PASSING = frozenset({502, 503, 504})
"""Statuses that a service answers with while it restarts."""
_WAIT_SECONDS = 0.2
_SERVICE_OF = {
    "apis": "pipeline",
    "katib": "katib",
    "metadata": "metadata",
    "pipeline": "pipeline",
    "serving": "serving",
    "v1": "serving",
    "v2": "serving",
}


class IngressError(Exception):
    """A request did not end well.

    Args:
        message: What happened, and what to do about it.
        status: HTTP status of the answer; 0 if there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Ingress:
    """A connection to a mesh. A context manager.

    Args:
        url: Of the ingress.
    """

    def __init__(self, url: str) -> None:
        self.url = _checked(url)
        # A proxy from the environment is for the world outside, not for this machine.
        self._http = httpx.Client(base_url=self.url, timeout=_TIMEOUT, trust_env=not _is_local(self.url))

    def __enter__(self) -> "Ingress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, *, patience_seconds: float = 0, **query: Any) -> Any:
        """Reads JSON.

        Args:
            path: Below the ingress.
            patience_seconds: How long a service that is restarting is waited for.
            query: Query parameters; those that are None are left out.

        Raises:
            IngressError: There was no answer, or it was an error.
        """
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                return self._call("GET", path, params={k: v for k, v in query.items() if v is not None})
            except IngressError as error:
                if error.status not in _PASSING | {0} or time.monotonic() > deadline:
                    raise
            time.sleep(_WAIT_SECONDS)

    def pages(self, path: str, field: str, **query: Any) -> Iterator[Any]:
        """Reads a list page by page; arguments and errors as `get`.

        Args:
            path: Below the ingress.
            field: The list's name in the answer.
            query: Query parameters.
        """
        token = None
        while True:
            page = self.get(path, page_token=token, **query)
            yield from page.get(field, [])
            token = page.get("next_page_token")
            if not token:
                return

    def send(self, method: str, path: str, body: Any) -> Any:
        """Sends JSON and reads the JSON that comes back.

        Raises:
            IngressError: There was no answer, or it was an error.
        """
        return self._call(method, path, json=body)

    def lines(self, path: str, **query: Any) -> Iterator[str]:
        """Reads text as it comes, line by line.

        Raises:
            IngressError: There was no answer, or it was an error.
        """
        try:
            with self._http.stream("GET", path, params=query, timeout=httpx.Timeout(None, connect=5)) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._refused("GET", path, answer)
                yield from answer.iter_lines()
        except httpx.HTTPError as error:
            raise self._unanswered(error) from error

    def chunks(self, path: str, /, **query: Any) -> Iterator[bytes]:
        """Reads bytes as they come.

        Raises:
            IngressError: There was no answer, or it was an error.
        """
        try:
            with self._http.stream("GET", path, params=query, timeout=_TIMEOUT) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._refused("GET", path, answer)
                yield from answer.iter_bytes()
        except httpx.HTTPError as error:
            raise self._unanswered(error) from error

    def upload(self, path: str, content: BinaryIO, **query: Any) -> Any:
        """Sends a file as it is read, and reads the JSON that comes back.

        Raises:
            IngressError: There was no answer, or it was an error.
        """
        headers = {"Content-Type": "application/x-ndjson"}
        timeout = httpx.Timeout(None, connect=5)
        return self._call("POST", path, params=query, content=content, headers=headers, timeout=timeout)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise self._unanswered(error) from error
        if not answer.is_success:
            raise self._refused(method, path, answer)
        try:
            return answer.json()
        except ValueError as error:
            raise IngressError(
                f"{self.url}{path} answered something that is not JSON; is that the ingress of a mesh?"
            ) from error

    def _unanswered(self, error: httpx.HTTPError) -> IngressError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return IngressError(
                f"nothing answers at {self.url}; start a mesh with: mlmesh up, or name another with --ingress URL"
            )
        if isinstance(error, httpx.TimeoutException):
            return IngressError(f"{self.url} took too long to answer; see how it is with: mlmesh status")
        return IngressError(f"{self.url}: {error}; see how it is with: mlmesh status")

    def _refused(self, method: str, path: str, answer: httpx.Response) -> IngressError:
        try:
            body: Any = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, Mapping) or not (body.get("message") or body.get("error")):
            text = f"{method} {path}: status {answer.status_code} from {self.url}; is that the ingress of a mesh?"
            return IngressError(text, answer.status_code)
        message = str(body.get("message") or body.get("error"))
        service = _SERVICE_OF.get(path.strip("/").split("/")[0].split("?")[0], "ingress")
        if answer.status_code in _PASSING:
            message += f"; see how the services are with: mlmesh status, and why with: mlmesh logs {service}"
        elif answer.status_code >= 500:
            message += f"; the reason is in: mlmesh logs {service}"
        return IngressError(message, answer.status_code)


def find_ingress(given: str | None, data_dir: Path) -> str:
    """Gives the URL of the ingress: as given, else that of the mesh that runs on the data directory.

    Raises:
        IngressError: No mesh runs there.
    """
    if given:
        return given
    state = running(data_dir)
    if state is None:
        raise IngressError(
            f"no mesh runs on {data_dir}; start one with: mlmesh up, or name one with --data-dir or --ingress URL"
        )
    return state.ingress


def _checked(url: str) -> str:
    full = url if "://" in url else f"http://{url}"
    parts = urlsplit(full)
    try:
        well = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well = False
    if not well:
        raise IngressError(f"{url!r} is not the URL of an ingress; expected something like http://127.0.0.1:8080")
    return full.rstrip("/")


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
