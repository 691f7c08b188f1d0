"""Starts a service: one event loop, a gRPC port, an HTTP port, and whatever runs beside them.

grpc.aio on uvloop, plain handlers in a thread pool: see docs/decisions/0002-grpc-aio.md for the measurement.
"""

import asyncio
import contextlib
import difflib
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import uvicorn
import uvloop
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pydantic import ValidationError
from starlette.routing import Route

from mlmesh_kit.access import AccessChecker, AccessReviewer, AccessRule, AccessTable, LocalReviewer, RemoteReviewer
from mlmesh_kit.config import ServiceSettings
from mlmesh_kit.errors import ServiceError
from mlmesh_kit.http import create_app
from mlmesh_kit.interceptor import MeshInterceptor, Surroundings
from mlmesh_kit.logs import configure_logging
from mlmesh_kit.raw_routes import RawRoute
from mlmesh_kit.telemetry import configure_tracing

if TYPE_CHECKING:
    from mlmesh_kit.http2.front import Front
    from mlmesh_kit.http2.methods import RawMethod

logger = logging.getLogger(__name__)

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class Servicer:
    """A gRPC service and what answers it.

    Args:
        descriptor: Of the service, for reflection, health and the access table.
        add: The generated `add_XServicer_to_server`.
        implementation: Its methods are `async def`, or plain `def` (run in threads).
    """

    descriptor: ServiceDescriptor
    add: Callable[[Any, Any], None]
    implementation: Any


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    """All that a service is made of.

    Args:
        name: As in deploy/mesh.yaml.
        servicers: The gRPC services.
        access: A rule for every RPC; the service does not start while one is missing.
        http_routes: Made with `mlmesh_kit.http.route`.
        lifespans: Functions that give async context managers: entered in order before serving, left in reverse
            after the calls in flight have drained.
        reviewer: Decides about access; None: the profile service, or, with no address, the local user.
        grpc_options: Further options of the grpc.aio server.
        raw_methods: By full method name (`/package.Service/Method`): unary methods of `servicers` that are answered as
            bytes, by an HTTP/2 server of our own, which then has the gRPC port and hands every other call to grpc.aio.
            Without any, grpc.aio has the port.
        raw_routes: POST requests that are answered as bytes, past Starlette; tried before `http_routes`.
    """

    name: str
    servicers: Sequence[Servicer]
    access: AccessTable
    http_routes: Sequence[Route] = ()
    lifespans: Sequence[Callable[[], AbstractAsyncContextManager[Any]]] = ()
    reviewer: AccessReviewer | None = None
    grpc_options: Sequence[tuple[str, int]] = field(default=())
    raw_methods: Mapping[str, "RawMethod"] = field(default_factory=dict)
    raw_routes: Sequence[RawRoute] = ()


def access_rules(definition: ServiceDefinition) -> dict[str, AccessRule]:
    """Gives the rule of every RPC by its full method name.

    Raises:
        ValueError: An RPC declares nothing, or the table names one that does not exist.
    """
    rules: dict[str, AccessRule] = {}
    faults = []
    for servicer in definition.servicers:
        service = servicer.descriptor.full_name
        table = dict(definition.access.get(service, {}))
        for method in servicer.descriptor.methods:
            rule = table.pop(method.name, None)
            if rule is None:
                faults.append(f"{service}/{method.name} declares no access")
            else:
                rules[f"/{service}/{method.name}"] = rule
        faults += [f"{service} has no RPC {name!r}" for name in table]
    if faults:
        raise ValueError("access table: " + "; ".join(faults))
    return rules


def serve(build: Callable[[SettingsT], ServiceDefinition], settings_type: type[SettingsT]) -> int:
    """Reads the settings, builds the service and serves until SIGTERM or SIGINT; gives the exit code.

    Args:
        build: Makes the service of its settings. May block (it opens databases and migrates them).
        settings_type: Read from the environment.
    """
    try:
        settings = settings_type()
    except ValidationError as error:
        prefix = settings_type.model_config.get("env_prefix", "")
        for fault in error.errors():
            name = prefix + "_".join(str(part) for part in fault["loc"]).upper()
            sys.stderr.write(f"{name}: {fault['msg']}\n")
        return 2
    os.umask(0o077)
    configure_logging(settings.service, settings.log_level)
    for warning in _unknown_settings(settings_type):
        logger.warning(warning)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(build, settings))


def _unknown_settings(settings_type: type[ServiceSettings]) -> list[str]:
    """Names the variables that look like settings and are none: mistyped, most likely."""
    prefix = str(settings_type.model_config.get("env_prefix", ""))
    known = {f"{prefix}{name}".upper() for name in settings_type.model_fields}
    found = []
    for name in sorted(os.environ):
        if prefix and name.startswith(prefix) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            found.append(f"{name}: there is no such setting" + (f"; did you mean {near[0]}?" if near else ""))
    return found


async def _serve(build: Callable[[SettingsT], ServiceDefinition], settings: SettingsT) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        definition = build(settings)
    except ServiceError as error:  # a database that is not ours, and the like: for the user, not a fault of the code
        logger.error("cannot start: %s", error.message)
        return 1
    try:
        running = await start(definition, settings)
    except OSError as error:
        logger.error("cannot listen: %s", error)
        return 1
    logger.info("serving", extra={"grpc": running.grpc_port, "http": running.http_port})
    await stop.wait()
    logger.info("draining")
    await running.stop()
    return 0


class RunningService:
    """A service that serves; made by `start`."""

    def __init__(self) -> None:
        self.grpc_port = 0
        self.http_port = 0
        self.serving = False
        self.stack = contextlib.AsyncExitStack()

    async def stop(self) -> None:
        """Refuses new calls, lets those in flight end, then leaves the lifespans in reverse."""
        self.serving = False
        await self.stack.aclose()


async def start(definition: ServiceDefinition, settings: ServiceSettings) -> RunningService:
    """Starts a service in the running loop; `serve` is the usual way, tests may use this one.

    Raises:
        ValueError: The access table has gaps.
        OSError: A port is taken.
    """
    loop = asyncio.get_running_loop()
    running = RunningService()
    rules = access_rules(definition)
    async with contextlib.AsyncExitStack() as stack:
        reviewer = definition.reviewer
        if reviewer is None and settings.access_address:
            remote = RemoteReviewer(settings.access_address)
            stack.push_async_callback(remote.close)
            reviewer = remote
        checker = AccessChecker(
            reviewer or LocalReviewer(settings.local_user, settings.default_namespace),
            cache_seconds=settings.access_cache_seconds,
        )
        around = Surroundings(settings, checker, configure_tracing(definition.name), loop)
        pool = stack.enter_context(ThreadPoolExecutor(settings.max_workers, thread_name_prefix="rpc"))
        loop.set_default_executor(pool)
        for lifespan in definition.lifespans:
            await stack.enter_async_context(lifespan())

        server = grpc.aio.server(
            interceptors=[MeshInterceptor(around, rules, pool)],
            options=[*_grpc_options(settings), *definition.grpc_options],
            maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
        )
        for servicer in definition.servicers:
            servicer.add(servicer.implementation, server)
        names = [servicer.descriptor.full_name for servicer in definition.servicers]
        status = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(status, server)
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        front = _front(stack, definition, settings, rules, around)
        if front is None:
            try:
                running.grpc_port = server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
            except RuntimeError as error:
                raise OSError(f"gRPC port {settings.grpc_port} on {settings.host} is taken") from error
        else:
            listener = _bind("gRPC", settings.host, settings.grpc_port)
            stack.callback(listener.close)
            running.grpc_port = listener.getsockname()[1]
            server.add_insecure_port(front.inner_address)
        running.http_port = await _start_http(
            stack,
            settings,
            create_app(definition.http_routes, around, lambda: running.serving, definition.raw_routes),
        )
        await server.start()
        stack.push_async_callback(server.stop, settings.drain_seconds)
        if front is not None:
            await front.start(listener)
            stack.push_async_callback(front.stop, settings.drain_seconds)
        stack.push_async_callback(status.enter_graceful_shutdown)
        for name in ("", *names):
            await status.set(name, health_pb2.HealthCheckResponse.SERVING)
        running.serving = True
        running.stack = stack.pop_all()
    gc.collect()
    gc.freeze()  # what start-up made stays; collections need not walk it again
    if settings.ready_file:
        _announce(settings, running)
    return running


def _front(
    stack: contextlib.AsyncExitStack,
    definition: ServiceDefinition,
    settings: ServiceSettings,
    rules: Mapping[str, AccessRule],
    around: Surroundings,
) -> "Front | None":
    if not definition.raw_methods:
        return None
    from mlmesh_kit.http2.front import Front

    front = Front(definition.raw_methods, rules, settings, around)
    stack.callback(front.close)
    return front


def _grpc_options(settings: ServiceSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.so_reuseport", 0),  # two services must never share a port unnoticed
        ("grpc.max_metadata_size", 32 << 10),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


async def _start_http(stack: contextlib.AsyncExitStack, settings: ServiceSettings, app: Any) -> int:
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.http_port,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="none",
        http="httptools",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
    )
    listener = _bind("HTTP", settings.host, settings.http_port)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]), name="http")  # without uvicorn's own signal handlers
    while not server.started:
        if task.done():
            task.result()
            raise OSError(f"HTTP port {settings.http_port} could not be opened")
        await asyncio.sleep(0.005)

    async def stop() -> None:
        server.should_exit = True
        await task

    stack.push_async_callback(stop)
    port: int = listener.getsockname()[1]
    return port


def _bind(what: str, host: str, port: int) -> socket.socket:
    try:
        found = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise OSError(f"{what} port {port} on {host} is taken") from error
    found.set_inheritable(False)
    return found


def _announce(settings: ServiceSettings, running: RunningService) -> None:
    assert settings.ready_file is not None
    target = settings.ready_file
    content = json.dumps({"pid": os.getpid(), "grpc": running.grpc_port, "http": running.http_port})
    scratch = target.with_name(target.name + ".new")
    scratch.write_text(content)
    scratch.replace(target)
