"""api.v1.beta1.Suggestion: what Katib's controller asks. Nothing is kept between calls."""

from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc

from mlmesh_katib.algorithms import ALGORITHMS, Algorithm, Observed, Question
from mlmesh_katib.objective import MetricSummary, Objective
from mlmesh_katib.space import Parameter, make_parameter, make_space

MAX_REQUEST_NUMBER = 1000
_KINDS = {
    api_pb2.DOUBLE: "double",
    api_pb2.INT: "int",
    api_pb2.DISCRETE: "discrete",
    api_pb2.CATEGORICAL: "categorical",
}
_DISTRIBUTIONS = {
    api_pb2.UNIFORM: "uniform",
    api_pb2.LOG_UNIFORM: "logUniform",
    api_pb2.NORMAL: "normal",
    api_pb2.LOG_NORMAL: "logNormal",
}
_WAITING = {api_pb2.TrialStatus.CREATED, api_pb2.TrialStatus.RUNNING}


class SuggestionServicer(api_pb2_grpc.SuggestionServicer):
    """Answers a Katib controller."""

    def GetSuggestions(self, request: api_pb2.GetSuggestionsRequest, context: Any) -> api_pb2.GetSuggestionsReply:
        count = request.current_request_number
        if not 0 <= count <= MAX_REQUEST_NUMBER:
            raise InvalidArgument(f"must be 0 to {MAX_REQUEST_NUMBER}", field="current_request_number")
        algorithm, question, parameters = _question(request.experiment)
        observed = []
        objective = _objective(request.experiment.spec.objective)
        for trial in request.trials:
            assignments = {a.name: a.value for a in trial.spec.parameter_assignments.assignments}
            point = question.space.parse(assignments)
            if point is not None:
                waiting = trial.status.condition in _WAITING
                observed.append(Observed(point, _loss(trial, objective), running=waiting))
        asked = Question(question.space, question.settings, observed, len(request.trials), question.max_trial_count)
        reply = api_pb2.GetSuggestionsReply()
        points = algorithm.suggest(asked, count)
        if not points and count:
            raise FailedPrecondition("the search space is exhausted: every point has been suggested")
        for point in points:
            assignments_of = reply.parameter_assignments.add()
            for parameter, value in zip(parameters, point, strict=True):
                assignments_of.assignments.add(name=parameter.name, value=parameter.format(value))
        return reply

    def ValidateAlgorithmSettings(
        self, request: api_pb2.ValidateAlgorithmSettingsRequest, context: Any
    ) -> api_pb2.ValidateAlgorithmSettingsReply:
        _question(request.experiment)
        return api_pb2.ValidateAlgorithmSettingsReply()


def _question(experiment: api_pb2.Experiment) -> tuple[Algorithm, Question, tuple[Parameter, ...]]:
    spec = experiment.spec
    name = spec.algorithm.algorithm_name
    algorithm = ALGORITHMS.get(name)
    if algorithm is None:
        served = ", ".join(sorted(ALGORITHMS))
        raise InvalidArgument(
            f"unknown algorithm name {name}; served are {served}", field="experiment.spec.algorithm.algorithm_name"
        )
    where = "experiment.spec.parameter_specs.parameters"
    parameters = []
    for index, parameter in enumerate(spec.parameter_specs.parameters):
        feasible = parameter.feasible_space
        parameters.append(
            make_parameter(
                parameter.name,
                _KINDS.get(parameter.parameter_type, ""),
                low=feasible.min,
                high=feasible.max,
                step=feasible.step,
                values=list(feasible.list),
                distribution=_DISTRIBUTIONS.get(feasible.distribution, ""),
                field=f"{where}[{index}]",
            )
        )
    space = make_space(parameters, where)
    settings: Mapping[str, str] = {s.name: s.value for s in spec.algorithm.algorithm_settings}
    question = Question(space, settings, (), max_trial_count=spec.max_trial_count)
    algorithm.validate(question)
    return algorithm, question, space.parameters


def _objective(spec: api_pb2.ObjectiveSpec) -> Objective:
    return Objective(spec.objective_metric_name, spec.type == api_pb2.MAXIMIZE, None, (), {})


def _loss(trial: api_pb2.Trial, objective: Objective) -> float | None:
    if trial.status.condition != api_pb2.TrialStatus.SUCCEEDED:
        return None
    metrics = [MetricSummary(m.name, m.value, m.value, m.value) for m in trial.status.observation.metrics]
    value = objective.value(metrics)
    return None if value is None else objective.loss(value)
