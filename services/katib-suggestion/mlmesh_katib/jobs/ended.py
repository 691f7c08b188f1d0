"""A trial that ended before it began: what it asks for cannot be had, now or later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlmesh_katib.jobs.base import Ended, Job


class EndedJob(Job):
    """A job that has failed.

    Args:
        message: Why.
        log_path: Where people look for it.
    """

    def __init__(self, message: str, log_path: Path) -> None:
        self.reference: Mapping[str, Any] = {}
        self.log_path = log_path
        self._message = message
        log_path.write_text(message + "\n")

    async def wait(self) -> Ended:
        """Says why."""
        return Ended(ok=False, message=self._message)

    async def kill(self) -> None:
        """Does nothing: nothing runs."""
