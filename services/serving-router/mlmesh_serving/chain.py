"""Preprocessor → predictor → postprocessor in one process: arrays are handed on, never encoded in between."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from mlmesh_kit.errors import Internal, InvalidArgument, ServiceError

from mlmesh_serving.manifest import InferenceServiceSpec
from mlmesh_serving.predictors import CODE, FORMATS, Predictor, bind
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

    Attributes:
        platform: The model's, in the protocol's words.
        digest: SHA-256 of the model; empty: not known.
        inputs: What the whole takes, as far as it is known.
        outputs: What the whole gives, as far as it is known.
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
        self.digest = ""
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
        arrays = bind(tensors, self._predictor.inputs, source)
        try:
            results = self._predictor.predict(arrays)
        except Exception as error:
            raise _failure("model", error, tensors[0].name if len(tensors) == 1 else "") from error
        try:
            return [as_tensor(name, result) for name, result in results.items()]
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
        wanted, options = spec.predictor, spec.predictor.options
        model = stack.enter_context(storage.local(wanted.storage_uri, wanted.field, options.sha256))
        if options.code_uri:
            code = stack.enter_context(storage.local(options.code_uri, f"{wanted.where}.codeUri"))
            options = replace(options, code=code)
        predictor = FORMATS[wanted.format](model, options)
        stages: dict[str, Stage] = {}
        for role, stage in (("preprocessor", spec.preprocessor), ("postprocessor", spec.postprocessor)):
            if stage is not None:
                folder = stack.enter_context(storage.local(stage.storage_uri, stage.field))
                folder.check_code("Python code")
                stages[role] = load_stage(role, folder.path, stage.target)
        chain = Chain(predictor, stages.get("preprocessor"), stages.get("postprocessor"), spec.inputs, spec.outputs)
        chain.digest = model.digest
        return chain


def check_storage(spec: InferenceServiceSpec, storage: ModelStorage) -> None:
    """Checks at the door that everything a spec names may be loaded.

    Raises:
        InvalidArgument, FailedPrecondition: See `ModelStorage.check`.
    """
    model = spec.predictor
    if model.options.code_uri:
        storage.check(model.options.code_uri, f"{model.where}.codeUri", "Python code")
        storage.check(model.storage_uri, model.field)
    else:
        storage.check(model.storage_uri, model.field, CODE.get(model.format, ""))
    for stage in (spec.preprocessor, spec.postprocessor):
        if stage is not None:
            storage.check(stage.storage_uri, stage.field, "Python code")
