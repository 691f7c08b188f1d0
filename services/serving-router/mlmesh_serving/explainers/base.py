"""The interface of a method of explaining."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

Predict = Callable[[NDArray[Any]], NDArray[Any]]
"""Rows of features, shape (n, features), to outputs, shape (n, outputs)."""


class Explainer(ABC):
    """A method, made ready for one model."""

    @abstractmethod
    def explain(self, rows: NDArray[Any], predict: Predict, body: Mapping[str, Any]) -> dict[str, Any]:
        """Explains the model's answers.

        Args:
            rows: Instances, shape (n, features).
            predict: Asks the model.
            body: The request as the client wrote it, for what belongs to one method alone.

        Returns:
            What goes into `explanations`: numpy arrays and what JSON can hold.

        Raises:
            InvalidArgument: The request lacks what the method needs.
        """
