"""Models that are Python classes of the user's, from the model's folder.

```python
class Model:
    def load(self, folder: Path) -> None: ...        # optional: weights beside the code

    def predict(self, data: np.ndarray) -> np.ndarray: ...  # or dict[str, np.ndarray]; what it takes as well
```
"""

import inspect
from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import FailedPrecondition

from mlmesh_serving.predictors.base import Arrays, Predictor, only
from mlmesh_serving.predictors.options import PredictorOptions
from mlmesh_serving.stage import import_target, takes_mapping
from mlmesh_serving.storage import LocalModel
from mlmesh_serving.tensor import TensorInfo

_ROLE = "predictor"


class PythonPredictor(Predictor):
    """An instance of the user's class.

    Args:
        model: Has `predict`.
        options: How.
    """

    platform = "python"

    def __init__(self, model: Any, options: PredictorOptions) -> None:
        predict = getattr(model, "predict", None)
        if inspect.iscoroutinefunction(predict):
            raise FailedPrecondition(f"{_ROLE}: {options.target}.predict must not be async")
        self._takes_mapping = takes_mapping(_ROLE, f"{options.target}.predict", predict)
        self._predict: Any = predict
        # Nobody knows what code does: it keeps rows if it or the manifest says so.
        own = bool(getattr(model, "keeps_rows", False))
        self.keeps_rows = own if options.keeps_rows is None else options.keeps_rows

    @classmethod
    def load(cls, model: LocalModel, options: PredictorOptions) -> "PythonPredictor":
        """See Predictor."""
        code = options.code or model
        code.check_code("Python code")
        found = import_target(_ROLE, code.path, options.target)
        if not inspect.isclass(found):
            raise FailedPrecondition(f"{_ROLE}: {options.target} is no class")
        try:
            made = found(**options.config)
            load = getattr(made, "load", None)
            if callable(load):
                load(model.path)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error)[:500]}"
            raise FailedPrecondition(f"{_ROLE}: {options.target} cannot be loaded: {reason}") from error
        return cls(made, options)

    def predict(self, arrays: Arrays) -> Mapping[str, Any]:
        """See Predictor."""
        result = self._predict(dict(arrays) if self._takes_mapping else only(arrays))
        if isinstance(result, Mapping):
            return {str(name): value for name, value in result.items()}
        return {"predict": result}

    @property
    def inputs(self) -> list[TensorInfo]:
        """See Predictor: the manifest's `inputs` says it."""
        return []

    @property
    def outputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return []
