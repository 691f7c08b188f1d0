"""Preprocessor → predictor → postprocessor in one process: arrays are handed on, never encoded in between."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from mlmesh_kit.errors import Internal, InvalidArgument, ServiceError

from mlmesh_serving.manifest import InferenceServiceSpec
from mlmesh_serving.predictors import FORMATS, Predictor
from mlmesh_serving.stage import Stage, load_stage
from mlmesh_serving.storage import ModelStorage
from mlmesh_serving.tensor import Tensor, TensorInfo, as_tensor, check_inputs
from mlmesh_serving.worker import Workers

logger = logging.getLogger(__name__)

_MAX_REASON = 500


class Chain:
    """A model with the stages around it, loaded.

    Args:
        predictor: The model.
        preprocessor: Before it; None: nothing.
        postprocessor: After it; None: nothing.
        inputs: What the whole takes, as the manifest declares it; each request is held to it.
        outputs: What the whole gives, as the manifest declares it.
    """

    def __init__(
        self,
        predictor: Predictor,
        preprocessor: Stage | None = None,
        postprocessor: Stage | None = None,
        inputs: Sequence[TensorInfo] = (),
        outputs: Sequence[TensorInfo] = (),
    ) -> None:
        self._predictor = predictor
        self._preprocessor = preprocessor
        self._postprocessor = postprocessor
        self._declared = list(inputs)
        self.platform = predictor.platform
        self.inputs = self._declared or ([] if preprocessor else predictor.inputs)
        self.outputs = list(outputs) or ([] if postprocessor else predictor.outputs)
        self._is_async = any(stage is not None and stage.is_async for stage in (preprocessor, postprocessor))

    async def infer(self, tensors: list[Tensor], workers: Workers) -> list[Tensor]:
        """Runs the stages; what computes runs in a thread, async stages on the loop.

        Raises:
            InvalidArgument: The input is not what was declared, or a stage or the model refuses it.
            Internal: A stage or the model failed, or gave what is no tensor.
        """
        if not self._is_async:
            return await workers.run(self._infer, tensors)
        tensors = self._checked(tensors)
        tensors = await _stage_on(workers, self._preprocessor, tensors)
        tensors = await workers.run(self._predict, tensors)
        return await _stage_on(workers, self._postprocessor, tensors)

    def _infer(self, tensors: list[Tensor]) -> list[Tensor]:
        tensors = self._checked(tensors)
        if self._preprocessor is not None:
            tensors = _run(self._preprocessor, tensors)
        tensors = self._predict(tensors)
        if self._postprocessor is not None:
            tensors = _run(self._postprocessor, tensors)
        return tensors

    def _checked(self, tensors: list[Tensor]) -> list[Tensor]:
        return check_inputs(tensors, self._declared) if self._declared else tensors

    def _predict(self, tensors: list[Tensor]) -> list[Tensor]:
        source = f"the {self._preprocessor.role} gave" if self._preprocessor else "got"
        if len(tensors) != 1:
            raise InvalidArgument(f"the model takes one tensor, {source} {len(tensors)}", field="inputs")
        tensor = tensors[0]
        for info in self._predictor.inputs:
            if not info.has_shape(tensor.data.shape):
                raise InvalidArgument(
                    f"the model takes {list(info.shape)}, {source} {list(tensor.data.shape)}",
                    field=f"inputs[0] ({tensor.name}).shape",
                )
        try:
            result = self._predictor.predict(tensor.data)
        except Exception as error:
            raise _failure("model", error, tensor.name) from error
        try:
            return [as_tensor(self._predictor.output_name, result)]
        except (TypeError, ValueError) as error:
            raise Internal(f"the model gave what is no tensor: {str(error)[:_MAX_REASON]}") from error


def _run(stage: Stage, tensors: list[Tensor]) -> list[Tensor]:
    argument = stage.prepare(tensors)
    try:
        result = stage.call(argument)
    except Exception as error:
        raise _failure(stage.role, error) from error
    return stage.finish(result, tensors[0].name)


async def _stage_on(workers: Workers, stage: Stage | None, tensors: list[Tensor]) -> list[Tensor]:
    if stage is None:
        return tensors
    if not stage.is_async:
        return await workers.run(_run, stage, tensors)
    argument = stage.prepare(tensors)
    try:
        result = await stage.acall(argument)
    except Exception as error:
        raise _failure(stage.role, error) from error
    return stage.finish(result, tensors[0].name)


def _failure(who: str, error: Exception, tensor: str = "") -> ServiceError:
    """Python code refuses an input by a ValueError or a TypeError; anything else is a fault of the code's own."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, (ValueError, TypeError)):
        field = f"inputs[0] ({tensor})" if tensor else "inputs"
        return InvalidArgument(f"the {who} refused it: {str(error)[:_MAX_REASON]}", field=field)
    logger.error("the %s raised %s", who, type(error).__name__, exc_info=error)
    return Internal(f"the {who} raised {type(error).__name__}; the service's log has it")


def load_chain(spec: InferenceServiceSpec, storage: ModelStorage) -> Chain:
    """Loads the model and its stages. Blocks, and runs the user's code.

    Raises:
        FailedPrecondition, InvalidArgument: Something is missing, not allowed, or cannot be loaded.
    """
    with ExitStack() as stack:
        path = stack.enter_context(storage.local(spec.predictor.storage_uri, spec.predictor.field))
        predictor = FORMATS[spec.predictor.format].load(path, spec.predictor.method)
        stages: dict[str, Stage] = {}
        for role, stage in (("preprocessor", spec.preprocessor), ("postprocessor", spec.postprocessor)):
            if stage is not None:
                folder = stack.enter_context(storage.local(stage.storage_uri, stage.field))
                stages[role] = load_stage(role, folder, stage.target)
        return Chain(predictor, stages.get("preprocessor"), stages.get("postprocessor"), spec.inputs, spec.outputs)


def check_storage(spec: InferenceServiceSpec, storage: ModelStorage) -> None:
    """Checks at the door that everything a spec names may be loaded.

    Raises:
        InvalidArgument, FailedPrecondition: See `ModelStorage.check`.
    """
    parts: list[Any] = [spec.preprocessor, spec.predictor, spec.postprocessor]
    for part in parts:
        if part is not None:
            storage.check(part.storage_uri, part.field)
