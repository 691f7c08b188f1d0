"""The description of the mesh, deploy/mesh.yaml, read and checked."""

import importlib.resources
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

INGRESS = "ingress"
"""The caller that is not a service."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class DescriptionError(Exception):
    """The description does not say what it must; the message names each faulty path."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Identity(_Model):
    """How a service learns who is calling.

    Attributes:
        header: Set by the ingress alone.
        local_user: Who every caller is on one machine.
    """

    header: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]+$")]
    local_user: Annotated[str, Field(pattern=r"^[^\s%]+$")]


class Ingress(_Model):
    """The mesh's one door."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    hosts: Annotated[tuple[str, ...], Field(min_length=1)] = ("localhost", "127.0.0.1", "[::1]")
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    max_body_bytes: Annotated[int, Field(gt=0, le=1 << 30)] = 64 << 20
    max_transcoded_bytes: Annotated[int, Field(gt=0, le=1 << 30)] = 16 << 20
    max_header_kib: Annotated[int, Field(ge=8, le=96)] = 32
    max_headers: Annotated[int, Field(ge=16, le=1000)] = 100
    max_connections: Annotated[int, Field(gt=0)] = 4096
    drain_seconds: Seconds = 5


class Retries(_Model):
    """How often, and after which waits, a call is sent again."""

    attempts: Annotated[int, Field(ge=0, le=100)]
    backoff_seconds: Seconds
    max_backoff_seconds: Seconds


class CircuitBreaker(_Model):
    """What may be under way to one service at a time; more is refused at once."""

    max_connections: Annotated[int, Field(gt=0)]
    max_pending_requests: Annotated[int, Field(gt=0)]
    max_requests: Annotated[int, Field(gt=0)]
    max_retries: Annotated[int, Field(gt=0)]


class Health(_Model):
    """How often the ingress asks a service for its health."""

    interval_seconds: Seconds
    timeout_seconds: Seconds
    starting_interval_seconds: Seconds


class Resources(_Model):
    """What a replica asks of a Kubernetes node."""

    cpu: Annotated[str, Field(pattern=r"^\d+m?$")]
    memory: Annotated[str, Field(pattern=r"^\d+(Mi|Gi)$")]


class Scale(_Model):
    """Replicas on Kubernetes, and the requests under way that each is to have."""

    min: Annotated[int, Field(ge=0)]
    max: Annotated[int, Field(ge=1)]
    concurrency: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _ordered(self) -> "Scale":
        if self.min > self.max:
            raise ValueError("min must not be greater than max")
        return self


class Defaults(_Model):
    """What holds for a service that says nothing else."""

    deadline_seconds: Seconds
    retries: Retries
    circuit_breaker: CircuitBreaker
    health: Health
    resources: Resources
    scale: Scale


class Ports(_Model):
    """Where a service listens, on loopback."""

    grpc: Annotated[int, Field(ge=1, le=65535)]
    http: Annotated[int, Field(ge=1, le=65535)]


class HttpRoute(_Model):
    """A path that the service answers on its HTTP port, not transcoded.

    Attributes:
        path: Exact, with `{name}` for a segment and `{name=**}` for the rest of it.
        prefix: The path itself and all below it.
        streaming: No deadline: a log that is followed, a large download.
        deadline_seconds: Else the service's.
    """

    path: str = ""
    prefix: str = ""
    streaming: bool = False
    deadline_seconds: Seconds | None = None

    @model_validator(mode="after")
    def _one(self) -> "HttpRoute":
        if bool(self.path) == bool(self.prefix):
            raise ValueError("give one of path and prefix")
        text = self.path or self.prefix
        if not re.fullmatch(r"(/([\w.~:-]+|\{\w+(=\*\*)?\}))+", text):
            raise ValueError(f"{text!r} is not a path of segments and {{variables}}")
        return self

    @property
    def regex(self) -> str:
        """The path as a regular expression for a whole path; empty for a prefix or a path without variables."""
        if "{" not in self.path:
            return ""
        parts = re.split(r"(\{\w+(?:=\*\*)?\})", self.path)
        return "".join(
            re.escape(p) if not p.startswith("{") else (".+" if p.endswith("=**}") else "[^/]+") for p in parts
        )


class Service(_Model):
    """One service of the mesh.

    Attributes:
        module: What `python -m` starts.
        grpc: Full names of its gRPC services.
        transcoded: Whether their google.api.http paths are served as REST.
        http: Paths that its HTTP port answers.
        peers: Setting (`metadata_address`) to the service whose gRPC address it is given.
        ingress_setting: Setting that is given the ingress' URL.
        callers: Who may call it: services, or `ingress`.
        env: Further environment variables.
        safe_methods: Beginnings of the names of RPCs that may be sent twice.
    """

    module: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*$")]
    ports: Ports
    grpc: Annotated[tuple[str, ...], Field(min_length=1)]
    transcoded: bool = False
    http: tuple[HttpRoute, ...] = ()
    peers: dict[str, Name] = {}
    ingress_setting: str = ""
    callers: tuple[Name, ...] = ()
    env: dict[str, str] = {}
    safe_methods: tuple[str, ...] = ("Get", "List", "Query", "Review", "Read")
    deadline_seconds: Seconds | None = None
    retries: Retries | None = None
    circuit_breaker: CircuitBreaker | None = None
    resources: Resources | None = None
    scale: Scale | None = None

    @field_validator("grpc")
    @classmethod
    def _full_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"\w+(\.\w+)+", name):
                raise ValueError(f"{name!r} is not the full name of a gRPC service")
        return names


class Mesh(_Model):
    """The whole description."""

    version: Literal[1]
    identity: Identity
    ingress: Ingress = Ingress()
    defaults: Defaults
    services: Annotated[dict[Name, Service], Field(min_length=1)]

    @model_validator(mode="after")
    def _agrees(self) -> "Mesh":
        faults = []
        ports: dict[int, str] = {self.ingress.port: INGRESS}
        owners: dict[str, str] = {}
        for name, service in self.services.items():
            at = f"services.{name}"
            for setting, peer in service.peers.items():
                if peer not in self.services:
                    faults.append(f"{at}.peers.{setting}: there is no service {peer!r}")
                elif name not in self.services[peer].callers:
                    faults.append(f"{at}.peers.{setting}: services.{peer}.callers does not name {name!r}")
            faults += [
                f"{at}.callers: there is no service {caller!r}"
                for caller in service.callers
                if caller != INGRESS and caller not in self.services
            ]
            for kind in ("grpc", "http"):
                port = getattr(service.ports, kind)
                if port in ports:
                    faults.append(f"{at}.ports.{kind}: {port} is the port of {ports[port]} already")
                ports[port] = f"{name} ({kind})"
            for full_name in service.grpc:
                if full_name in owners:
                    faults.append(f"{at}.grpc: {full_name} belongs to {owners[full_name]} already")
                owners[full_name] = name
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @cached_property
    def stop_order(self) -> list[list[str]]:
        """Services in the order they stop: each before those it calls; those of one list together.

        Services that call each other in a circle end up in one list.
        """
        left, order = set(self.services), []
        while left:
            called = {peer for name in left for peer in self.services[name].peers.values() if peer != name}
            free = sorted(left - called) or sorted(left)
            order.append(free)
            left -= set(free)
        return order


def repository_root() -> Path | None:
    """Gives the checkout that this package is run from; None when it was installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "deploy" / "mesh.yaml").is_file() else None


def default_path() -> Path:
    """Gives the description that belongs to this installation."""
    root = repository_root()
    if root is not None:
        return root / "deploy" / "mesh.yaml"
    return Path(str(importlib.resources.files("mlmesh") / "data" / "mesh.yaml"))


def parse(text: str, source: str = "mesh.yaml") -> Mesh:
    """Reads a description.

    Raises:
        DescriptionError: It is not YAML, or not a description; the message names each faulty path.
    """
    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DescriptionError(f"{source}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise DescriptionError(f"{source}: expected a mapping at the top")
    try:
        return Mesh.model_validate(content)
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            path = ".".join(str(part) for part in fault["loc"])
            message = fault["msg"].removeprefix("Value error, ")
            lines += [f"{source}: {path}: {message}" if path else f"{source}: {part}" for part in message.split("; ")]
        raise DescriptionError("\n".join(lines)) from error


def load(path: Path | None = None) -> Mesh:
    """Reads the description at `path`, or the installation's own.

    Raises:
        DescriptionError: See `parse`; also when there is no such file.
    """
    path = path or default_path()
    try:
        text = path.read_text()
    except OSError as error:
        raise DescriptionError(f"{path}: {error.strerror}") from error
    return parse(text, path.name)
