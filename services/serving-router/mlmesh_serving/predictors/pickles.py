"""Pickled models: they can run any code, so only from places that may."""

from pathlib import Path
from typing import Any

from mlmesh_kit.errors import FailedPrecondition

from mlmesh_serving.storage import LocalModel

SUFFIXES = (".joblib", ".pkl", ".pickle")
"""In KServe's order."""


def load_pickle(model: LocalModel, file: Path) -> Any:
    """Loads what joblib or pickle has written.

    Raises:
        FailedPrecondition: It may not be loaded from there, or cannot be.
    """
    model.check_code("a pickle")
    import joblib

    try:
        return joblib.load(file)
    except Exception as error:
        raise FailedPrecondition(f"{file.name} cannot be loaded: {type(error).__name__}: {str(error)[:500]}") from error
