"""What is the same for all tasks of a run."""

from dataclasses import dataclass

from mlmesh_pipeline.engine.paths import RunPaths
from mlmesh_pipeline.engine.steps import context_of
from mlmesh_pipeline.ir.document import PipelineDocument
from mlmesh_pipeline.resources import Run, Task


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for all tasks of a run.

    Attributes:
        run: The run.
        document: Its pipeline.
        paths: Where its files are.
        has_workspace: Whether its tasks share a folder.
    """

    run: Run
    document: PipelineDocument
    paths: RunPaths
    has_workspace: bool

    def context(self, task: Task) -> dict[str, str]:
        """Gives the values of placeholders such as `pipeline_job_name` for a task."""
        workspace = str(self.paths.workspace) if self.has_workspace else ""
        return context_of(self.run, task.name, task.task_id, self.paths.root_uri, workspace)
