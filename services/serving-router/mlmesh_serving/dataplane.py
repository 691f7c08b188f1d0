"""The data plane: what both doors, gRPC and REST, ask. It knows models, and nothing of transports or tensors.

Source: https://github.com/kserve/open-inference-protocol
"""

import asyncio
from dataclasses import dataclass

from mlmesh_kit.errors import FailedPrecondition, NotFound, Unimplemented
from mlmesh_kit.identity import current_caller

from mlmesh_serving.backend import WireAnswer, WireRequest
from mlmesh_serving.datatypes import TensorInfo
from mlmesh_serving.remote.backend import RemoteBackend
from mlmesh_serving.repository import ModelRepository, Served, State

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
            version: Number, name or tag of a revision; empty: requests are spread as the operator says.
            namespace: Where a plain name is looked up; empty: in the caller's default namespace.

        Raises:
            NotFound, Unavailable: See `Router.submit`.
            ResourceExhausted: Too many requests are in flight.
        """
        return self._repository.get(*self._key(request.model, namespace)).router().submit(request, version)

    async def explain(self, request: WireRequest, version: str = "") -> WireAnswer:
        """Explains what a model answers.

        Args:
            request: For an explanation.
            version: Number, name or tag of a revision; empty: the one that answers.

        Raises:
            NotFound, Unavailable: See `ModelRepository.ready`.
            Unimplemented: The model has no explainer.
            ResourceExhausted: It is busy.
        """
        explainer = self._repository.ready(*self._key(request.model), version).explainer
        if explainer is None:
            raise Unimplemented(f"model {request.model!r} has no explainer")
        return await explainer.submit(request)

    def is_ready(self, model: str, version: str = "") -> bool:
        """Tells whether a model answers.

        Raises:
            NotFound: There is no such model or version.
        """
        served = self._repository.get(*self._key(model))
        if not served.is_answering:
            return False
        if version:
            served.router().resolve(version)
        return True

    def state_of(self, namespace: str, name: str) -> bool | None:
        """Tells whether a model answers; None: there is none of this name."""
        try:
            return self._repository.get(namespace, name).is_answering
        except NotFound:
            return None

    def openai_server(self, namespace: str, name: str) -> RemoteBackend:
        """Gives the server of a model that has OpenAI's routes.

        Raises:
            NotFound, Unavailable: See `ModelRepository.ready`.
            FailedPrecondition: The model has none.
        """
        found = self._repository.ready(namespace, name).openai
        if found is None:
            raise FailedPrecondition(f"model {name!r} has no server with OpenAI's routes (predictor.remote.openai)")
        return found

    def openai_models(self, namespace: str) -> list[str]:
        """Names the models of a namespace that have such a server."""
        found = self.index(namespace, ready_only=True)
        return [
            served.stored.name
            for served in found
            if served.is_answering and self._repository.ready(namespace, served.stored.name).openai is not None
        ]

    def is_server_ready(self) -> bool:
        """Tells whether all models that should be loaded answer."""
        return self._repository.all_ready()

    def metadata(self, model: str, version: str = "") -> ModelMetadata:
        """Describes a model that is ready.

        Raises:
            NotFound, Unavailable: See `ModelRepository.ready`.
        """
        key = self._key(model)
        revision = self._repository.ready(*key, version)
        numbers = [revision.number] if version else sorted(self._repository.get(*key).router().backends)
        loaded = revision.loaded
        return ModelMetadata(model, [str(n) for n in numbers], loaded.platform, loaded.inputs, loaded.outputs)

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
