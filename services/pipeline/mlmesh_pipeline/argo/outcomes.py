"""How tasks ended, of what is written of them: that of a DAG or a loop follows from its tasks."""

from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Any

from mlmesh_pipeline.argo.state import RunState
from mlmesh_pipeline.argo.tree import Place, Tree
from mlmesh_pipeline.engine.inputs import NOT_RUN, Outcome
from mlmesh_pipeline.engine.steps import outcome_of_dag, outcome_of_loop, with_item
from mlmesh_pipeline.ir.check import upstream_of
from mlmesh_pipeline.ir.proto import TriggerStrategy
from mlmesh_pipeline.resources import Problem, RuntimeState, Values

_ABORTED = 10  # google.rpc.Code
_COMPLETED = TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED
NO_WORD = Problem(_ABORTED, "its pod ended without a word: it was killed, or its image could not be started")


class Outcomes:
    """Outcomes of tasks that Argo has ended.

    Args:
        tree: The tasks.
        state: What is written of them.
    """

    def __init__(self, tree: Tree, state: RunState) -> None:
        self._tree = tree
        self._state = state

    def upstream(self, place: Place) -> dict[str, Outcome]:
        """Gives the outcomes of the tasks that a task waits for."""
        names = sorted(upstream_of(place.spec))
        return {name: self.of(self._tree.child(place.dag, place.around, name)) for name in names}

    def of(self, place: Place) -> Outcome:
        """Gives the outcome of a task that has ended, or to which Argo did not come."""
        record = self._state.ended(place.path) if not place.is_dag or place.iteration is None else None
        if record is not None:
            return record.outcome
        if place.iteration is None and self._state.begun(place.path) is None:
            return self._not_begun(place)
        if place.is_loop:
            items = self._state.items(place.path) or []
            outcomes = [self.of(self._tree.iteration(place, number)) for number in range(len(items))]
            return outcome_of_loop(place.component, outcomes)
        if place.is_dag:
            return outcome_of_dag(place.component, self.inside(place.component, place.path))
        return Outcome(RuntimeState.FAILED, problem=NO_WORD)

    def inside(self, dag: Any, path: str) -> Mapping[str, Outcome]:
        """Gives the outcomes of the tasks of a DAG, in their order."""
        tasks = dag.dag.tasks
        order = TopologicalSorter({name: upstream_of(task) for name, task in tasks.items()}).static_order()
        return {name: self.of(self._tree.child(dag, path, name)) for name in order}

    def inputs_around(self, path: str) -> Values:
        """Gives the inputs of what a task is in, by its path: of a DAG, or of an iteration."""
        place = self._tree.find(path)
        if place.iteration is None:
            begun = self._state.begun(path)
            return begun[0] if begun else Values()
        begun = self._state.begun(place.loop_path)
        items = self._state.items(place.loop_path) or []
        assert begun is not None, f"the loop of {path} has not begun"
        return with_item(begun[0], place.item_input, items[place.iteration])

    def _not_begun(self, place: Place) -> Outcome:
        """Gives the outcome of a task that nothing is written of: kept from running, or its driver was lost."""
        blocked = any(not outcome.succeeded for outcome in self.upstream(place).values())
        if blocked and place.spec.trigger_policy.strategy != _COMPLETED:
            return NOT_RUN
        return Outcome(RuntimeState.FAILED, problem=NO_WORD)
