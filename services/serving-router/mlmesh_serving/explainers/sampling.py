"""Shapley values of a black box, by walking through the features in random orders.

Each order adds feature after feature of the instance to the rows of the background; what the mean answer changes by is
the feature's share in this order, and the mean over orders its Shapley value (Castro, Gómez, Tejada, "Polynomial
calculation of the Shapley value based on sampling", 2009). Each order is walked in both directions, which takes out
most of the noise (Mitchell, Cooper, Frank, Holmes, "Sampling permutations for Shapley value estimation", JMLR 2022).
Values and base add up to the answer exactly, however few the orders.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmesh_serving.explainers.base import Predict

_ORDERS = 10


def sampled_shapley(
    rows: NDArray[Any], known: NDArray[Any], background: NDArray[Any], predict: Predict, orders: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Gives values and base values.

    Args:
        rows: Instances, shape (n, features).
        known: The answers to them, shape (n, outputs).
        background: Rows that unknown features are taken from, shape (m, features).
        predict: Asks the model, orders x 2 x (features - 1) x m rows for an instance.
        orders: How many; 0: 10.

    Returns:
        Shape (n, features, outputs), and (outputs,).
    """
    random = np.random.default_rng(0)  # the same question gets the same answer
    base = predict(background).mean(axis=0)
    walks = [random.permutation(rows.shape[1]) for _ in range(orders or _ORDERS)]
    walks += [walk[::-1] for walk in walks]
    values = np.zeros((*rows.shape, known.shape[1]))
    for place, row in enumerate(rows):
        for walk in walks:
            values[place, walk] += _shares(row, known[place], background, base, predict, walk)
    return values / len(walks), base


def _shares(
    row: NDArray[Any],
    answer: NDArray[Any],
    background: NDArray[Any],
    base: NDArray[Any],
    predict: Predict,
    walk: NDArray[Any],
) -> NDArray[Any]:
    """Gives what each step of a walk changes, shape (features, outputs)."""
    steps = len(walk) - 1
    means = [base]
    if steps:
        mixed = np.tile(background, (steps, 1, 1))
        for step in range(steps):
            taken = walk[: step + 1]
            mixed[step][:, taken] = row[taken]
        answers = predict(mixed.reshape(-1, len(row)))
        means += list(answers.reshape(steps, len(background), -1).mean(axis=1))
    shares: NDArray[Any] = np.diff(np.stack([*means, answer]), axis=0)
    return shares
