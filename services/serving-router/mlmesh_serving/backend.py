"""What answers requests for one revision of a model: worker processes, or a server elsewhere.

The router chooses a revision and hands bytes on; it parses nothing of the tensors.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class Door(Enum):
    """How a request came, and so in which encoding it is."""

    GRPC = "grpc"
    """A serialized `inference.ModelInferRequest`."""
    REST_V2 = "v2"
    """JSON of `/v2/models/{model}/infer`, with what the binary tensor extension puts behind it."""
    REST_V1 = "v1"
    """JSON of `/v1/models/{model}:predict`."""
    EXPLAIN = "explain"
    """JSON of `/v1/models/{model}:explain`."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A request as it came.

    Attributes:
        door: How it came.
        model: Name, as the client wrote it.
        body: The bytes, whole.
        json_length: Of a body with binary tensors: bytes of its JSON part; None: it is all JSON.
        headers: HTTP headers or gRPC metadata, names in lower case; only those that a backend may need.
        deadline: Loop's time by which the client wants the answer; None: any.
    """

    door: Door
    model: str
    body: bytes
    json_length: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """An answer as it goes out.

    Attributes:
        body: The bytes, whole, in the encoding of the request's door.
        json_length: As in `WireRequest`.
    """

    body: bytes
    json_length: int | None = None


class Backend(Protocol):
    """One revision of a model that can be asked."""

    @property
    def in_flight(self) -> int:
        """Requests that were submitted and have no answer yet, those that wait included."""

    @property
    def ready(self) -> int:
        """Replicas that answer now."""

    def submit(self, request: WireRequest) -> "asyncio.Future[WireAnswer]":
        """Hands a request over, on the event loop; never blocks.

        The future gets the answer, or an `mlmesh_kit.errors.ServiceError`; cancelling it gives the request up.

        Raises:
            Unavailable: No replica answers.
            ResourceExhausted: Too many requests wait.
        """

    async def scale(self, replicas: int) -> None:
        """Asks for a number of replicas; returns when they are there, or those too many have ended."""

    async def close(self, grace_seconds: float) -> None:
        """Takes no more requests, waits for those in flight, at most so long, and ends."""
