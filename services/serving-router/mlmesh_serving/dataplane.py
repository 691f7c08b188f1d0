"""The data plane: what both doors, gRPC and REST, ask. It knows tensors, and nothing of transports.

Source: https://github.com/kserve/open-inference-protocol
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mlmesh_kit.errors import InvalidArgument, NotFound, ResourceExhausted
from mlmesh_kit.identity import current_caller

from mlmesh_serving.repository import ModelRepository, Served, State
from mlmesh_serving.tensor import Limits, Tensor, TensorInfo
from mlmesh_serving.worker import Workers

SERVER_NAME = "mlmesh"
EXTENSIONS = ("model_repository", "binary_tensor_data")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered, and which version of it."""

    version: str
    outputs: list[Tensor]


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
        workers: Compute.
        limits: Of requests.
        max_concurrent: Inferences in flight; beyond it a request is refused at once.
    """

    def __init__(self, repository: ModelRepository, workers: Workers, limits: Limits, max_concurrent: int) -> None:
        self.limits = limits
        self._workers = workers
        self._repository = repository
        self._max_concurrent = max_concurrent
        self._in_flight = 0

    async def infer(self, model: str, version: str, tensors: list[Tensor], wanted: Sequence[str] = ()) -> Answer:
        """Runs a model.

        Args:
            model: Its name, as clients write it.
            version: Number of a revision; empty: the one that answers.
            tensors: The inputs.
            wanted: Names of the outputs to give; empty: all.

        Raises:
            NotFound, Unavailable: See `ModelRepository.ready`.
            InvalidArgument: The inputs do not fit, or there is no output of a wanted name.
            ResourceExhausted: Too many inferences are in flight.
        """
        chain, revision = self._repository.ready(*self._key(model), version)
        if self._in_flight >= self._max_concurrent:
            raise ResourceExhausted(
                f"{self._max_concurrent} inferences are in flight, which is the most allowed", retry_after_seconds=1
            )
        self._in_flight += 1
        try:
            outputs = await chain.infer(tensors, self._workers)
        finally:
            self._in_flight -= 1
        return Answer(str(revision), _selected(outputs, wanted))

    def is_ready(self, model: str, version: str = "") -> bool:
        """Tells whether a model answers.

        Raises:
            NotFound: There is no such model or version.
        """
        served = self._repository.get(*self._key(model))
        if served.chain is None:
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
        chain, revision = self._repository.ready(*self._key(model), version)
        return ModelMetadata(model, [str(revision)], chain.platform, chain.inputs, chain.outputs)

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
    def _key(model: str) -> tuple[str, str]:
        namespace, name = split_model_name(model)
        if not name:
            raise NotFound(message="model '' not found")
        return namespace or current_caller().default_namespace, name


def _selected(outputs: list[Tensor], wanted: Sequence[str]) -> list[Tensor]:
    if not wanted:
        return outputs
    by_name = {output.name: output for output in outputs}
    for name in wanted:
        if name not in by_name:
            raise InvalidArgument(f"there is no output {name!r}; there are {', '.join(by_name)}", field="outputs")
    return [by_name[name] for name in wanted]
