"""Our own optimiser, by a Gaussian process; a file for each of its parts."""

from mlmesh_katib.algorithms.gp.search import GaussianProcessSearch

__all__ = ["GaussianProcessSearch"]
