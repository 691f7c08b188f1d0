"""What surrounds the model when it is served."""

import numpy as np
from numpy.typing import NDArray


class PixelScaler:
    """Preprocessor: pixels 0..16 become floats 0..1, as the model was trained on."""

    def __call__(self, images: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scales images of shape (n, 64)."""
        return np.asarray(images, dtype=np.float64) / 16.0


class LabelAndProbabilities:
    """Postprocessor: class probabilities become the likeliest digit and the probabilities themselves."""

    def __call__(self, probabilities: NDArray[np.float64]) -> dict[str, NDArray[np.generic]]:
        """Takes probabilities of shape (n, 10); gives `label` (n,) and `probabilities` (n, 10)."""
        return {"label": probabilities.argmax(axis=1).astype(np.int64), "probabilities": probabilities}
