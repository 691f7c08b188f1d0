"""Connections to servers that users name: to the very address that was checked."""

import asyncio
import ssl
from collections.abc import Callable
from typing import TypeVar

from mlmesh_serving.remote.address import RemoteAddress
from mlmesh_serving.remote.hosts import AllowedHosts

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def dial(
    make: Callable[[], P], address: RemoteAddress, hosts: AllowedHosts, tls: ssl.SSLContext | None
) -> tuple[asyncio.BaseTransport, P]:
    """Connects to the first address of a server that may be called and answers.

    Args:
        make: The protocol's factory.
        address: Of the server.
        hosts: That may be called.
        tls: None: without TLS.

    Raises:
        Unavailable: The host has no address.
        FailedPrecondition: It has none that may be called.
        OSError: It does not answer.
    """
    loop = asyncio.get_running_loop()
    refused: OSError | None = None
    for found in await hosts.resolve(address.host, address.port):
        try:
            return await loop.create_connection(
                make, found, address.port, ssl=tls, server_hostname=address.host if tls is not None else None
            )
        except OSError as error:
            refused = error
    assert refused is not None, "resolve gives an address or raises"
    raise refused
