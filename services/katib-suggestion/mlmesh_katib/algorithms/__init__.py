"""Algorithms by their names in Katib; each is a file behind one small interface."""

from mlmesh_katib.algorithms.base import Algorithm, Observed, Question
from mlmesh_katib.algorithms.bayesian import BayesianOptimization
from mlmesh_katib.algorithms.grid import GridSearch
from mlmesh_katib.algorithms.random import RandomSearch

ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm for algorithm in (RandomSearch(), GridSearch(), BayesianOptimization())
}

__all__ = ["ALGORITHMS", "Algorithm", "Observed", "Question"]
