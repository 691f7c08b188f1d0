"""Preprocessor → predictor → postprocessor in one process: arrays are handed on, never encoded in between.

It lives in a worker process, and takes all requests that are there at once: stages see each request alone, the model
sees their rows joined (`joining`).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from mlmesh_kit.errors import Internal, InvalidArgument, ServiceError

from mlmesh_serving.joining import Outcome, RowJoiner, Tensors
from mlmesh_serving.predictors.base import Predictor, bind
from mlmesh_serving.predictors.formats import FORMATS
from mlmesh_serving.stage import Stage, load_stage, load_transformer
from mlmesh_serving.tensor import TensorInfo, as_tensor, check_inputs
from mlmesh_serving.workers.plan import Plan

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
        max_rows: That the model is given at once.
    """

    def __init__(
        self,
        predictor: Predictor,
        preprocessor: Stage | None = None,
        postprocessor: Stage | None = None,
        inputs: Sequence[TensorInfo] = (),
        outputs: Sequence[TensorInfo] = (),
        max_rows: int = 1,
    ) -> None:
        self._predictor = predictor
        self._preprocessor = preprocessor
        self._postprocessor = postprocessor
        self._declared = list(inputs)
        self._joiner = RowJoiner(self._predict, max_rows)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.platform = predictor.platform
        self.inputs = self._declared or ([] if preprocessor else predictor.inputs)
        self.outputs = list(outputs) or ([] if postprocessor else predictor.outputs)

    def infer(self, requests: Sequence[Tensors]) -> list[Outcome]:
        """Runs the stages; gives for each request its outputs, or what is wrong.

        That is an InvalidArgument where the input is not what was declared, or a stage or the model refuses it; an
        Internal where a stage or the model failed, or gave what is no tensor.
        """
        outcomes: list[Outcome] = list(requests)
        if self._declared:
            outcomes = self._each(outcomes, self._check)
        if self._preprocessor is not None:
            outcomes = self._stage(outcomes, self._preprocessor)
        good = [(index, found) for index, found in enumerate(outcomes) if not isinstance(found, ServiceError)]
        predicted = self._joiner.predict([tensors for _, tensors in good])
        for (index, _), outcome in zip(good, predicted, strict=True):
            outcomes[index] = outcome
        if self._postprocessor is not None:
            outcomes = self._stage(outcomes, self._postprocessor)
        return outcomes

    def _stage(self, outcomes: Sequence[Outcome], stage: Stage) -> list[Outcome]:
        if not stage.is_async:
            return self._each(outcomes, lambda tensors: _run(stage, tensors))
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(_run_all(stage, outcomes))

    @staticmethod
    def _each(outcomes: Sequence[Outcome], function: Callable[[Tensors], Tensors]) -> list[Outcome]:
        results: list[Outcome] = []
        for outcome in outcomes:
            if isinstance(outcome, ServiceError):
                results.append(outcome)
                continue
            try:
                results.append(function(outcome))
            except ServiceError as error:
                results.append(error)
        return results

    def _check(self, tensors: Tensors) -> Tensors:
        return check_inputs(tensors, self._declared)

    def _predict(self, tensors: Tensors) -> Tensors:
        source = f"the {self._preprocessor.role} gave" if self._preprocessor else "got"
        arrays = bind(tensors, self._predictor.inputs, source)
        try:
            results = self._predictor.predict(arrays)
        except (Exception, SystemExit) as error:
            raise _failure("model", error, tensors[0].name if len(tensors) == 1 else "") from error
        try:
            return [as_tensor(name, result) for name, result in results.items()]
        except (TypeError, ValueError) as error:
            raise Internal(f"the model gave what is no tensor: {str(error)[:_MAX_REASON]}") from error


def _run(stage: Stage, tensors: Tensors) -> Tensors:
    argument = stage.prepare(tensors)
    try:
        result = stage.call(argument)
    except (Exception, SystemExit) as error:
        raise _failure(stage.role, error) from error
    return stage.finish(result, tensors[0].name if tensors else stage.role)


async def _run_all(stage: Stage, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Runs an async stage on all requests side by side."""

    async def one(outcome: Outcome) -> Outcome:
        if isinstance(outcome, ServiceError):
            return outcome
        try:
            return await _run_async(stage, outcome)
        except ServiceError as error:
            return error

    calls: list[Coroutine[Any, Any, Outcome]] = [one(outcome) for outcome in outcomes]
    return list(await asyncio.gather(*calls))


async def _run_async(stage: Stage, tensors: Tensors) -> Tensors:
    argument = stage.prepare(tensors)
    try:
        result = await stage.acall(argument)
    except (Exception, SystemExit) as error:
        raise _failure(stage.role, error) from error
    return stage.finish(result, tensors[0].name if tensors else stage.role)


def _failure(who: str, error: BaseException, tensor: str = "") -> ServiceError:
    """Python code refuses an input by a ValueError or a TypeError; anything else is a fault of the code's own."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, (ValueError, TypeError)):
        field = f"inputs[0] ({tensor})" if tensor else "inputs"
        return InvalidArgument(f"the {who} refused it: {str(error)[:_MAX_REASON]}", field=field)
    logger.error("the %s raised %s", who, type(error).__name__, exc_info=error)
    return Internal(f"the {who} raised {type(error).__name__}; the service's log has it")


def load_chain(plan: Plan) -> Chain:
    """Loads the model and its stages. Runs the user's code.

    Raises:
        FailedPrecondition, InvalidArgument: Something is missing, or cannot be loaded.
    """
    spec, files = plan.spec, plan.files
    options = replace(spec.predictor.options, code=files.code)
    predictor = FORMATS[spec.predictor.format](files.predictor, options)
    stages: dict[str, Stage] = {}
    for role, stage, folder in (
        ("preprocessor", spec.preprocessor, files.preprocessor),
        ("postprocessor", spec.postprocessor, files.postprocessor),
    ):
        if stage is not None and folder is not None:
            folder.check_code("Python code")
            stages[role] = load_stage(role, folder.path, stage.target)
    before, after = stages.get("preprocessor"), stages.get("postprocessor")
    if spec.transformer is not None and files.transformer is not None:
        files.transformer.check_code("Python code")
        before, after = load_transformer(files.transformer.path, spec.transformer.target)
    return Chain(
        predictor,
        before,
        after,
        spec.inputs,
        spec.outputs,
        plan.batching.max_rows if predictor.keeps_rows else 1,
    )
