"""Several inputs predicted at once: joined by rows (the first dimension), and the outputs split again.

What a batch fails at is tried one by one, so that a bad input harms itself alone. A model whose outputs do not have the
rows of its inputs cannot be joined, and is not joined again.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mlmesh_kit.errors import ServiceError

from mlmesh_serving.tensor import Tensor

logger = logging.getLogger(__name__)

Tensors = list[Tensor]
Outcome = Tensors | ServiceError
"""What became of one request."""


class RowJoiner:
    """Calls a model with as many rows at once as are there and allowed.

    Args:
        predict: The model: tensors in, tensors out; raises ServiceError.
        max_rows: At once; 1: requests are never joined.
    """

    def __init__(self, predict: Callable[[Tensors], Tensors], max_rows: int) -> None:
        self._predict = predict
        self._max_rows = max_rows
        self.joins = max_rows > 1

    def predict(self, inputs: Sequence[Tensors]) -> list[Outcome]:
        """Gives for each input what the model says of it."""
        if not self.joins or len(inputs) == 1:
            return [self._alone(tensors) for tensors in inputs]
        outcomes: list[Outcome] = [[]] * len(inputs)
        for group in self._groups(inputs):
            found = self._together([inputs[index] for index in group])
            for index, outcome in zip(group, found, strict=True):
                outcomes[index] = outcome
        return outcomes

    def _groups(self, inputs: Sequence[Tensors]) -> list[list[int]]:
        """Puts together what fits together: names, datatypes, and shapes but for the rows."""
        groups: list[list[int]] = []
        filling: dict[Any, tuple[int, int]] = {}  # by signature: the group that still takes some, and its rows
        for index, tensors in enumerate(inputs):
            rows = rows_of(tensors)
            if rows < 1:
                groups.append([index])
                continue
            signature = tuple((t.name, t.data.dtype, t.data.shape[1:]) for t in tensors)
            group, filled = filling.get(signature, (-1, 0))
            if group < 0 or filled + rows > self._max_rows:
                group, filled = len(groups), 0
                groups.append([])
            groups[group].append(index)
            filling[signature] = (group, filled + rows)
        return groups

    def _together(self, inputs: list[Tensors]) -> list[Outcome]:
        if len(inputs) == 1 or not self.joins:
            return [self._alone(tensors) for tensors in inputs]
        joined = [
            Tensor(first.name, np.concatenate([tensors[at].data for tensors in inputs]))
            for at, first in enumerate(inputs[0])
        ]
        counts = [rows_of(tensors) for tensors in inputs]
        try:
            outputs = self._predict(joined)
        except ServiceError:
            return [self._alone(tensors) for tensors in inputs]
        total = sum(counts)
        if any(rows_of([output]) != total for output in outputs):
            logger.info("the model's outputs have not the rows of its inputs: requests are predicted one by one")
            self.joins = False
            return [self._alone(tensors) for tensors in inputs]
        found: list[Outcome] = []
        start = 0
        for rows in counts:
            found.append([Tensor(output.name, output.data[start : start + rows]) for output in outputs])
            start += rows
        return found

    def _alone(self, tensors: Tensors) -> Outcome:
        try:
            return self._predict(tensors)
        except ServiceError as error:
            return error


def rows_of(tensors: Tensors) -> int:
    """Gives the rows that all tensors have; 0: they have none, or not the same."""
    rows = {tensor.data.shape[0] if tensor.data.ndim else 0 for tensor in tensors}
    return rows.pop() if len(rows) == 1 else 0
