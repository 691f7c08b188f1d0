"""What an algorithm needs to be asked at all: for the suite that all algorithms share.

One that is not named here is taken to work with any space and without settings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlmesh_katib.algorithms import ALGORITHMS
from mlmesh_katib.space import Kind, Parameter, make_parameter


def made(name: str, kind: str, low: str = "", high: str = "", step: str = "", distribution: str = "") -> Parameter:
    return make_parameter(
        name, kind, low=low, high=high, step=step, values=[], distribution=distribution, field="parameters[0]"
    )


def listed(name: str, kind: str, *values: str) -> Parameter:
    return make_parameter(name, kind, low="", high="", step="", values=values, distribution="", field="parameters[0]")


@dataclass(frozen=True)
class Needs:
    """What an algorithm is given.

    Attributes:
        settings: Its settings; quick ones.
        parameters: What every space must hold besides.
        fits: Which parameters it can search.
        unique: Whether it never suggests a point twice, until a finite space is exhausted.
        seeded: Whether `random_state` is a setting of it, which decides what it suggests.
        nas: Katib's nasConfig, for one that searches architectures and no space.
        slow: Whether a suggestion takes more than some milliseconds: it is asked less often.
        max_trial_count: Of the experiment.
        parallel: Of the experiment.
        conditional: Whether it takes conditional parameters.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    fits: Callable[[Parameter], bool] = lambda parameter: True
    unique: bool = True
    seeded: bool = True
    nas: Mapping[str, Any] | None = None
    slow: bool = False
    max_trial_count: int = 0
    parallel: int = 0
    conditional: bool = True


NAS = {
    "graphConfig": {"numLayers": 3, "inputSizes": [8, 8, 3], "outputSizes": [2]},
    "operations": [
        {
            "operationType": "convolution",
            "parameters": [{"name": "size", "parameterType": "categorical", "feasibleSpace": {"list": ["3", "5"]}}],
        }
    ],
}
NUMBERS = (made("first", "int", "0", "2"), made("second", "int", "1", "2"))

NEEDS: dict[str, Needs] = {
    "grid": Needs(seeded=False, fits=lambda p: p.count() is not None),
    "cmaes": Needs(parameters=NUMBERS),
    "tpe": Needs({"n_startup_trials": "2"}),
    "multivariate-tpe": Needs({"n_startup_trials": "2"}),
    "bayesianoptimization": Needs(
        {"n_initial_points": "3", "acq_func": "EI", "acq_optimizer": "sampling"},
        slow=True,
    ),
    "gp": Needs({"n_initial_points": "3"}, slow=True),
    "hyperband": Needs(
        {"r_l": "4", "eta": "2", "resource_name": "epochs"},
        parameters=(made("epochs", "int", "1", "4"),),
        unique=False,
        parallel=4,
        conditional=False,
    ),
    "pbt": Needs({"suggestion_trial_dir": "/data", "n_population": "5", "truncation_threshold": "0.2"}, unique=False),
    "enas": Needs(nas=NAS),
    "darts": Needs(nas=NAS),
}
"""A line for each algorithm that is not served by `Needs()`."""


def needs_of(algorithm: str) -> Needs:
    return NEEDS.get(algorithm, Needs())


SEARCH_SPACES = sorted(name for name in ALGORITHMS if needs_of(name).nas is None)
UNIQUE = [name for name in SEARCH_SPACES if needs_of(name).unique]
CONDITIONAL = [name for name in SEARCH_SPACES if needs_of(name).conditional]
SEEDED = [name for name in SEARCH_SPACES if needs_of(name).seeded]


def feasible(parameter: Parameter, text: str) -> bool:
    """Whether a trial may be given this, by the words of the parameter alone."""
    if parameter.is_list:
        return text in {str(choice) for choice in parameter.choices} or (
            parameter.kind is Kind.DISCRETE and float(text) in parameter.choices
        )
    if parameter.kind is Kind.INT:
        whole = int(text)
        return parameter.low <= whole <= parameter.high and (whole - int(parameter.low)) % int(parameter.step or 1) == 0
    number = float(text)
    if parameter.step is not None:
        steps = (number - parameter.low) / parameter.step
        if abs(steps - round(steps)) > 1e-6:
            return False
    return parameter.low <= number <= parameter.high
