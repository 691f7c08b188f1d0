"""Preprocessor → predictor → postprocessor in one process: arrays are handed on, never encoded in between."""

import asyncio
from collections.abc import Callable
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, ServiceError

from mlmesh_serving.manifest import InferenceServiceSpec
from mlmesh_serving.predictors import FORMATS, Predictor
from mlmesh_serving.predictors.base import TensorInfo
from mlmesh_serving.stage import Stage, load_stage
from mlmesh_serving.storage import ModelStorage
from mlmesh_serving.tensor import Tensor, as_tensor


class Chain:
    """A model with the stages around it, loaded.

    Args:
        predictor: The model.
        preprocessor: Before it; None: nothing.
        postprocessor: After it; None: nothing.
    """

    def __init__(self, predictor: Predictor, preprocessor: Stage | None, postprocessor: Stage | None) -> None:
        self._predictor = predictor
        self._preprocessor = preprocessor
        self._postprocessor = postprocessor
        self._is_async = any(stage is not None and stage.is_async for stage in (preprocessor, postprocessor))

    @property
    def platform(self) -> str:
        """Of the model."""
        return self._predictor.platform

    @property
    def inputs(self) -> list[TensorInfo]:
        """What the first stage takes, as far as it is known."""
        return self._predictor.inputs if self._preprocessor is None else []

    @property
    def output_name(self) -> str:
        """What the last stage gives, as far as it is known."""
        return self._predictor.output_name if self._postprocessor is None else ""

    async def infer(self, tensors: list[Tensor]) -> list[Tensor]:
        """Runs the stages; what computes runs in a thread.

        Raises:
            InvalidArgument: A stage refuses the input.
            FailedPrecondition: A stage gave what is no tensor.
        """
        if not self._is_async:
            return await asyncio.to_thread(self._infer, tensors)
        for stage in (self._preprocessor, self._predictor, self._postprocessor):
            if isinstance(stage, Predictor):
                tensors = await asyncio.to_thread(self._predict, tensors)
            elif isinstance(stage, Stage) and stage.is_async:
                try:
                    result = await stage.acall(stage.prepare(tensors))
                except (ValueError, TypeError) as error:
                    raise _refusal(stage, error) from error
                tensors = stage.finish(result, tensors[0].name)
            elif isinstance(stage, Stage):
                tensors = await asyncio.to_thread(_run, stage, tensors)
        return tensors

    def _infer(self, tensors: list[Tensor]) -> list[Tensor]:
        if self._preprocessor is not None:
            tensors = _run(self._preprocessor, tensors)
        tensors = self._predict(tensors)
        if self._postprocessor is not None:
            tensors = _run(self._postprocessor, tensors)
        return tensors

    def _predict(self, tensors: list[Tensor]) -> list[Tensor]:
        if len(tensors) != 1:
            raise InvalidArgument(f"the model takes one tensor, got {len(tensors)}", field="inputs")
        result = self._predictor.predict(tensors[0].data)
        try:
            return [as_tensor(self._predictor.output_name, result)]
        except TypeError as error:
            raise FailedPrecondition(f"the model gave what is no tensor: {error}") from error


def _run(stage: Stage, tensors: list[Tensor]) -> list[Tensor]:
    argument = stage.prepare(tensors)
    try:
        result = stage.call(argument)
    except ServiceError:
        raise
    except (ValueError, TypeError) as error:
        raise _refusal(stage, error) from error
    return stage.finish(result, tensors[0].name)


def _refusal(stage: Stage, error: Exception) -> InvalidArgument:
    """A stage says that it cannot take an input as Python code does: by a ValueError or a TypeError."""
    return InvalidArgument(f"the {stage.role} refused it: {str(error)[:500]}", field="inputs")


Loader = Callable[[InferenceServiceSpec], Chain]


def load_chain(spec: InferenceServiceSpec, storage: ModelStorage) -> Chain:
    """Loads the model and its stages. Blocks, and runs the user's code.

    Raises:
        FailedPrecondition, InvalidArgument: Something is missing, not allowed, or cannot be loaded.
    """
    where = "manifest.spec"
    predictor = FORMATS[spec.predictor.format].load(
        storage.fetch(spec.predictor.storage_uri, f"{where}.predictor.model.storageUri"), spec.predictor.method
    )
    stages: dict[str, Stage | None] = {}
    for role, stage in (("preprocessor", spec.preprocessor), ("postprocessor", spec.postprocessor)):
        stages[role] = None
        if stage is not None:
            folder = storage.fetch(stage.storage_uri, f"{where}.{role}.python.storageUri")
            stages[role] = load_stage(role, folder, stage.target)
    return Chain(predictor, stages["preprocessor"], stages["postprocessor"])


def check_storage(spec: InferenceServiceSpec, storage: ModelStorage) -> None:
    """Checks at the door that everything a spec names may be loaded.

    Raises:
        InvalidArgument, FailedPrecondition: See `ModelStorage.check`.
    """
    where: list[tuple[str, Any]] = [("preprocessor.python", spec.preprocessor), ("predictor.model", spec.predictor)]
    where.append(("postprocessor.python", spec.postprocessor))
    for path, part in where:
        if part is not None:
            storage.check(part.storage_uri, f"manifest.spec.{path}.storageUri")
