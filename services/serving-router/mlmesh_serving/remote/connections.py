"""What all remote backends of the service share: settings, connections, credentials."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from mlmesh_kit.telemetry import trace_headers

from mlmesh_serving.remote.address import RemoteAddress
from mlmesh_serving.remote.grpc_client import GrpcClient, secure_context
from mlmesh_serving.remote.headers import HeaderRules
from mlmesh_serving.remote.hosts import AllowedHosts
from mlmesh_serving.remote.http_client import HttpClient

Credentials = Mapping[str, Mapping[str, str]]


class Connections:
    """Opens connections to servers elsewhere.

    Args:
        hosts: That may be called.
        max_message_bytes: Of a request or an answer.
        headers: Which of a client's headers go on.
        credentials: Authority (`host:port`) → headers that are sent to that server alone.
        ca_file: PEM of the authorities that are trusted for TLS; None: those that the system trusts.
    """

    def __init__(
        self,
        hosts: AllowedHosts,
        max_message_bytes: int,
        headers: HeaderRules | None = None,
        credentials: Credentials | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self.hosts = hosts
        self.max_message_bytes = max_message_bytes
        self._headers = headers or HeaderRules()
        self._credentials = credentials or {}
        self._grpc_tls = secure_context(str(ca_file)) if ca_file is not None else None
        tls = ssl.create_default_context(cafile=str(ca_file)) if ca_file is not None else None
        self.http = HttpClient(hosts, max_message_bytes, tls=tls)

    def grpc(self, address: RemoteAddress) -> GrpcClient:
        """Makes a client of a gRPC server; whoever asks closes it."""
        return GrpcClient(address, self.hosts, self.max_message_bytes, self._grpc_tls)

    def selected(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """Gives those of a client's headers that go on; names in lower case."""
        return self._headers.select(given)

    def headers(self, address: RemoteAddress, given: Mapping[str, str]) -> dict[str, str]:
        """Gives the headers that a request to a server has: those of the client that go on, the trace, credentials.

        Args:
            address: Of the server.
            given: The client's; names in lower case.
        """
        own = self._credentials.get(address.authority)
        found = self._headers.select(given) if given else {}
        found.update(trace_headers())
        if own:
            found.update(own)
        return found

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Closes the connections on leaving."""
        try:
            yield
        finally:
            await self.http.close()


def read_credentials(path: Path) -> Credentials:
    """Reads the file of credentials: JSON, `{"host:port": {"authorization": "Bearer ..."}}`.

    Raises:
        ValueError: It cannot be read, or has another form; the message holds nothing of its content.
    """
    try:
        found: Any = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        raise ValueError(f"{path} is no JSON file that can be read") from None
    if not isinstance(found, dict) or not all(_is_headers(headers) for headers in found.values()):
        raise ValueError(f"{path} must hold an object of host:port → headers (name → text)")
    return {authority: {name.lower(): value for name, value in headers.items()} for authority, headers in found.items()}


def _is_headers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(text, str) and text.isascii() and text.isprintable() for text in value.values()
    )
