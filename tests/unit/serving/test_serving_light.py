"""The router is light: what computes is imported in workers alone."""

import subprocess
import sys

from mlmesh_serving.datatypes import DATATYPES
from mlmesh_serving.predictors import FORMAT_NAMES
from mlmesh_serving.predictors.formats import FORMATS
from mlmesh_serving.tensor import NUMPY_OF


def test_the_router_knows_formats_and_datatypes_by_name():
    assert FORMATS.keys() == FORMAT_NAMES
    assert tuple(NUMPY_OF) == DATATYPES


def test_the_router_imports_neither_numpy_nor_scikit_learn():
    code = "import mlmesh_serving.server, sys; sys.exit(any(m in sys.modules for m in ('numpy', 'sklearn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
