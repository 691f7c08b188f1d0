"""The interface of a model format."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from numpy.typing import NDArray

from mlmesh_serving.predictors.options import PredictorOptions
from mlmesh_serving.storage import LocalModel
from mlmesh_serving.tensor import Tensor, TensorInfo

Arrays = Mapping[str, NDArray[Any]]


class Predictor(ABC):
    """A loaded model.

    Attributes:
        platform: What it is, in the protocol's words.
        keeps_rows: Whether row i of what it gives depends on row i of what it takes alone, so that requests can be
            joined and their answers be taken apart again.
    """

    platform: str = ""
    keeps_rows: bool = True

    @classmethod
    @abstractmethod
    def load(cls, model: LocalModel, options: PredictorOptions) -> "Predictor":
        """Loads a model and makes it ready to answer quickly.

        It may set what is the process's own (how many threads libraries use): a process serves one model.

        Args:
            model: The model file, or the folder it lies in.
            options: How.

        Raises:
            FailedPrecondition: There is no model, it cannot be loaded, may not, or a library is missing.
        """

    @abstractmethod
    def predict(self, arrays: Arrays) -> Mapping[str, Any]:
        """Predicts.

        Args:
            arrays: As `bind` gives them: by the names and of the shapes that `inputs` says; if it says none, by the
                names of the client.

        Returns:
            What can be made a tensor, by name.

        Raises:
            ValueError, TypeError: The model refuses it.
        """

    @property
    @abstractmethod
    def inputs(self) -> list[TensorInfo]:
        """What it takes; empty if that is not known."""

    @property
    @abstractmethod
    def outputs(self) -> list[TensorInfo]:
        """What it gives; empty if that is not known."""


def bind(tensors: Sequence[Tensor], inputs: Sequence[TensorInfo], source: str) -> Arrays:
    """Gives the arrays that a model takes, by its own names. A model's only input may have any name.

    Args:
        tensors: What there is.
        inputs: What the model takes; empty: not known.
        source: For messages: who gave the tensors.

    Raises:
        InvalidArgument: One is missing, unknown, or of another shape.
    """
    if not inputs:
        return {tensor.name: tensor.data for tensor in tensors}
    if len(inputs) == 1:
        if len(tensors) != 1:
            raise InvalidArgument(f"the model takes one tensor, {source} {len(tensors)}", field="inputs")
        given = {inputs[0].name: (0, tensors[0])}
    else:
        given = {tensor.name: (index, tensor) for index, tensor in enumerate(tensors)}
        if given.keys() != {info.name for info in inputs}:
            expected = ", ".join(map(str, inputs))
            names = ", ".join(map(repr, given))
            raise InvalidArgument(f"the model takes {expected}, {source} {names}", field="inputs")
    arrays: dict[str, NDArray[Any]] = {}
    for info in inputs:
        index, tensor = given[info.name]
        if not info.has_shape(tensor.data.shape):
            raise InvalidArgument(
                f"the model takes {list(info.shape)}, {source} {list(tensor.data.shape)}",
                field=f"inputs[{index}] ({tensor.name}).shape",
            )
        arrays[info.name] = tensor.data
    return arrays


def only(arrays: Arrays) -> NDArray[Any]:
    """Gives the array of a model that takes one.

    Raises:
        ValueError: There are several.
    """
    if len(arrays) != 1:
        raise ValueError(f"the model takes one tensor, got {len(arrays)}")
    return next(iter(arrays.values()))


def cast(data: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Gives an array of a model's dtype: JSON knows fewer than models do.

    Raises:
        ValueError: It would be of another kind (a float as an integer), or an integer does not fit.
    """
    if data.dtype == dtype:
        return data
    if not np.can_cast(data.dtype, dtype, casting="same_kind"):
        raise ValueError(f"it must be {dtype}, got {data.dtype}")
    made = data.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(made, data):
        raise ValueError(f"a number does not fit {dtype}")
    return made


def require(module: str, package: str = "") -> Any:
    """Imports what a format needs.

    Args:
        module: Its name.
        package: What is installed to have it, if that is called otherwise.

    Raises:
        FailedPrecondition: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == module.partition(".")[0]:
            name = package or module.partition(".")[0]
            raise FailedPrecondition(f"this model needs {name}, which is not installed: pip install {name}") from error
        raise FailedPrecondition(f"{module} cannot be imported: {str(error)[:200]}") from error
