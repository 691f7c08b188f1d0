"""api.v1.beta1.EarlyStopping: what Katib's controller, and the metrics collectors beside its trials, ask."""

from collections.abc import Sequence
from typing import Any

from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc

from mlmesh_katib.early_stopping import EARLY_STOPPING, EarlyStopping, History, MedianStop
from mlmesh_katib.engine import ExperimentEngine
from mlmesh_katib.objective import Objective
from mlmesh_katib.observation_source import ObservationSource
from mlmesh_katib.servicers.katib import setting_error


class EarlyStoppingServicer(api_pb2_grpc.EarlyStoppingServicer):
    """Gives rules, and marks trials.

    Args:
        source: Where the reports are that a rule is made of.
        engine: Runs the trials that can be marked.
    """

    def __init__(self, source: ObservationSource, engine: ExperimentEngine) -> None:
        self._source = source
        self._engine = engine

    def ValidateEarlyStoppingSettings(
        self, request: api_pb2.ValidateEarlyStoppingSettingsRequest, context: Any
    ) -> api_pb2.ValidateEarlyStoppingSettingsReply:
        _checked(request.early_stopping)
        return api_pb2.ValidateEarlyStoppingSettingsReply()

    def GetEarlyStoppingRules(
        self, request: api_pb2.GetEarlyStoppingRulesRequest, context: Any
    ) -> api_pb2.GetEarlyStoppingRulesReply:
        spec = request.experiment.spec
        rule, settings = _checked(spec.early_stopping, default=MedianStop.name)
        reply = api_pb2.GetEarlyStoppingRulesReply()
        if not isinstance(rule, MedianStop):  # a rule of ours: it decides while trials report, and cannot be told ahead
            return reply
        objective = Objective(
            spec.objective.objective_metric_name, spec.objective.type == api_pb2.MAXIMIZE, None, (), {}
        )
        first = rule.start_step(settings)
        succeeded = [t.name for t in request.trials if t.status.condition == api_pb2.TrialStatus.SUCCEEDED]
        reported = self._source.first(request.db_manager_address, succeeded, objective.metric, first)
        median = rule.median(settings, [_history(name, values, objective) for name, values in reported.items()])
        if median is not None:
            reply.early_stopping_rules.add(
                name=objective.metric,
                value=str(objective.loss(median)),
                comparison=api_pb2.LESS if objective.maximize else api_pb2.GREATER,
                start_step=first,
            )
        return reply

    async def SetTrialStatus(self, request: api_pb2.SetTrialStatusRequest, context: Any) -> api_pb2.SetTrialStatusReply:
        await self._engine.stop_early(request.trial_name, "its metrics collector says so")
        return api_pb2.SetTrialStatusReply()


def _history(trial: str, values: Sequence[str], objective: Objective) -> History:
    numbers = [objective.number(value) for value in values]
    return History(trial, tuple(objective.loss(number) for number in numbers if number is not None), ended=True)


def _checked(spec: api_pb2.EarlyStoppingSpec, default: str = "") -> tuple[EarlyStopping, dict[str, str]]:
    name = spec.algorithm_name or default
    rule = EARLY_STOPPING.get(name)
    if rule is None:
        raise setting_error(InvalidArgument(f"unknown algorithm name {name[:100]}", field="algorithm_name"))
    settings = {setting.name: setting.value for setting in spec.algorithm_settings}
    try:
        rule.validate(settings)
    except InvalidArgument as error:
        raise setting_error(error) from error
    return rule, settings
