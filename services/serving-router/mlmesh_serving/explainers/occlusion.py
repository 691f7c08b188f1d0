"""Leave-one-out occlusion: how much the answer changes when one feature is not known.

What is not known is filled in from each row of the background, and the answers are averaged (Robnik-Šikonja, Kononenko,
"Explaining classifications for individual instances", 2008; Zeiler, Fergus, "Visualizing and understanding
convolutional networks", 2014, occlude patches of an image so).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from mlmesh_kit.errors import InvalidArgument
from numpy.typing import NDArray

from mlmesh_serving.explainers.base import Explainer, Predict


class Occlusion(Explainer):
    """See the module.

    Args:
        background: Rows, shape (m, features).
    """

    def __init__(self, background: NDArray[Any]) -> None:
        self._background = background

    def explain(self, rows: NDArray[Any], predict: Predict, body: Mapping[str, Any]) -> dict[str, Any]:
        """See Explainer. `values` is the answer less the mean answer without the feature, (n, features, outputs)."""
        count, features = rows.shape
        if features != self._background.shape[1]:
            wanted = self._background.shape[1]
            raise InvalidArgument(f"must have {wanted} features, got {features}", field="instances")
        known = predict(rows)
        values = np.empty((count, features, known.shape[1]))
        fill = len(self._background)
        for feature in range(features):
            occluded = np.repeat(rows, fill, axis=0)
            occluded[:, feature] = np.tile(self._background[:, feature], count)
            unknown = predict(occluded).reshape(count, fill, -1).mean(axis=1)
            values[:, feature] = known - unknown
        return {"method": "occlusion", "values": values, "predictions": known}
