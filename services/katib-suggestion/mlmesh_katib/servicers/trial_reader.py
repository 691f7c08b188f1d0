"""Reads the trials of Katib's requests. A controller sends all of them each time: what was read is remembered."""

import functools
from collections.abc import Iterable, Mapping, Sequence

from mlmesh_protos.api.v1.beta1 import api_pb2

from mlmesh_katib.algorithms import Algorithm, Observed
from mlmesh_katib.objective import Objective
from mlmesh_katib.space import Space, Value

_READERS = 16
_REMEMBERED = 2048
_LARGEST = 2048
_NO_LABELS: Mapping[str, str] = {}
_NO_TEXTS: Mapping[str, str] = {}
_NOT_STARTED = "~"  # behind all times
_WAITING = {api_pb2.TrialStatus.CREATED, api_pb2.TrialStatus.RUNNING}
_STOPPED = api_pb2.TrialStatus.EARLYSTOPPED
_MEASURED = {api_pb2.TrialStatus.SUCCEEDED, _STOPPED}


@functools.lru_cache(_READERS)
def trial_reader(algorithm: Algorithm, space: Space, metric: str, maximize: bool) -> "TrialReader":
    """Gives the reader of an experiment; the same one again while it is remembered."""
    return TrialReader(algorithm, space, metric, maximize)


class TrialReader:
    """Makes of trials what an algorithm has to know of them.

    Args:
        algorithm: What it does not look at (results, texts) is not read.
        space: Where they are.
        metric: The objective of those that name none.
        maximize: Whether more of it is better.
    """

    def __init__(self, algorithm: Algorithm, space: Space, metric: str, maximize: bool) -> None:
        self._space = space
        self._parsers = () if space.activations else tuple((p.name, p.parse) for p in space.parameters)
        self._reads_results = algorithm.reads_results
        self._reads_texts = algorithm.reads_assignments
        self._objective = Objective(metric, maximize, None, (), {})
        self._known: dict[bytes, Observed | None] = {}

    def read(self, trials: Sequence[api_pb2.Trial]) -> list[Observed]:
        """Gives them in the order they were started; a controller sends them in that of their random names.

        Those that are no point of the space are left out: the experiment was edited since.
        """
        known = self._known
        found = []
        for trial in sorted(trials, key=lambda trial: trial.status.start_time or _NOT_STARTED):
            raw = trial.SerializeToString()
            try:
                observed = known[raw]
            except KeyError:
                observed = self._read(trial)
                if len(raw) <= _LARGEST and len(known) < _REMEMBERED:
                    known[raw] = observed
            if observed is not None:
                found.append(observed)
        if len(known) >= _REMEMBERED:
            known.clear()
        return found

    def _read(self, trial: api_pb2.Trial) -> Observed | None:
        # Each attribute of a message is a call: with thousands of trials they are what takes the time.
        spec, status = trial.spec, trial.status
        items = spec.parameter_assignments.assignments
        assignments = _NO_TEXTS
        point = None if self._reads_texts else self._in_order(items)
        if point is None:
            assignments = {item.name: item.value for item in items}
            point = self._space.parse(assignments)
            if point is None:
                return None
        condition = status.condition
        loss = None
        if (
            self._reads_results and condition in _MEASURED
        ):  # by the metric that the trial's own objective names, as Katib does
            metric = spec.objective.objective_metric_name or self._objective.metric
            loss = self._loss(metric, status.observation.metrics)
        labels = spec.labels
        return Observed(
            point,
            loss,
            condition in _WAITING,
            stopped=condition == _STOPPED,
            name=trial.name,
            labels=dict(labels) if labels else _NO_LABELS,
            assignments=assignments,
        )

    def _in_order(self, items: Sequence[api_pb2.ParameterAssignment]) -> tuple[Value, ...] | None:
        """Reads the values of assignments that are in the order of the space, as ours are; None: they are not."""
        if len(items) != len(self._parsers):
            return None
        values = []
        for (name, parse), item in zip(self._parsers, items, strict=True):
            if item.name != name or (value := parse(item.value)) is None:
                return None
            values.append(value)
        return tuple(values)

    def _loss(self, metric: str, reported: Iterable[api_pb2.Metric]) -> float | None:
        for one in reported:
            if one.name == metric:
                value = self._objective.number(one.value)
                return None if value is None else self._objective.loss(value)
        return None
