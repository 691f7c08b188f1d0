"""mlmesh: the command (CLI, local supervisor, renderers), and `mlmesh.tune` for Python.

Importing it loads nothing: every command, and every trial that reports, begins here.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmesh import search as search
    from mlmesh.tuning.result import TuneError as TuneError
    from mlmesh.tuning.result import TuneResult as TuneResult
    from mlmesh.tuning.runner import report as report
    from mlmesh.tuning.tuner import tune as tune

__all__ = ["TuneError", "TuneResult", "report", "search", "tune"]

_PLACES = {
    "TuneError": "mlmesh.tuning.result",
    "TuneResult": "mlmesh.tuning.result",
    "report": "mlmesh.tuning.runner",
    "tune": "mlmesh.tuning.tuner",
}


def __getattr__(name: str) -> Any:
    if name == "search":
        return importlib.import_module("mlmesh.search")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
