"""The interface of a model format."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mlmesh_serving.tensor import TensorInfo


class Predictor(ABC):
    """A loaded model. It is called from several threads at once."""

    platform = ""

    @classmethod
    @abstractmethod
    def load(cls, path: Path, method: str) -> "Predictor":
        """Loads a model and makes it ready to answer quickly.

        Args:
            path: The model file, or the folder it lies in.
            method: What is called on it.

        Raises:
            FailedPrecondition: There is no model, or it cannot be loaded.
        """

    @abstractmethod
    def predict(self, data: NDArray[Any]) -> Any:
        """Predicts.

        Args:
            data: Of the shape that `inputs` says, if it says one.

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

    @property
    @abstractmethod
    def output_name(self) -> str:
        """Name of what it gives."""
