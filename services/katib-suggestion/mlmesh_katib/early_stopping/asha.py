"""Asynchronous successive halving, as early stopping.

L. Li, K. Jamieson, A. Rostamizadeh, E. Gonina, J. Ben-Tzur, M. Hardt, B. Recht, A. Talwalkar, "A System for Massively
Parallel Hyperparameter Tuning", MLSys 2020; in the form that stops trials instead of pausing them, so that a trial is
one process from its beginning to its end.
"""

from collections.abc import Mapping, Sequence

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.algorithms.rungs import SETTINGS, arrival, read_rungs
from mlmesh_katib.early_stopping.base import EarlyStopping, History


class AshaStopping(EarlyStopping):
    """At each rung a trial goes on only if it is among the best 1/eta of those that have reached it so far.

    What counts is the report with which a trial reaches the rung, not its best one. The best of all always goes on. On
    and beyond the largest resource nothing is stopped any more.
    """

    name = "asha"

    def validate(self, settings: Mapping[str, str]) -> None:
        """See EarlyStopping; the settings are in `rungs`."""
        for name in settings:
            if name not in SETTINGS:
                raise InvalidArgument(
                    f"unknown setting {name} for algorithm {self.name}", field=f"algorithmSettings.{name}"
                )
        read_rungs(settings)

    def decide(self, settings: Mapping[str, str], trial: History, others: Sequence[History]) -> str | None:
        """See EarlyStopping."""
        rungs = read_rungs(settings)
        steps = _steps(trial)
        for level in rungs.levels(float(len(steps))):
            place = arrival(steps, level)
            if level == rungs.largest or place is None or place < len(steps) - trial.new:
                continue
            mine = trial.losses[place]
            reached = [mine]
            for other in others:
                there = arrival(_steps(other), level)
                if there is not None:
                    reached.append(other.losses[there])
            better = sum(loss < mine for loss in reached)
            if better >= max(1, rungs.survivors(len(reached))):
                rank = f"number {better + 1} of {len(reached)}"
                return f"at {level:g} of the resource it is {rank}, not in the best 1/{rungs.eta}"
        return None


def _steps(trial: History) -> Sequence[float]:
    return range(1, len(trial.losses) + 1)  # a report is one unit of the resource
