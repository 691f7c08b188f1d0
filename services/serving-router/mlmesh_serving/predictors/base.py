"""The interface of a model format."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Metadata of an input or an output; -1 in the shape is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Predictor(ABC):
    """A loaded model. It is called from several threads at once."""

    platform = ""

    @classmethod
    @abstractmethod
    def load(cls, path: Path, method: str) -> "Predictor":
        """Loads a model.

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
            data: Of the shape that `inputs` says.

        Raises:
            InvalidArgument: The data has another shape or type.
        """

    @property
    @abstractmethod
    def inputs(self) -> list[TensorInfo]:
        """What it takes."""

    @property
    @abstractmethod
    def output_name(self) -> str:
        """Name of what it gives."""
