"""Bayesian optimisation by a Gaussian process of our own: the algorithm of an experiment that names none.

The parts are in the files beside this one, with their papers.
"""

from mlmesh_katib.algorithms.base import Algorithm, Question, check_settings, generator, whole_number
from mlmesh_katib.algorithms.random import draw_new
from mlmesh_katib.space import Value


class GaussianProcessSearch(Algorithm):
    """Expected improvement over a Gaussian process, refitted at each call."""

    name = "gp"

    def load(self) -> None:
        """See Algorithm."""
        import scipy.optimize  # noqa: F401
        import threadpoolctl  # noqa: F401

        import mlmesh_katib.algorithms.gp.model_based  # noqa: F401

    def validate(self, question: Question) -> None:
        """See Algorithm."""
        check_settings(question.settings, ("random_state", "n_initial_points"), self.name)
        if "n_initial_points" in question.settings:
            whole_number(question.settings, "n_initial_points", smallest=1, largest=100_000)

    def suggest(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """See Algorithm."""
        random = generator(question.settings, question.made)
        tried = {trial.point for trial in question.trials}
        known = [*question.prior, *question.trials]
        initial = int(question.settings.get("n_initial_points", _initial(len(question.space.parameters))))
        finished = sum(trial.loss is not None for trial in known)
        wanted = max(0, initial - len(known)) if finished else count
        points = draw_new(question.space, random, tried, min(count, wanted))
        if len(points) < count and finished:
            # They load SciPy, which the service does not wait for when it starts.
            from threadpoolctl import threadpool_limits

            from mlmesh_katib.algorithms.gp.model_based import modelled

            # The matrices are small: threads cost more than they give, and trials want the processors.
            with threadpool_limits(1):
                points += modelled(question, random, known, points, tried, count - len(points))
        if len(points) < count:  # it proposed what was tried already
            points += draw_new(question.space, random, tried, count - len(points))
        return points


def _initial(dimensions: int) -> int:
    """Gives how many points are drawn at random before there is a model.

    Points far from each other would lie at the borders, the more so the more coordinates there are.
    """
    return min(10, 2 * dimensions + 2)
