"""api.v1.beta1.Suggestion: what Katib's controller asks. Nothing is kept between calls."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, Unavailable
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc

from mlmesh_katib.algorithms import ALGORITHMS, Algorithm, Observed, Question
from mlmesh_katib.servicers.katib import KINDS, nas_config, setting_error
from mlmesh_katib.servicers.trial_reader import TrialReaders
from mlmesh_katib.space import Space, make_parameter, make_space

MAX_REQUEST_NUMBER = 1000
_RETRY_SECONDS = 5.0
_DISTRIBUTIONS = {
    api_pb2.UNIFORM: "uniform",
    api_pb2.LOG_UNIFORM: "logUniform",
    api_pb2.NORMAL: "normal",
    api_pb2.LOG_NORMAL: "logNormal",
}
_PARAMETERS = "experiment.spec.parameter_specs.parameters"


class SuggestionServicer(api_pb2_grpc.SuggestionServicer):
    """Answers a Katib controller."""

    def __init__(self) -> None:
        self._readers = TrialReaders()

    def GetSuggestions(self, request: api_pb2.GetSuggestionsRequest, context: Any) -> api_pb2.GetSuggestionsReply:
        count = request.current_request_number
        if not 0 <= count <= MAX_REQUEST_NUMBER:
            raise InvalidArgument(f"must be 0 to {MAX_REQUEST_NUMBER}", field="current_request_number")
        algorithm, question = _question(request.experiment)
        if not question.space.parameters and not algorithm.searches_architectures:
            raise InvalidArgument("must hold at least 1 parameter", field=_PARAMETERS)
        try:
            algorithm.check(question)
        except InvalidArgument as error:
            raise setting_error(error) from error
        space = algorithm.space_of(question.space, question.settings)
        # Of what was suggested before, the controller leaves out trials without metrics.
        made = max(len(request.trials), request.total_request_number - count)
        asked = replace(question, space=space, trials=self._trials(algorithm, request, space), made=made)
        answer = algorithm.answer(asked, count)
        if not answer.suggestions and count:
            if answer.wait:
                raise Unavailable("trials that run have to end first", retry_after_seconds=_RETRY_SECONDS)
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
        algorithm, question = _question(request.experiment)
        try:
            algorithm.validate(question)
        except InvalidArgument as error:
            raise setting_error(error) from error
        return api_pb2.ValidateAlgorithmSettingsReply()

    def _trials(self, algorithm: Algorithm, request: api_pb2.GetSuggestionsRequest, space: Space) -> list[Observed]:
        objective = request.experiment.spec.objective
        maximize = objective.type == api_pb2.MAXIMIZE
        return self._readers.read(
            request.experiment.name, algorithm, space, objective.objective_metric_name, maximize, request.trials
        )


def _question(experiment: api_pb2.Experiment) -> tuple[Algorithm, Question]:
    spec = experiment.spec
    name = spec.algorithm.algorithm_name
    algorithm = ALGORITHMS.get(name)
    if algorithm is None:
        error = InvalidArgument(f"unknown algorithm name {name[:100]}", field="algorithm_name")
        raise setting_error(error)
    question = Question(
        _space(spec.parameter_specs.parameters),
        {setting.name: setting.value for setting in spec.algorithm.algorithm_settings},
        (),
        max_trial_count=spec.max_trial_count,
        parallel=spec.parallel_trial_count,
        nas=nas_config(spec.nas_config) if algorithm.searches_architectures else None,
        experiment=experiment.name,
    )
    return algorithm, question


def _space(specs: Iterable[api_pb2.ParameterSpec]) -> Space:
    """Reads the space; without parameters where none are given, as Katib validates settings without them."""
    parameters = []
    for index, parameter in enumerate(specs):
        feasible = parameter.feasible_space
        parameters.append(
            make_parameter(
                parameter.name,
                KINDS.get(parameter.parameter_type, ""),
                low=feasible.min,
                high=feasible.max,
                step=feasible.step,
                values=list(feasible.list),
                distribution=_DISTRIBUTIONS.get(feasible.distribution, ""),
                field=f"{_PARAMETERS}[{index}]",
            )
        )
    return make_space(parameters, _PARAMETERS) if parameters else Space(())
