"""mlmesh.katib.v1.ExperimentService: experiments and trials."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from google.api.httpbody_pb2 import HttpBody
from google.protobuf import empty_pb2, json_format
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.names import check_name, parse_resource
from mlmesh_kit.paging import decode_page_token, encode_page_token
from mlmesh_protos.mlmesh.katib.v1 import experiment_pb2 as pb
from mlmesh_protos.mlmesh.katib.v1 import experiment_pb2_grpc

from mlmesh_katib.engine import ExperimentEngine
from mlmesh_katib.experiment import Condition, Experiment, Trial, TrialState, best_trial, optimal_trials
from mlmesh_katib.manifest import parse_manifest
from mlmesh_katib.objective import MetricSummary
from mlmesh_katib.report.draw import draw
from mlmesh_katib.report.look import POLICY
from mlmesh_katib.store import KatibStore
from mlmesh_katib.warm_start import EarlierTrials

MAX_MANIFEST_BYTES = 1 << 20
MAX_PAGE = 1000
_INT64 = 2**63
_EXPERIMENT = "namespaces/{namespace}/experiments/{experiment}"


class ExperimentServicer(experiment_pb2_grpc.ExperimentServiceServicer):
    """Manages experiments.

    Args:
        store: Holds them.
        engine: Runs them.
        earlier: Reads what experiments start with.
        max_trials: Largest maxTrialCount.
    """

    def __init__(self, store: KatibStore, engine: ExperimentEngine, earlier: EarlierTrials, max_trials: int) -> None:
        self._store = store
        self._engine = engine
        self._earlier = earlier
        self._max_trials = max_trials
        self._drawing = asyncio.Lock()

    async def CreateExperiment(self, request: pb.CreateExperimentRequest, context: Any) -> pb.Experiment:
        namespace = parse_resource(request.parent, "namespaces/{namespace}", "parent")["namespace"]
        check_name(namespace, "parent")
        manifest = _manifest(request.manifest, "manifest")
        metadata = manifest.get("metadata")
        given = metadata.get("namespace") if isinstance(metadata, dict) else None
        if given not in (None, "", namespace):
            raise InvalidArgument(f"must be {namespace!r}, as in parent", field="manifest.metadata.namespace")
        spec = await asyncio.to_thread(self._engine.check, manifest)
        earlier = await self._earlier.read(namespace, spec)
        experiment = await asyncio.to_thread(self._engine.create, namespace, manifest, earlier)
        self._engine.wake()
        return _experiment(experiment, {})

    def GetExperiment(self, request: pb.GetExperimentRequest, context: Any) -> pb.Experiment:
        return self._whole(self._find(request.name))

    async def GetExperimentReport(self, request: pb.GetExperimentReportRequest, context: Any) -> HttpBody:
        experiment = await asyncio.to_thread(self._find, request.name)
        async with self._drawing:  # it takes a processor for a second: one at a time
            html = await asyncio.to_thread(draw, self._store, experiment, self._max_trials)
        await context.send_initial_metadata(
            (("content-security-policy", POLICY), ("x-content-type-options", "nosniff"))
        )
        return HttpBody(content_type="text/html; charset=utf-8", data=html.encode())

    def ListExperiments(self, request: pb.ListExperimentsRequest, context: Any) -> pb.ListExperimentsResponse:
        namespace = parse_resource(request.parent, "namespaces/{namespace}", "parent")["namespace"]
        size = _page_size(request.page_size, 100)
        before = _position(request.page_token, namespace)
        found = self._store.list_experiments(namespace, before, size + 1)
        ids = [item.id for item in found[:size]]
        counts, best = self._store.count_trials(ids), self._store.best_trials(ids)
        response = pb.ListExperimentsResponse(
            experiments=[_experiment(item, counts.get(item.id, {}), best.get(item.id)) for item in found[:size]]
        )
        if len(found) > size:
            response.next_page_token = encode_page_token(found[size - 1].id, namespace)
        return response

    async def DeleteExperiment(self, request: pb.DeleteExperimentRequest, context: Any) -> empty_pb2.Empty:
        parts = parse_resource(request.name, _EXPERIMENT)
        await self._engine.delete(parts["namespace"], parts["experiment"])
        return empty_pb2.Empty()

    async def UpdateExperiment(self, request: pb.UpdateExperimentRequest, context: Any) -> pb.Experiment:
        parts = parse_resource(request.experiment.name, _EXPERIMENT, "experiment.name")
        manifest = _manifest(request.experiment.manifest, "experiment.manifest")
        paths = [path.removeprefix("manifest.") for path in request.update_mask.paths]
        changed = await self._engine.update(parts["namespace"], parts["experiment"], manifest, paths)
        return await self._read(changed)

    async def PauseExperiment(self, request: pb.PauseExperimentRequest, context: Any) -> pb.Experiment:
        parts = parse_resource(request.name, _EXPERIMENT)
        return await self._read(await self._engine.pause(parts["namespace"], parts["experiment"], paused=True))

    async def ResumeExperiment(self, request: pb.ResumeExperimentRequest, context: Any) -> pb.Experiment:
        parts = parse_resource(request.name, _EXPERIMENT)
        return await self._read(await self._engine.pause(parts["namespace"], parts["experiment"], paused=False))

    def ListObservations(self, request: pb.ListObservationsRequest, context: Any) -> pb.ListObservationsResponse:
        parts = parse_resource(request.parent, _EXPERIMENT + "/trials/{trial}", "parent")
        experiment = self._store.get_experiment(parts["namespace"], parts["experiment"])
        trial = self._store.get_trial(experiment, parts["trial"])
        if request.after < 0:
            raise InvalidArgument("must not be negative", field="after")
        size = _page_size(request.page_size, MAX_PAGE)
        found = self._store.reports(experiment.namespace, trial.name, request.metric, request.after, size)
        return pb.ListObservationsResponse(
            reports=[
                pb.MetricReport(position=position, metric=log.name, value=log.value, time=log.time)
                for position, log in found
            ],
            next_position=found[-1][0] if found else request.after,
        )

    def GetTrial(self, request: pb.GetTrialRequest, context: Any) -> pb.Trial:
        parts = parse_resource(request.name, _EXPERIMENT + "/trials/{trial}")
        experiment = self._store.get_experiment(parts["namespace"], parts["experiment"])
        return _trial(experiment, self._store.get_trial(experiment, parts["trial"]))

    def ListTrials(self, request: pb.ListTrialsRequest, context: Any) -> pb.ListTrialsResponse:
        experiment = self._find(request.parent, "parent")
        size = _page_size(request.page_size, MAX_PAGE)
        after = _position(request.page_token, request.parent) or 0
        found = self._store.trials(experiment.id, after, size + 1)
        response = pb.ListTrialsResponse(trials=[_trial(experiment, trial) for trial in found[:size]])
        if len(found) > size:
            response.next_page_token = encode_page_token(found[size - 1].number, request.parent)
        return response

    async def _read(self, experiment: Experiment) -> pb.Experiment:
        return await asyncio.to_thread(self._whole, experiment)

    def _whole(self, experiment: Experiment) -> pb.Experiment:
        trials = self._store.trials(experiment.id)
        spec = parse_manifest(experiment.manifest, self._max_trials)
        front = optimal_trials(spec, trials) if spec.objective.others else ()
        return _experiment(experiment, Counter(trial.state for trial in trials), best_trial(spec, trials), front)

    def _find(self, name: str, field: str = "name") -> Experiment:
        parts = parse_resource(name, _EXPERIMENT, field)
        return self._store.get_experiment(parts["namespace"], parts["experiment"])


def _experiment(
    experiment: Experiment,
    counts: Mapping[TrialState, int],
    best: Trial | None = None,
    front: Sequence[Trial] = (),
) -> pb.Experiment:
    status = pb.ExperimentStatus(
        conditions=[_condition(condition) for condition in experiment.conditions],
        start_time=_timestamp(experiment.created_ms),
        completion_time=_timestamp(experiment.completed_ms),
        trials=sum(counts.values()),
        trials_pending=counts.get(TrialState.CREATED, 0),
        trials_running=counts.get(TrialState.RUNNING, 0),
        trials_succeeded=counts.get(TrialState.SUCCEEDED, 0),
        trials_failed=counts.get(TrialState.FAILED, 0),
        trial_metrics_unavailable=counts.get(TrialState.METRICS_UNAVAILABLE, 0),
        trials_killed=counts.get(TrialState.KILLED, 0),
        trials_early_stopped=counts.get(TrialState.EARLY_STOPPED, 0),
        paused=experiment.paused,
        pareto_front=[_optimal(trial) for trial in front],
    )
    if best is not None:
        status.current_optimal_trial.CopyFrom(_optimal(best))
    result = pb.Experiment(name=f"namespaces/{experiment.namespace}/experiments/{experiment.name}", status=status)
    result.manifest.update(dict(experiment.manifest))
    return result


def _manifest(given: Struct, field: str) -> dict[str, Any]:
    if given.ByteSize() > MAX_MANIFEST_BYTES:
        raise InvalidArgument(f"must be at most {MAX_MANIFEST_BYTES} bytes", field=field)
    try:
        return dict(json_format.MessageToDict(given))
    except (ValueError, json_format.Error) as error:
        raise InvalidArgument("must hold no number that JSON has not (NaN, infinity)", field=field) from error


def _page_size(asked: int, default: int) -> int:
    if not 0 <= asked <= MAX_PAGE:
        raise InvalidArgument(f"must be 0 to {MAX_PAGE}", field="page_size")
    return asked or default


def _position(token: str, parent: str) -> int | None:
    """Reads a token; a client can make up one whose content is anything."""
    position = decode_page_token(token, parent)
    if token and not (type(position) is int and 0 <= position < _INT64):  # True is an int, too
        raise InvalidArgument("must be a token from an earlier answer to the same list request", field="page_token")
    return cast("int | None", position)


def _trial(experiment: Experiment, trial: Trial) -> pb.Trial:
    return pb.Trial(
        name=f"namespaces/{experiment.namespace}/experiments/{experiment.name}/trials/{trial.name}",
        parameter_assignments=_assignments(trial),
        conditions=[_condition(condition) for condition in trial.conditions],
        observation=_observation(trial.observation),
        start_time=_timestamp(trial.started_ms),
        completion_time=_timestamp(trial.completed_ms),
        attempts=trial.attempts,
        labels=trial.labels,
        model_uri=trial.model_uri,
    )


def _optimal(trial: Trial) -> pb.OptimalTrial:
    return pb.OptimalTrial(
        best_trial_name=trial.name,
        parameter_assignments=_assignments(trial),
        observation=_observation(trial.observation),
        model_uri=trial.model_uri,
    )


def _assignments(trial: Trial) -> list[pb.ParameterAssignment]:
    return [pb.ParameterAssignment(name=name, value=value) for name, value in trial.assignments.items()]


def _observation(summaries: Sequence[MetricSummary]) -> pb.Observation:
    return pb.Observation(metrics=[pb.Metric(name=s.name, latest=s.latest, min=s.min, max=s.max) for s in summaries])


def _condition(condition: Condition) -> pb.Condition:
    return pb.Condition(
        type=condition.type,
        status="True" if condition.holds else "False",
        reason=condition.reason,
        message=condition.message,
        last_transition_time=_timestamp(condition.at_ms),
    )


def _timestamp(milliseconds: int | None) -> Timestamp | None:
    if milliseconds is None:
        return None
    found = Timestamp()
    found.FromMilliseconds(milliseconds)
    return found
