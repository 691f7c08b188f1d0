"""Our own optimiser, by a Gaussian process; one file each for the axes, model, warp, acquisition, proposal, search."""

from mlmesh_katib.algorithms.gp.search import GaussianProcessSearch

__all__ = ["GaussianProcessSearch"]
