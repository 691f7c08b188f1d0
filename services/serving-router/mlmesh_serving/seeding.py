"""An InferenceService that is there from the start: how a process serves one model on Kubernetes."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mlmesh_kit.errors import AlreadyExists, InvalidArgument

from mlmesh_serving.repository import ModelRepository

logger = logging.getLogger(__name__)


class Seeding:
    """Makes an InferenceService, or brings it up to date, when the service starts.

    Args:
        repository: Where to.
        namespace: Of the InferenceService.
        manifest: JSON; empty: there is none.
    """

    def __init__(self, repository: ModelRepository, namespace: str, manifest: str) -> None:
        self._repository = repository
        self._namespace = namespace
        self._manifest = manifest

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Does it.

        Raises:
            InvalidArgument, FailedPrecondition: It is no manifest, or cannot be served: the process does not start.
        """
        if self._manifest:
            await self._seed()
        yield

    async def _seed(self) -> None:
        try:
            manifest = json.loads(self._manifest)
        except ValueError as error:
            raise InvalidArgument("must be JSON", field="MLMESH_SERVING_MANIFEST") from error
        if not isinstance(manifest, dict):
            raise InvalidArgument("must be an object", field="MLMESH_SERVING_MANIFEST")
        try:
            served = await self._repository.create(self._namespace, manifest)
        except AlreadyExists:
            served = await self._repository.update(self._namespace, str(manifest["metadata"]["name"]), manifest)
        logger.info("seeded", extra={"model": served.stored.name, "revision": served.stored.revision})
