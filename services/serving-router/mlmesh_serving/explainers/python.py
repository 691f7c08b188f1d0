"""A user's own explainer: a function, or a class that is made once, with a method `explain` or called itself.

It takes the instances, an array; and, if it takes a second argument, a function that asks the model: rows in, answers
out. It gives a dict of arrays, numbers and texts.
"""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, Internal, InvalidArgument, ServiceError
from numpy.typing import NDArray

from mlmesh_serving.explainers.base import Explainer, Predict
from mlmesh_serving.stage import import_target

logger = logging.getLogger(__name__)


class PythonExplainer(Explainer):
    """See the module.

    Args:
        folder: Where the module lies.
        target: `module:Class` or `module:function`.

    Raises:
        FailedPrecondition: It cannot be loaded, or does not take one or two arguments.
    """

    def __init__(self, folder: Path, target: str) -> None:
        found = import_target("explainer", folder, target)
        try:
            made = found() if inspect.isclass(found) else found
        except Exception as error:
            raise FailedPrecondition(
                f"explainer: {target} cannot be made: {type(error).__name__}: {str(error)[:300]}"
            ) from error
        function: Any = getattr(made, "explain", made)
        if not callable(function):
            raise FailedPrecondition(f"explainer: {target} cannot be called, and has no explain")
        self._function = function
        parameters = [p for p in inspect.signature(self._function).parameters.values() if p.default is p.empty]
        if not 1 <= len(parameters) <= 2 or inspect.iscoroutinefunction(self._function):
            raise FailedPrecondition(f"explainer: {target} must take the instances, or the instances and predict")
        self._takes_predict = len(parameters) == 2

    def explain(self, rows: NDArray[Any], predict: Predict, body: Mapping[str, Any]) -> dict[str, Any]:
        """See Explainer."""
        try:
            found = self._function(rows, predict) if self._takes_predict else self._function(rows)
        except ServiceError:
            raise
        except (ValueError, TypeError) as error:
            raise InvalidArgument(f"the explainer refused it: {str(error)[:500]}", field="instances") from error
        except Exception as error:
            logger.error("the explainer raised %s", type(error).__name__, exc_info=error)
            raise Internal(f"the explainer raised {type(error).__name__}; the service's log has it") from error
        if not isinstance(found, Mapping):
            raise Internal(f"the explainer gave {type(found).__name__} and not a dict")
        return dict(found)
