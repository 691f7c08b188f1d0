"""MLflow's models of the flavour `python_function`, run by MLflow itself. They are Python code."""

from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import FailedPrecondition

from mlmesh_serving.predictors.base import Arrays, Predictor, only, require
from mlmesh_serving.predictors.options import PredictorOptions
from mlmesh_serving.storage import LocalModel
from mlmesh_serving.tensor import TensorInfo


class PyfuncPredictor(Predictor):
    """A model that MLflow has loaded.

    Args:
        model: It.
        options: How.
    """

    platform = "mlflow"

    def __init__(self, model: Any, options: PredictorOptions) -> None:
        if options.method != "predict":
            raise FailedPrecondition("models of the flavour python_function have the method predict alone")
        self._model = model
        self.keeps_rows = bool(options.keeps_rows)  # nobody knows what code does
        schema = model.metadata.get_input_schema()
        has_columns = schema is not None and not schema.is_tensor_spec()
        self._columns: list[str] | None = schema.input_names() if has_columns else None

    @classmethod
    def load(cls, model: LocalModel, options: PredictorOptions) -> "PyfuncPredictor":
        """See Predictor."""
        model.check_code("a model of MLflow's python_function")
        pyfunc = require("mlflow.pyfunc", "mlflow")
        try:
            loaded = pyfunc.load_model(str(model.path))
        except Exception as error:  # the user's code
            reason = f"{type(error).__name__}: {str(error)[:300]}"
            raise FailedPrecondition(f"MLflow cannot load the model: {reason}") from error
        return cls(loaded, options)

    def predict(self, arrays: Arrays) -> Mapping[str, Any]:
        """See Predictor. A model whose signature has columns is given them by name, one array's columns in order."""
        given: Any = dict(arrays) if len(arrays) > 1 else only(arrays)
        if self._columns is not None:
            given = self._table(arrays)
        result = self._model.predict(given)
        if hasattr(result, "columns"):  # a table of pandas
            return {str(name): result[name].to_numpy() for name in result.columns}
        if isinstance(result, Mapping):
            return {str(name): value for name, value in result.items()}
        return {"predict": result.to_numpy() if hasattr(result, "to_numpy") else result}

    @property
    def inputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return []

    @property
    def outputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return []

    def _table(self, arrays: Arrays) -> Any:
        pandas = require("pandas")
        if len(arrays) > 1:
            return pandas.DataFrame({name: array.ravel() for name, array in arrays.items()})
        data = only(arrays)
        if data.ndim != 2 or data.shape[1] != len(self._columns or ()):
            raise ValueError(f"it takes the columns {', '.join(self._columns or ())}, got {list(data.shape)}")
        return pandas.DataFrame(data, columns=self._columns)
