"""api.v1.beta1.Suggestion: what Katib's controller asks. Nothing is kept between calls."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc

from mlmesh_katib.algorithms import ALGORITHMS, Algorithm, Observed, Question
from mlmesh_katib.objective import Objective
from mlmesh_katib.space import Space, make_parameter, make_space

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
_MEASURED = {api_pb2.TrialStatus.SUCCEEDED, api_pb2.TrialStatus.EARLYSTOPPED}


class SuggestionServicer(api_pb2_grpc.SuggestionServicer):
    """Answers a Katib controller."""

    def GetSuggestions(self, request: api_pb2.GetSuggestionsRequest, context: Any) -> api_pb2.GetSuggestionsReply:
        count = request.current_request_number
        if not 0 <= count <= MAX_REQUEST_NUMBER:
            raise InvalidArgument(f"must be 0 to {MAX_REQUEST_NUMBER}", field="current_request_number")
        algorithm, question = _question(request.experiment)
        objective = _objective(request.experiment.spec.objective)
        observed = [
            found for trial in request.trials if (found := _observed(trial, question.space, objective)) is not None
        ]
        answer = algorithm.answer(replace(question, trials=observed, made=len(request.trials)), count)
        if not answer.suggestions and count and not answer.wait:
            raise FailedPrecondition("the search space is exhausted: every point has been suggested")
        reply = api_pb2.GetSuggestionsReply()
        for suggestion in answer.suggestions:
            added = reply.parameter_assignments.add(trial_name=suggestion.name, labels=suggestion.labels)
            for name, value in suggestion.assignments.items():
                added.assignments.add(name=name, value=value)
        if answer.settings:
            reply.algorithm.algorithm_name = algorithm.name
            for name, value in {**question.settings, **answer.settings}.items():
                reply.algorithm.algorithm_settings.add(name=name, value=value)
        return reply

    def ValidateAlgorithmSettings(
        self, request: api_pb2.ValidateAlgorithmSettingsRequest, context: Any
    ) -> api_pb2.ValidateAlgorithmSettingsReply:
        _question(request.experiment)
        return api_pb2.ValidateAlgorithmSettingsReply()


def _question(experiment: api_pb2.Experiment) -> tuple[Algorithm, Question]:
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
    question = Question(
        space,
        settings,
        (),
        max_trial_count=spec.max_trial_count,
        parallel=spec.parallel_trial_count,
        experiment=experiment.name,
    )
    algorithm.validate(question)
    return algorithm, question


def _objective(spec: api_pb2.ObjectiveSpec) -> Objective:
    return Objective(spec.objective_metric_name, spec.type == api_pb2.MAXIMIZE, None, (), {})


def _observed(trial: api_pb2.Trial, space: Space, objective: Objective) -> Observed | None:
    """Reads a trial; None if it is no point of the space (the experiment was edited since)."""
    assignments = {given.name: given.value for given in trial.spec.parameter_assignments.assignments}
    point = space.parse(assignments)
    if point is None:
        return None
    condition = trial.status.condition
    loss = _loss(trial, objective) if condition in _MEASURED else None
    return Observed(
        point,
        loss,
        running=condition in _WAITING,
        stopped=condition == api_pb2.TrialStatus.EARLYSTOPPED,
        name=trial.name,
        labels=dict(trial.spec.labels),
        assignments=assignments,
    )


def _loss(trial: api_pb2.Trial, objective: Objective) -> float | None:
    for metric in trial.status.observation.metrics:
        if metric.name == objective.metric:
            value = objective.number(metric.value)
            return None if value is None else objective.loss(value)
    return None
