"""Algorithms by their names in Katib, and ours; each is a file behind one small interface."""

from mlmesh_katib.algorithms.asha import Asha
from mlmesh_katib.algorithms.asking import ask
from mlmesh_katib.algorithms.base import Algorithm, Answer, Observed, Question, Suggestion
from mlmesh_katib.algorithms.bayesian import BayesianOptimization
from mlmesh_katib.algorithms.bohb import Bohb
from mlmesh_katib.algorithms.cmaes import CmaEs
from mlmesh_katib.algorithms.darts import Darts
from mlmesh_katib.algorithms.enas import Enas
from mlmesh_katib.algorithms.gp import GaussianProcessSearch
from mlmesh_katib.algorithms.grid import GridSearch
from mlmesh_katib.algorithms.hyperband import Hyperband
from mlmesh_katib.algorithms.nsga2 import Nsga2
from mlmesh_katib.algorithms.pbt import PopulationBasedTraining
from mlmesh_katib.algorithms.random import RandomSearch
from mlmesh_katib.algorithms.sobol import SobolSequence
from mlmesh_katib.algorithms.tpe import MultivariateTpe, Tpe

ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        RandomSearch(),
        GridSearch(),
        BayesianOptimization(),
        Tpe(),
        MultivariateTpe(),
        CmaEs(),
        SobolSequence(),
        Hyperband(),
        PopulationBasedTraining(),
        Enas(),
        Darts(),
        Asha(),
        Bohb(),
        Nsga2(),
        GaussianProcessSearch(),
    )
}

DEFAULT_ALGORITHM = GaussianProcessSearch.name
"""Of an experiment that names none."""

__all__ = ["ALGORITHMS", "DEFAULT_ALGORITHM", "Algorithm", "Answer", "Observed", "Question", "Suggestion", "ask"]
