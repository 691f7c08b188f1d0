"""Algorithms by their names in Katib, and ours; each is a file behind one small interface."""

from mlmesh_katib.algorithms.base import Algorithm, Answer, Observed, Question, Suggestion
from mlmesh_katib.algorithms.bayesian import BayesianOptimization
from mlmesh_katib.algorithms.grid import GridSearch
from mlmesh_katib.algorithms.random import RandomSearch

ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        RandomSearch(),
        GridSearch(),
        BayesianOptimization(),
    )
}

DEFAULT_ALGORITHM = BayesianOptimization.name
"""Of an experiment that names none."""

__all__ = ["ALGORITHMS", "DEFAULT_ALGORITHM", "Algorithm", "Answer", "Observed", "Question", "Suggestion"]
