"""Grid search: every point once, the last parameter fastest."""

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.algorithms.base import Algorithm, Question, check_settings
from mlmesh_katib.space import Kind, Value


class GridSearch(Algorithm):
    """All combinations."""

    name = "grid"

    def validate(self, question: Question) -> None:
        """See Algorithm; as Katib, refuses more trials than there are points."""
        check_settings(question.settings, (), self.name)
        for parameter in question.space.parameters:
            if parameter.kind is Kind.DOUBLE and parameter.step is None:
                raise InvalidArgument(
                    f"Param: {parameter.name} step is nil; for discrete search space, all parameters must include step",
                    field=f"parameters.{parameter.name}.feasibleSpace.step",
                )
        size = question.space.size() or 0
        if question.max_trial_count > size:
            raise InvalidArgument(
                f"Max Trial Count: {question.max_trial_count} > all possible search combinations: {size}",
                field="maxTrialCount",
            )

    def suggest(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """See Algorithm."""
        tried = {question.space.key(trial.point) for trial in question.trials}
        points: list[tuple[Value, ...]] = []
        for point in question.space.points():
            if len(points) == count:
                break
            if question.space.key(point) not in tried:
                points.append(point)
        return points
