"""The median stopping rule, with Katib's settings and defaults.

D. Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017, section 3.2.2.
"""

import statistics
from collections.abc import Mapping, Sequence

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.early_stopping.base import EarlyStopping, History

_DEFAULTS = {"min_trials_required": 3, "start_step": 4}
_BOUNDS = {"min_trials_required": "greater than zero (>0)", "start_step": "greater or equal than one (>=1)"}
_LARGEST = 2**31 - 1


class MedianStop(EarlyStopping):
    """Stops a trial whose best so far is worse than the median of the others' first reports.

    Of each trial that succeeded the mean of its first `start_step` reports counts; from `min_trials_required` of them
    on there is a median. A trial is looked at from its report number `start_step` on.
    """

    name = "medianstop"

    def validate(self, settings: Mapping[str, str]) -> None:
        """See EarlyStopping."""
        for name, value in settings.items():
            if name not in _DEFAULTS:
                raise InvalidArgument(
                    f"unknown setting {name} for algorithm {self.name}", field=f"algorithmSettings.{name}"
                )
            field = f"algorithmSettings.{name}"
            try:
                number = int(value)
            except ValueError:
                message = f"failed to validate {name}({value[:40]}): must be a whole number"
                raise InvalidArgument(message, field=field) from None
            if number < 1:
                raise InvalidArgument(f"{name} must be {_BOUNDS[name]}", field=field)
            if number > _LARGEST:
                raise InvalidArgument(f"{name} must be at most {_LARGEST}", field=field)

    def start_step(self, settings: Mapping[str, str]) -> int:
        """Gives the number of the report from which on a trial is looked at."""
        return int(settings.get("start_step", _DEFAULTS["start_step"]))

    def median(self, settings: Mapping[str, str], others: Sequence[History]) -> float | None:
        """Gives the loss beyond which a trial is stopped; None while too few trials have succeeded."""
        first = self.start_step(settings)
        means = [statistics.fmean(other.losses[:first]) for other in others if other.ended and other.losses]
        if len(means) < int(settings.get("min_trials_required", _DEFAULTS["min_trials_required"])):
            return None
        return statistics.median(means)

    def decide(self, settings: Mapping[str, str], trial: History, others: Sequence[History]) -> str | None:
        """See EarlyStopping."""
        if len(trial.losses) < self.start_step(settings):
            return None
        median = self.median(settings, others)
        if median is None or min(trial.losses) <= median:
            return None
        return f"after {len(trial.losses)} reports its best is worse than the median of the trials that succeeded"
