"""Loads the algorithms' libraries while the service serves already, so that no first question waits for them."""

import contextlib
import logging
import threading
from collections.abc import AsyncIterator

from mlmesh_katib.algorithms import ALGORITHMS

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def algorithms_loaded() -> AsyncIterator[None]:
    """Begins to load them. A daemon thread does it, since an import cannot be stopped and nothing waits for its end."""
    threading.Thread(target=_load, name="load algorithms", daemon=True).start()
    yield


def _load() -> None:
    for algorithm in reversed(ALGORITHMS.values()):  # scikit-optimize last: it is slow, and not needed at the beginning
        try:
            algorithm.load()
        except Exception:  # the question that needs it says so again
            logger.exception("algorithm %s cannot be loaded", algorithm.name)
