"""Unary gRPC calls as bytes to servers that users name: addresses checked when connecting, with TLS if they say so."""

import asyncio
import ssl
from collections.abc import Callable, Sequence

import grpc
from mlmesh_kit.errors import DeadlineExceeded, ServiceError, Unavailable
from mlmesh_kit.http2.client import RawClient
from mlmesh_kit.http2.client_connection import ClientConnection

from mlmesh_serving.remote.address import RemoteAddress
from mlmesh_serving.remote.dialling import dial
from mlmesh_serving.remote.errors import printable
from mlmesh_serving.remote.hosts import AllowedHosts

Metadata = Sequence[tuple[str, str]]
_CONNECTIONS = 4


class GrpcClient:
    """Calls one server. Made, and used, on the event loop.

    Args:
        address: Of the server.
        hosts: That may be called.
        max_bytes: Of an answer.
        tls: For grpcs; None: as the system trusts.
    """

    def __init__(
        self, address: RemoteAddress, hosts: AllowedHosts, max_bytes: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self._address = address
        self._hosts = hosts
        self._tls = (tls or secure_context()) if address.is_secure else None
        self._client = RawClient(
            address.authority,
            connections=_CONNECTIONS,
            message_bytes=max_bytes,
            secure=address.is_secure,
            connect=self._connect,
        )

    def call(self, method: str, message: bytes, metadata: Metadata, seconds: float) -> "asyncio.Future[bytes]":
        """Calls a method.

        Args:
            method: `/package.Service/Method`.
            message: The request, serialized.
            metadata: Sent along; names in lower case.
            seconds: For the answer; the server is told (grpc-timeout).

        Returns:
            A future of the answer, serialized. It gets a ServiceError as the server said it, with its details, or
            Unavailable where the server cannot be reached. Cancelling it cancels the call.
        """
        return self._client.call(method, message, timeout=seconds, metadata=metadata)

    async def _connect(self, make: Callable[[], ClientConnection]) -> tuple[asyncio.BaseTransport, ClientConnection]:
        try:
            transport, connection = await dial(make, self._address, self._hosts, self._tls)
        except ServiceError as error:
            raise OSError(error.message) from error
        if self._tls is not None and transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            connection.abort()
            raise OSError("it does not speak HTTP/2")
        return transport, connection

    async def close(self) -> None:
        """Ends the connections."""
        await self._client.close()


def secure_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Makes the TLS settings of gRPC.

    Args:
        ca_file: PEM of the authorities that are trusted; None: those that the system trusts.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["h2"])
    return context


def said_by(error: ServiceError, stage: str) -> ServiceError:
    """Gives what a call ended with as our client is told it: the same code and details, and who it was.

    Args:
        error: Of a future that `GrpcClient.call` gave.
        stage: Who was asked.
    """
    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"{stage} did not answer in time")
    text = f"{stage}: {printable(error.message) or error.code.name}"
    if error.code is grpc.StatusCode.CANCELLED:  # by the server, as it ends: nobody here has cancelled it
        return Unavailable(text, retry_after_seconds=1)
    error.message = text
    error.args = (text,)
    return error
