"""Imports scikit-learn where workers are forked, for it takes longer than all the rest of loading a model.

Where pandas is installed, scikit-learn imports it, for compatibility alone: 20 MB that arrays have no use for. It is
kept from it here. A model or a stage that wants pandas imports it itself, afterwards.
"""

import sys

_hide = "pandas" not in sys.modules
if _hide:
    sys.modules["pandas"] = None  # type: ignore[assignment]  # so that importing it fails
try:
    import joblib  # noqa: F401
    import sklearn.linear_model
    import sklearn.pipeline  # noqa: F401
finally:
    if _hide:
        del sys.modules["pandas"]
