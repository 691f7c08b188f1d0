"""PyTorch for tests: it is too large for the lock file, so it has an environment of its own."""

import importlib.util
import sys
from pathlib import Path

SITE = next(Path(__file__).parents[2].glob(".venvs/torch/lib/python3*/site-packages"), None)
REASON = "PyTorch is not in the lock file (900 MB, and more with CUDA): make .venvs/torch/.installed"


def torch_is_there() -> bool:
    """Tells whether it can be imported; the environment's packages come behind all others."""
    if SITE is not None and str(SITE) not in sys.path:
        sys.path.append(str(SITE))
    return importlib.util.find_spec("torch") is not None
