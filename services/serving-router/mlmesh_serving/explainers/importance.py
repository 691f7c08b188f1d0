"""Permutation importance: how much worse the answers get when a feature is dealt to the wrong instances.

Sources: Breiman, "Random forests", Machine Learning 45 (2001); Fisher, Rudin, Dominici, "All models are wrong, but many
are useful" (model reliance), JMLR 20 (2019). Without `targets` the model's own answers are the targets: how much it
relies on a feature, right or wrong.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mlmesh_kit.errors import InvalidArgument
from numpy.typing import NDArray

from mlmesh_serving.explainers.base import Explainer, Predict

_LOSSES: dict[str, Callable[[NDArray[Any], NDArray[Any]], float]] = {
    "squared": lambda targets, answers: float(((targets - answers) ** 2).mean()),
    "absolute": lambda targets, answers: float(np.abs(targets - answers).mean()),
    "zero-one": lambda targets, answers: float((targets != answers).any(axis=1).mean()),
}


class PermutationImportance(Explainer):
    """See the module.

    Args:
        repeats: Permutations of each feature.
        loss: squared, absolute or zero-one.
    """

    def __init__(self, repeats: int, loss: str) -> None:
        self._repeats = repeats
        self._loss = _LOSSES[loss]
        self._name = loss

    def explain(self, rows: NDArray[Any], predict: Predict, body: Mapping[str, Any]) -> dict[str, Any]:
        """See Explainer. One importance for each feature, of all instances together."""
        if len(rows) < 2:
            raise InvalidArgument("must be at least two: a feature is permuted among them", field="instances")
        known = predict(rows)
        given = body.get("targets")
        targets = known if given is None else _targets(given, known.shape)
        before = self._loss(targets, known)
        random = np.random.default_rng(0)
        increases = np.empty((rows.shape[1], self._repeats))
        for feature in range(rows.shape[1]):
            for repeat in range(self._repeats):
                permuted = rows.copy()
                permuted[:, feature] = random.permutation(rows[:, feature])
                increases[feature, repeat] = self._loss(targets, predict(permuted)) - before
        return {
            "method": "permutation",
            "loss": self._name,
            "baseline": before,
            "importances": increases.mean(axis=1),
            "deviations": increases.std(axis=1),
            "predictions": known,
        }


def _targets(given: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        targets = np.array(given, dtype=np.float64)
        targets = targets.reshape(shape)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"must be numbers of the answers' shape {list(shape)}", field="targets") from error
    return targets
