"""A sequence that fills the space evenly: I. M. Sobol (1967), in the directions of S. Joe and F. Y. Kuo (2008).

Scrambled as in A. B. Owen, "Scrambling Sobol' and Niederreiter-Xing Points" (1998).
"""

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.algorithms.base import Algorithm, Question, check_settings, generator
from mlmesh_katib.algorithms.random import draw_new
from mlmesh_katib.algorithms.unit import from_unit
from mlmesh_katib.space import Value

MAX_DIMENSIONS = 21_201
_BLOCKS = 20


class SobolSequence(Algorithm):
    """Fills the space evenly; the place in the sequence is the number of trials made. Katib's has no settings."""

    name = "sobol"
    is_multi_objective = True
    reads_results = False
    ignores_prior = True

    def load(self) -> None:
        """See Algorithm."""
        import scipy.stats.qmc  # noqa: F401

    def validate(self, question: Question) -> None:
        """See Algorithm; `random_state` chooses the scrambling."""
        check_settings(question.settings, ("random_state",), self.name)
        if len(question.space.parameters) > MAX_DIMENSIONS:
            raise InvalidArgument(f"sobol has at most {MAX_DIMENSIONS} dimensions", field="parameters")

    def suggest(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """See Algorithm. Places that give a point that was tried are passed over."""
        from scipy.stats import qmc  # takes half a second: only when it is needed

        space = question.space
        tried = {trial.point for trial in question.trials}
        points: list[tuple[Value, ...]] = []
        size = space.size()
        if count and (size is None or len(tried) < size):
            scrambling = int(question.settings.get("random_state", "0"))
            sequence = qmc.Sobol(len(space.parameters), rng=scrambling)
            if question.made:
                sequence.fast_forward(question.made)
            for _ in range(_BLOCKS):
                block = 1 << (count - len(points) - 1).bit_length()  # a power of 2: SciPy warns of others
                for point in from_unit(space, sequence.random(block)):
                    if point not in tried:
                        tried.add(point)
                        points.append(point)
                        if len(points) == count:
                            return points
        settings = {"random_state": "0", **question.settings}
        return points + draw_new(space, generator(settings, question.made), tried, count - len(points))
