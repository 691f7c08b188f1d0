"""Reads the trials of Katib's requests. A controller sends all of them each time: what was read is remembered."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from mlmesh_protos.api.v1.beta1 import api_pb2

from mlmesh_katib.algorithms import Algorithm, Observed
from mlmesh_katib.objective import Objective
from mlmesh_katib.space import Space, Value

_REMEMBERED_BYTES = 256 << 20
_LARGEST = 2048
_BESIDE = 600  # bytes of what was read, about, beside the bytes it was read from
_NO_LABELS: Mapping[str, str] = {}
_NO_TEXTS: Mapping[str, str] = {}
_NOT_STARTED = "~"  # behind all times
_WAITING = {api_pb2.TrialStatus.CREATED, api_pb2.TrialStatus.RUNNING}
_STOPPED = api_pb2.TrialStatus.EARLYSTOPPED
_MEASURED = {api_pb2.TrialStatus.SUCCEEDED, _STOPPED}


_Key = tuple[str, str, Space, str, bool]


class TrialReaders:
    """The readers of the experiments that asked last: as many as their memory allows.

    Args:
        most_bytes: Of all that they remember.
    """

    def __init__(self, most_bytes: int = _REMEMBERED_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._readers: OrderedDict[_Key, tuple[TrialReader, int]] = OrderedDict()  # with its size, as it is counted
        self._bytes = 0

    def read(
        self,
        experiment: str,
        algorithm: Algorithm,
        space: Space,
        metric: str,
        maximize: bool,
        trials: Sequence[api_pb2.Trial],
    ) -> list[Observed]:
        """Reads the trials of an experiment; the other arguments and the answer are `TrialReader`'s."""
        key = (experiment, algorithm.name, space, metric, maximize)
        with self._lock:
            reader, size = self._readers.pop(key, (None, 0))
            self._bytes -= size
        if reader is None:
            reader = TrialReader(algorithm, space, metric, maximize)
        found = reader.read(trials)
        with self._lock:
            _, size = self._readers.pop(key, (None, 0))  # of the same experiment, asked twice at once
            self._readers[key] = (reader, reader.bytes)
            self._bytes += reader.bytes - size
            while self._bytes > self._most_bytes:
                _, (_, size) = self._readers.popitem(last=False)
                self._bytes -= size
        return found


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
        values = sum(len(parameter.choices) for parameter in space.parameters)
        self._own_bytes = 4096 + 1000 * len(space.parameters) + 200 * values
        self.bytes = self._own_bytes  # about

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
                if len(raw) <= _LARGEST:
                    known[raw] = observed
                    self.bytes += len(raw) + _BESIDE
            if observed is not None:
                found.append(observed)
        if len(known) > 2 * len(trials):  # states that trials have left
            known.clear()
            self.bytes = self._own_bytes
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
