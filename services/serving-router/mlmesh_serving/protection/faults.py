"""Which errors are a backend's fault."""

import asyncio

from mlmesh_kit.errors import ServiceError

from mlmesh_serving.backend import WireAnswer

FAULTS = frozenset({"UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED"})
"""What Envoy's outlier detection takes for a 5xx of a gRPC upstream, but UNIMPLEMENTED, which is the request's."""


def is_fault(error: BaseException) -> bool:
    """Tells whether an error says that the backend is ill, and not the request."""
    return (
        error.code.name in FAULTS if isinstance(error, ServiceError) else not isinstance(error, asyncio.CancelledError)
    )


def error_of(future: "asyncio.Future[WireAnswer]") -> BaseException | None:
    """Gives how a future failed that is done; a cancelled one with `CancelledError`, an answered one with None."""
    return asyncio.CancelledError() if future.cancelled() else future.exception()
