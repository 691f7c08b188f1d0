"""What a run has given so far."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlmesh_pipeline.engine.inputs import Outcome, dag_outputs
from mlmesh_pipeline.ir.document import PipelineDocument
from mlmesh_pipeline.resources import RuntimeState, Task, Values


@dataclass(frozen=True, slots=True)
class RunOutputs:
    """What a run has given so far.

    Attributes:
        pipeline: Outputs of the pipeline, as far as the tasks that give them have ended.
        tasks: Those that gave something, in the order in which they ended.
    """

    pipeline: Values
    tasks: Sequence[Task]


def outputs_of(document: PipelineDocument, tasks: Sequence[Task]) -> RunOutputs:
    """Gathers the outputs of a run.

    Args:
        document: Its pipeline.
        tasks: Its tasks.
    """
    outcomes = {name: Outcome(RuntimeState.PENDING) for name in document.spec.root.dag.tasks}
    for task in tasks:
        if not task.parent_id:
            outcomes[task.name] = Outcome(task.state, task.outputs)
    given = [task for task in tasks if task.outputs.parameters or task.outputs.artifacts]
    return RunOutputs(dag_outputs(document.spec.root, outcomes), sorted(given, key=lambda task: task.finished_at))
