"""Model formats.

Here is what the router has to know of them; all else is imported in workers alone, for it takes numpy's memory.
"""

from collections.abc import Mapping

FORMAT_NAMES = frozenset({"lightgbm", "mlflow", "onnx", "python", "pytorch", "sklearn", "xgboost"})
"""As `modelFormat` names them; what loads them is in `formats`."""
CODE: Mapping[str, str] = {"sklearn": "a pickle", "python": "Python code"}
"""Formats of which every model can run code, and what of it does; of the others it depends on the file."""
