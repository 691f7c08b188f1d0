"""What all that stands before a backend has in common."""

from mlmesh_serving.backend import Backend


class Before:
    """Hands on what it does not change; `submit` is each one's own.

    Args:
        inner: Answers.
    """

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    @property
    def in_flight(self) -> int:
        """See `Backend.in_flight`."""
        return self._inner.in_flight

    @property
    def ready(self) -> int:
        """See `Backend.ready`."""
        return self._inner.ready

    async def scale(self, replicas: int) -> None:
        """See `Backend.scale`."""
        await self._inner.scale(replicas)

    async def close(self, grace_seconds: float) -> None:
        """See `Backend.close`."""
        await self._inner.close(grace_seconds)
