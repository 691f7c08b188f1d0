"""What a worker prints goes to the service's log, but not without limit."""

import asyncio
import logging
from typing import Final

logger = logging.getLogger(__name__)

BURST_BYTES: Final = 64 << 10
BYTES_PER_SECOND: Final = 16 << 10
_RECORD_BYTES: Final = 4096


class WorkerOutput(asyncio.Protocol):
    """Reads a worker's standard output and error, and logs it.

    Args:
        model: Whose worker it is.
        loop: The router's.
    """

    def __init__(self, model: str, loop: asyncio.AbstractEventLoop) -> None:
        self._model = model
        self._loop = loop
        self._room = float(BURST_BYTES)
        self._since = loop.time()
        self._dropped = 0

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        now = self._loop.time()
        self._room = min(BURST_BYTES, self._room + (now - self._since) * BYTES_PER_SECOND)
        self._since = now
        for start in range(0, len(data), _RECORD_BYTES):
            piece = data[start : start + _RECORD_BYTES]
            if len(piece) > self._room:
                self._dropped += len(piece)
                continue
            self._room -= len(piece)
            self._tell_dropped()
            text = piece.decode("utf-8", "replace").rstrip("\n")
            logger.info("worker output", extra={"model": self._model, "output": text})

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        if self._dropped:
            logger.warning("worker output dropped", extra={"model": self._model, "bytes": self._dropped})
            self._dropped = 0
