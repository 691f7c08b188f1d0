"""The data plane: what both doors, gRPC and REST, ask. It knows models, and nothing of transports or tensors.

Source: https://github.com/kserve/open-inference-protocol
"""

import asyncio
from dataclasses import dataclass

from mlmesh_kit.errors import NotFound
from mlmesh_kit.identity import current_caller

from mlmesh_serving.backend import WireAnswer, WireRequest
from mlmesh_serving.repository import ModelRepository, Served, State
from mlmesh_serving.tensor import TensorInfo

SERVER_NAME = "mlmesh"
EXTENSIONS = ("model_repository", "binary_tensor_data")


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What is known of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


def split_model_name(model: str) -> tuple[str, str]:
    """Takes `namespace.model` apart; a plain name has no namespace (docs/decisions/0050)."""
    namespace, dot, name = model.partition(".")
    return (namespace, name) if dot else ("", model)


class DataPlane:
    """Answers about models, and from them.

    Args:
        repository: The models.
    """

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository

    def submit(self, request: WireRequest, version: str = "", namespace: str = "") -> "asyncio.Future[WireAnswer]":
        """Hands a request to the model that it names.

        Args:
            request: As it came; nothing of it is read here.
            version: Number of a revision; empty: the one that answers.
            namespace: Where a plain name is looked up; empty: in the caller's default namespace.

        Raises:
            NotFound, Unavailable: See `ModelRepository.ready`.
            ResourceExhausted: Too many requests are in flight.
        """
        revision = self._repository.ready(*self._key(request.model, namespace), version)
        return revision.backend.submit(request)

    def is_ready(self, model: str, version: str = "") -> bool:
        """Tells whether a model answers.

        Raises:
            NotFound: There is no such model or version.
        """
        served = self._repository.get(*self._key(model))
        if served.revision is None:
            return False
        return not version or version == str(served.ready_revision)

    def is_server_ready(self) -> bool:
        """Tells whether all models that should be loaded answer."""
        return self._repository.all_ready()

    def metadata(self, model: str, version: str = "") -> ModelMetadata:
        """Describes a model that is ready.

        Raises:
            NotFound, Unavailable: See `ModelRepository.ready`.
        """
        revision = self._repository.ready(*self._key(model), version)
        loaded = revision.loaded
        return ModelMetadata(model, [str(revision.number)], loaded.platform, loaded.inputs, loaded.outputs)

    def index(self, namespace: str = "", *, ready_only: bool = False) -> list[Served]:
        """Lists the models of a namespace; empty: the caller's default."""
        wanted = namespace or current_caller().default_namespace
        return [
            served
            for served in self._repository.list()
            if served.stored.namespace == wanted and (served.state is State.READY or not ready_only)
        ]

    async def load(self, model: str) -> None:
        """Loads a model; see `ModelRepository.load`."""
        await self._repository.load(*self._key(model))

    async def unload(self, model: str) -> None:
        """Unloads a model; see `ModelRepository.unload`."""
        await self._repository.unload(*self._key(model))

    @staticmethod
    def _key(model: str, default: str = "") -> tuple[str, str]:
        namespace, name = split_model_name(model)
        if not name:
            raise NotFound(message="model '' not found")
        return namespace or default or current_caller().default_namespace, name
