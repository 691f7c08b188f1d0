"""What came of `mlmesh.tune`."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from mlmesh.cli.client import Ingress, IngressError
from mlmesh.tuning.runner import Reader, read_values

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 1.0
_PATIENCE_SECONDS = 60.0
_LOG_LINES = 15
_ENDED = ("Succeeded", "Failed")
_T = TypeVar("_T")


class TuneError(RuntimeError):
    """The mesh does not answer, refuses, or the experiment has failed.

    Attributes:
        result: Of the experiment that has failed, with its trials; None: there is none.
    """

    def __init__(self, message: str, result: "TuneResult | None" = None) -> None:
        super().__init__(message)
        self.result = result


class TuneResult:
    """An experiment that `mlmesh.tune` made. What it says is read from the mesh when it is asked.

    Args:
        ingress: URL of the mesh.
        namespace: Of the experiment.
        name: Of the experiment.
        readers: How values are read, in the order of the parameters.
    """

    def __init__(self, ingress: str, namespace: str, name: str, readers: Sequence[Reader]) -> None:
        self.ingress = ingress
        self.namespace = namespace
        self.name = name
        self._readers = readers
        self._path = f"/katib/v1/namespaces/{quote(namespace, safe='')}/experiments/{quote(name, safe='')}"
        self._experiment: dict[str, Any] | None = None

    def __repr__(self) -> str:
        if self._experiment is None or not self._has_ended:
            return f"<TuneResult {self.namespace}/{self.name}>"
        return (
            f"<TuneResult {self.namespace}/{self.name}: {self.state}, best value {self.best_value!r} "
            f"with {self.best_parameters!r}>"
        )

    def wait(self, timeout: float | None = None) -> "TuneResult":
        """Waits for the end of the experiment; gives itself.

        Args:
            timeout: Seconds at most; None: for ever.

        Raises:
            TuneError: The experiment has failed, or the mesh does not answer for a minute.
            TimeoutError: It has not ended by then; it goes on.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        pause = _FIRST_WAIT
        while self.state not in _ENDED:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"experiment {self.name} has not ended after {timeout} s; it goes on")
            time.sleep(min(pause, left))
            pause = min(pause * 1.3, _LONGEST_WAIT)
        if self.state == "Failed":
            raise TuneError(self._why_failed(), self)
        return self

    @property
    def state(self) -> str:
        """Katib's condition that holds: Created, Running, Succeeded or Failed."""
        held = _held(self._read()["status"])
        return next((kind for kind in _ENDED if kind in held), next(iter(held), ""))

    @property
    def best_trial(self) -> str | None:
        """Name of the best trial so far (by the first objective); None before there is one."""
        return self._best.get("best_trial_name")

    @property
    def best_parameters(self) -> dict[str, Any]:
        """Its parameters, as the objective got them; empty before there is one."""
        return self._values(self._best)

    @property
    def best_value(self) -> float | None:
        """The value of its objective; None before there is one."""
        return self._value(self._best)

    @property
    def best_model_uri(self) -> str | None:
        """Where its model is: what it left in the folder MLMESH_MODEL_PATH; None: it left nothing there."""
        return self._best.get("model_uri") or None

    @property
    def best_metrics(self) -> dict[str, float]:
        """The latest of all metrics that it reported."""
        return _metrics(self._best)

    @property
    def pareto_front(self) -> list[dict[str, Any]]:
        """Where there are several objectives: the trials that no other one beats, each as in `trials`."""
        names = {item["best_trial_name"] for item in self._read()["status"].get("pareto_front", [])}
        return [trial for trial in self.trials if trial["name"] in names]

    @property
    def trials(self) -> list[dict[str, Any]]:
        """All trials in the order they were made.

        Each has `name`, `state` (Katib's condition), `message`, `parameters`, `metrics` (the latest values), `value`
        (of the objective; None: it has none), `start_time` and `completion_time` (RFC 3339; None: not yet).
        """
        self._read()
        found = self._call(lambda mesh: list(mesh.pages(f"{self._path}/trials", "trials", page_size=1000)))
        return [self._trial(trial) for trial in found]

    def report(self, path: str | Path | None = None) -> str:
        """Gives the report of the experiment: one HTML file that needs no other.

        Args:
            path: Where to write it, too.
        """
        text = self._call(lambda mesh: b"".join(mesh.chunks(f"{self._path}/report"))).decode()
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def delete(self) -> None:
        """Kills its trials and removes all that the mesh has of it."""
        self._call(lambda mesh: mesh.send("DELETE", self._path, None))

    @property
    def _best(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._read()["status"].get("current_optimal_trial", {})
        return found

    @property
    def _has_ended(self) -> bool:
        return self._experiment is not None and any(kind in _ENDED for kind in _held(self._experiment["status"]))

    def _read(self) -> dict[str, Any]:
        """Reads the experiment; one that has ended is not read again."""
        if self._experiment is None or not self._has_ended:
            found = self._call(lambda mesh: mesh.get(self._path, patience_seconds=_PATIENCE_SECONDS))
            self._experiment = {"status": {}, **found}
        return self._experiment

    def _call(self, do: Callable[[Ingress], _T]) -> _T:
        try:
            with Ingress(self.ingress) as mesh:
                return do(mesh)
        except IngressError as error:
            raise TuneError(str(error), self) from error

    def _values(self, trial: Mapping[str, Any]) -> dict[str, Any]:
        texts = {item["name"]: item.get("value", "") for item in trial.get("parameter_assignments", [])}
        return read_values(self._readers, texts)

    def _value(self, trial: Mapping[str, Any]) -> float | None:
        objective = self._read()["manifest"]["spec"]["objective"]
        name = objective["objectiveMetricName"]
        default = "max" if objective["type"] == "maximize" else "min"
        strategies = {item["name"]: item["value"] for item in objective.get("metricStrategies", [])}
        for metric in trial.get("observation", {}).get("metrics", []):
            if metric["name"] == name:
                return _number(metric.get(strategies.get(name, default)))
        return None

    def _trial(self, trial: Mapping[str, Any]) -> dict[str, Any]:
        held = _held(trial)
        state, message = next(reversed(held.items()), ("", ""))
        return {
            "name": trial["name"].rsplit("/", 1)[-1],
            "state": state,
            "message": message,
            "parameters": self._values(trial),
            "metrics": _metrics(trial),
            "value": self._value(trial),
            "start_time": trial.get("start_time"),
            "completion_time": trial.get("completion_time"),
        }

    def _why_failed(self) -> str:
        text = f"experiment {self.name} has failed: {_held(self._read()['status']).get('Failed', '')}"
        failed = next((trial for trial in self.trials if trial["state"] in {"Failed", "MetricsUnavailable"}), None)
        if failed is None:
            return text
        text += f"\n{failed['name']}: {failed['message']}"
        path = f"{self._path}/trials/{quote(failed['name'], safe='')}/log"
        try:
            log = self._call(lambda mesh: b"".join(mesh.chunks(path))).decode(errors="replace")
        except TuneError:
            return text  # it has printed nothing, or its log is elsewhere
        return "\n".join([text, *(f"  {line}" for line in log.splitlines()[-_LOG_LINES:])])


def _held(status: Mapping[str, Any]) -> dict[str, str]:
    """Gives the conditions that hold, oldest first: type → message."""
    conditions = status.get("conditions", [])
    return {item["type"]: item.get("message", "") for item in conditions if item.get("status") == "True"}


def _metrics(trial: Mapping[str, Any]) -> dict[str, float]:
    found = {item["name"]: _number(item.get("latest")) for item in trial.get("observation", {}).get("metrics", [])}
    return {name: value for name, value in found.items() if value is not None}


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
