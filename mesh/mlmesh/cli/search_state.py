"""An experiment as the commands see it: what was asked for, how far it is, and which trials are the best."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

_ENDED = ("Failed", "Succeeded")
_WITH_RESULT = frozenset({"Succeeded", "EarlyStopped"})
ACTIVE = frozenset({"Created", "Running"})
"""States of trials that have not ended."""


@dataclass(frozen=True)
class Target:
    """An objective.

    Attributes:
        metric: Name of the metric.
        maximize: Whether larger is better.
        goal: The value that is wanted; None: none.
    """

    metric: str
    maximize: bool = False
    goal: float | None = None

    def loss(self, value: float) -> float:
        """Turns the objective around where larger is better."""
        return -value if self.maximize else value


@dataclass
class Search:
    """An experiment and its trials, as they are now.

    Attributes:
        experiment: As the service has it.
        trials: In the order they were made.
        changed: Those of them that are new, or not as they were when they were last read.
        reported: Of trials that run, the values of the objective so far: name of the trial → values, oldest first.
    """

    experiment: dict[str, Any]
    trials: list[dict[str, Any]] = field(default_factory=list)
    changed: list[dict[str, Any]] = field(default_factory=list)
    reported: dict[str, Sequence[float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the experiment, without its namespace."""
        return last_part(self.experiment)

    @property
    def spec(self) -> dict[str, Any]:
        """The manifest's spec."""
        return _mapping(_mapping(self.experiment.get("manifest")).get("spec"))

    @property
    def status(self) -> dict[str, Any]:
        """How far it is."""
        return _mapping(self.experiment.get("status"))

    @property
    def algorithm(self) -> str:
        """Name of the algorithm; empty where the manifest leaves the choice to the service."""
        return str(_mapping(self.spec.get("algorithm")).get("algorithmName") or "")

    @property
    def metric(self) -> str:
        """Name of the (first) objective's metric."""
        return self.targets[0].metric

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """All objectives, the first one first."""
        objective = _mapping(self.spec.get("objective"))
        given = [objective, *(objective.get("additionalObjectives") or ())]
        return tuple(
            Target(
                str(one.get("objectiveMetricName", "objective")),
                one.get("type") == "maximize",
                as_number(one.get("goal")),
            )
            for one in given
        )

    @cached_property
    def constraints(self) -> tuple[tuple[str, float | None, float | None], ...]:
        """Bounds of metrics: (name, smallest, largest)."""
        given = _mapping(self.spec.get("objective")).get("constraints") or ()
        return tuple(
            (str(one.get("metricName")), as_number(one.get("min")), as_number(one.get("max"))) for one in given
        )

    @cached_property
    def _strategies(self) -> dict[str, str]:
        chosen = {target.metric: "max" if target.maximize else "min" for target in reversed(self.targets)}
        given = _mapping(self.spec.get("objective")).get("metricStrategies") or ()
        return chosen | {str(one.get("name")): str(one.get("value")) for one in given if one.get("value")}

    @property
    def max_trials(self) -> int | None:
        """Trials to be made; None where the manifest leaves that to the service."""
        found = as_number(self.spec.get("maxTrialCount"))
        return None if found is None else int(found)

    @property
    def trials_ended(self) -> int:
        """Trials that have ended, well or not."""
        status = self.status
        return (
            int(status.get("trials", 0)) - int(status.get("trials_pending", 0)) - int(status.get("trials_running", 0))
        )

    @property
    def state(self) -> str:
        """The condition that holds, Succeeded and Failed before others."""
        return state_of(self.status)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in _ENDED

    @property
    def reason(self) -> str:
        """Why it is in its state."""
        return reason_of(self.status)

    @property
    def best(self) -> dict[str, Any]:
        """The best trial so far: best_trial_name, parameter_assignments, observation; empty before there is one."""
        return _mapping(self.status.get("current_optimal_trial"))

    @property
    def front(self) -> list[dict[str, Any]]:
        """With several objectives, the trials that no other one beats; in the form of `best`."""
        found: list[dict[str, Any]] = self.status.get("pareto_front") or []
        return found

    @cached_property
    def marked(self) -> frozenset[str]:
        """Names of the trials that are the best, or on the front."""
        chosen = self.front if len(self.targets) > 1 else [self.best]
        return frozenset(str(one["best_trial_name"]) for one in chosen if one.get("best_trial_name"))

    def value(self, trial: dict[str, Any], metric: str = "") -> str:
        """What counts of a trial's (or the best's) reports of a metric, as it was written; empty while there is none.

        Args:
            trial: The trial.
            metric: Name; empty: the first objective's.
        """
        wanted = metric or self.metric
        for one in _mapping(trial.get("observation")).get("metrics", ()):
            if one.get("name") == wanted:
                return str(one.get(self._strategies.get(wanted, "latest"), ""))
        return ""

    def violated(self, trial: dict[str, Any]) -> list[str]:
        """Names the constraints that a trial which has reported something does not keep."""
        if not trial.get("observation"):
            return []
        found = []
        for metric, low, high in self.constraints:
            value = as_number(self.value(trial, metric))
            if value is None or (low is not None and value < low) or (high is not None and value > high):
                found.append(metric)
        return found

    def ranked(self) -> list[dict[str, Any]]:
        """Gives the trials that reported the objective, the best first; those beyond the constraints last.

        With several objectives: those on the front first, each by the first objective.
        """
        target = self.targets[0]

        def key(trial: dict[str, Any]) -> tuple[bool, int, float]:
            off_front = len(self.targets) > 1 and last_part(trial) not in self.marked
            return off_front, len(self.violated(trial)), target.loss(as_number(self.value(trial)) or 0.0)

        return sorted((one for one in self.trials if self._has_result(one, target.metric)), key=key)

    def trend(self, target: Target) -> list[float]:
        """Gives the best value so far of an objective after each trial that kept the constraints, as they ended."""
        found: list[float] = []
        with_result = [one for one in self.trials if self._has_result(one, target.metric) and not self.violated(one)]
        for trial in sorted(with_result, key=lambda one: str(one.get("completion_time", ""))):
            value = as_number(self.value(trial, target.metric)) or 0.0
            better = not found or target.loss(value) < target.loss(found[-1])
            found.append(value if better else found[-1])
        return found

    def _has_result(self, trial: dict[str, Any], metric: str) -> bool:
        return state_of(trial) in _WITH_RESULT and as_number(self.value(trial, metric)) is not None


def last_part(resource: dict[str, Any]) -> str:
    """Gives the last part of a resource name."""
    return str(resource.get("name", "")).rsplit("/", 1)[-1]


def state_of(status: dict[str, Any]) -> str:
    """Gives the condition that holds, of an experiment's status or a trial; of several the one that says most."""
    held = [str(one.get("type")) for one in status.get("conditions", ()) if one.get("status") == "True"]
    return next((state for state in _ENDED if state in held), held[-1] if held else "Created")


def reason_of(status: dict[str, Any]) -> str:
    """Gives the message of the last condition that holds."""
    held = [one for one in status.get("conditions", ()) if one.get("status") == "True"]
    return str(held[-1].get("message", "")) if held else ""


def parameters_of(trial: dict[str, Any]) -> dict[str, str]:
    """Gives the parameters of a trial, or of the best."""
    return {str(one.get("name")): str(one.get("value", "")) for one in trial.get("parameter_assignments", ())}


def metrics_of(trials: Iterable[dict[str, Any]]) -> list[str]:
    """Names the metrics that trials reported, in the order they were first seen."""
    found: dict[str, None] = {}
    for trial in trials:
        found.update((str(one.get("name")), None) for one in _mapping(trial.get("observation")).get("metrics", ()))
    return list(found)


def as_number(value: Any) -> float | None:
    """Reads a finite number; None where it is none."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _mapping(value: Any) -> dict[str, Any]:
    """Gives what should be a mapping; an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}
