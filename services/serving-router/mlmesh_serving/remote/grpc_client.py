"""Unary gRPC calls as bytes to one server."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import grpc
from mlmesh_kit.errors import DeadlineExceeded

from mlmesh_serving.remote.address import RemoteAddress
from mlmesh_serving.remote.errors import of_status
from mlmesh_serving.remote.hosts import AllowedHosts

Metadata = Sequence[tuple[str, str]]


class UnaryClient(Protocol):
    """Calls unary methods of one server."""

    async def call(self, method: str, message: bytes, metadata: Metadata, seconds: float, stage: str) -> bytes:
        """Calls a method.

        Args:
            method: `/package.Service/Method`.
            message: The request, serialized.
            metadata: Sent along; names in lower case.
            seconds: For the answer; the server is told (grpc-timeout).
            stage: Who is asked, for messages.

        Raises:
            ServiceError: Of the status that the server gave; Unavailable where it cannot be reached.
        """
        ...

    async def close(self) -> None:
        """Ends the connections."""


class AioClient:
    """By grpc.aio.

    Args:
        address: Of the server.
        hosts: That may be called.
        max_bytes: Of a message, either way.
        root_certificates: PEM, for TLS; None: as grpc trusts.
    """

    def __init__(
        self, address: RemoteAddress, hosts: AllowedHosts, max_bytes: int, root_certificates: bytes | None = None
    ) -> None:
        self._address = address
        self._hosts = hosts
        self._max_bytes = max_bytes
        self._roots = root_certificates
        self._opening = asyncio.Lock()
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Any] = {}

    async def call(self, method: str, message: bytes, metadata: Metadata, seconds: float, stage: str) -> bytes:
        """See UnaryClient."""
        made = self._methods.get(method)
        if made is None:
            channel = await self._opened()
            made = self._methods[method] = channel.unary_unary(method, None, None)
        try:
            answer: bytes = await made(message, metadata=metadata, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error, stage) from error
        return answer

    def _failure(self, error: grpc.aio.AioRpcError, stage: str) -> Exception:
        code = error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{stage} did not answer in time")
        if code is grpc.StatusCode.UNAVAILABLE:  # its own words may name addresses of our network
            return of_status(code, f"{self._address.authority} cannot be reached, or is not ready", stage, 1)
        return of_status(code, error.details() or "", stage)

    async def _opened(self) -> grpc.aio.Channel:
        async with self._opening:
            if self._channel is None:
                self._channel = self._open(await self._hosts.resolve(self._address.host, self._address.port))
            return self._channel

    def _open(self, addresses: list[str]) -> grpc.aio.Channel:
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", self._max_bytes),
            ("grpc.max_send_message_length", self._max_bytes),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.default_authority", self._address.authority),
        ]
        family = "ipv6" if ":" in addresses[0] else "ipv4"
        same = [address for address in addresses if (":" in address) == (family == "ipv6")]
        target = (
            family
            + ":"
            + ",".join(
                f"[{address}]:{self._address.port}" if family == "ipv6" else f"{address}:{self._address.port}"
                for address in same
            )
        )
        if not self._address.is_secure:
            return grpc.aio.insecure_channel(target, options)
        options.append(("grpc.ssl_target_name_override", self._address.host))
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(self._roots), options)

    async def close(self) -> None:
        """See UnaryClient."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None
            self._methods.clear()
