"""The gRPC port of a service that has raw methods: our HTTP/2 server, and grpc.aio on a unix socket behind it."""

import asyncio
import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mlmesh_kit.access import AccessRule
from mlmesh_kit.config import ServiceSettings
from mlmesh_kit.http2.methods import Method, RawMethod
from mlmesh_kit.http2.server import Http2Server
from mlmesh_kit.http2.settings import Limits
from mlmesh_kit.http2.upstream import Upstream
from mlmesh_kit.interceptor import Surroundings

_LONGEST_PATH: Final = 107  # of a unix socket, on Linux


class Front:
    """Answers raw methods, and relays the others.

    Args:
        raw_methods: By full method name.
        rules: Access rules of all methods.
        settings: Of the service.
        around: What surrounds each call.

    Raises:
        ValueError: A raw method does not exist, or its access rule cannot be served.
    """

    def __init__(
        self,
        raw_methods: Mapping[str, RawMethod],
        rules: Mapping[str, AccessRule],
        settings: ServiceSettings,
        around: Surroundings,
    ) -> None:
        unknown = raw_methods.keys() - rules.keys()
        if unknown:
            raise ValueError(f"raw methods that no servicer has: {', '.join(sorted(unknown))}")
        loop = asyncio.get_running_loop()
        self._folder = _private_folder(settings.service_dir)
        socket_path = str(Path(self._folder.name) / "s")
        self.inner_address = f"unix:{socket_path}"
        self._upstream = Upstream(socket_path, loop)
        methods = {path: Method(path, raw, rules[path], around) for path, raw in raw_methods.items()}
        limits = Limits(message=settings.max_message_bytes, gathered=2 * settings.max_message_bytes)
        self._server = Http2Server(
            methods, loop, limits=limits, most_calls=settings.max_concurrent_rpcs, upstream=self._upstream
        )

    async def start(self, listener: socket.socket) -> None:
        """Begins to serve; grpc.aio listens on `inner_address` already."""
        await self._upstream.open()
        await self._server.start(listener)

    async def stop(self, grace_seconds: float) -> None:
        """Drains: see `Http2Server.stop`. To be called before grpc.aio stops."""
        await self._server.stop(grace_seconds)
        await self._upstream.close()

    def close(self) -> None:
        """Removes the socket's folder."""
        self._folder.cleanup()


def _private_folder(home: Path) -> "tempfile.TemporaryDirectory[str]":
    """Makes a folder that only this user may enter: in the service's own, or, where its path is too long, elsewhere.

    Each process has one of its own, for replicas may share the service's folder.
    """
    fits = len(os.fsencode(home)) + len("/grpc-12345678/s") <= _LONGEST_PATH
    return tempfile.TemporaryDirectory(prefix="grpc-", dir=home if fits else None)  # mode 0700
