"""api.v1.beta1.EarlyStopping: what Katib's controller, and the metrics collectors beside its trials, ask."""

from typing import Any

from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc

from mlmesh_katib.early_stopping import EARLY_STOPPING, EarlyStopping, History, MedianStop
from mlmesh_katib.engine import ExperimentEngine
from mlmesh_katib.objective import Objective
from mlmesh_katib.store import KatibStore

_WHERE = "experiment.spec.early_stopping"


class EarlyStoppingServicer(api_pb2_grpc.EarlyStoppingServicer):
    """Gives rules, and marks trials.

    Args:
        store: Holds the observation logs. The reports that a rule is made of are read here: no connection is opened to
            the `db_manager_address` of a request, which could be any address that the caller cannot reach.
        engine: Runs the trials that can be marked.
    """

    def __init__(self, store: KatibStore, engine: ExperimentEngine) -> None:
        self._store = store
        self._engine = engine

    def ValidateEarlyStoppingSettings(
        self, request: api_pb2.ValidateEarlyStoppingSettingsRequest, context: Any
    ) -> api_pb2.ValidateEarlyStoppingSettingsReply:
        _checked(request.early_stopping, "early_stopping")
        return api_pb2.ValidateEarlyStoppingSettingsReply()

    def GetEarlyStoppingRules(
        self, request: api_pb2.GetEarlyStoppingRulesRequest, context: Any
    ) -> api_pb2.GetEarlyStoppingRulesReply:
        spec = request.experiment.spec
        rule, settings = _checked(spec.early_stopping, _WHERE)
        reply = api_pb2.GetEarlyStoppingRulesReply()
        if not isinstance(rule, MedianStop):  # a rule of ours: it decides while trials report, and cannot be told ahead
            return reply
        objective = Objective(
            spec.objective.objective_metric_name, spec.objective.type == api_pb2.MAXIMIZE, None, (), {}
        )
        first = rule.start_step(settings)
        succeeded = [t.name for t in request.trials if t.status.condition == api_pb2.TrialStatus.SUCCEEDED]
        median = rule.median(settings, [self._history(name, objective, first) for name in succeeded])
        if median is not None:
            reply.early_stopping_rules.add(
                name=objective.metric,
                value=str(objective.loss(median)),
                comparison=api_pb2.LESS if objective.maximize else api_pb2.GREATER,
                start_step=first,
            )
        return reply

    async def SetTrialStatus(self, request: api_pb2.SetTrialStatusRequest, context: Any) -> api_pb2.SetTrialStatusReply:
        name = request.trial_name
        if not self._engine.stop_early(name, "its metrics collector says so"):
            raise NotFound(message=f"no trial {name[:255]!r} runs here")
        return api_pb2.SetTrialStatusReply()

    def _history(self, trial_name: str, objective: Objective, most: int) -> History:
        logs = self._store.get_logs(trial_name, objective.metric, "", "", most)
        values = [objective.number(log.value) for log in logs]
        return History(trial_name, tuple(objective.loss(value) for value in values if value is not None), ended=True)


def _checked(spec: api_pb2.EarlyStoppingSpec, where: str) -> tuple[EarlyStopping, dict[str, str]]:
    rule = EARLY_STOPPING.get(spec.algorithm_name)
    if rule is None:
        served = ", ".join(sorted(EARLY_STOPPING))
        raise InvalidArgument(
            f"unknown algorithm name {spec.algorithm_name[:100]}; served are {served}", field=f"{where}.algorithm_name"
        )
    settings = {setting.name: setting.value for setting in spec.algorithm_settings}
    rule.validate(settings)
    return rule, settings
