"""Answers questions about runs, and makes runs that take over what earlier ones have done."""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlmesh_kit.errors import FailedPrecondition

from mlmesh_pipeline.analysis.explanation import Execution, Explanation, Verdict, explain
from mlmesh_pipeline.analysis.outputs import Look
from mlmesh_pipeline.analysis.rerun import Pipelines, Plan, changed_parameters, plan_rerun
from mlmesh_pipeline.analysis.run_diff import RunComparison, RunRecord, compare_runs
from mlmesh_pipeline.analysis.run_outputs import RunOutputs, outputs_of
from mlmesh_pipeline.analysis.task_call import TaskCall, describe
from mlmesh_pipeline.analysis.task_names import TaskPaths, find_task
from mlmesh_pipeline.ir.document import PipelineDocument, parse
from mlmesh_pipeline.ir.places import paths_and_titles_in, place_of
from mlmesh_pipeline.ir.runnable import has_workspace
from mlmesh_pipeline.resources import Experiment, PipelineVersion, Run, Task
from mlmesh_pipeline.runs import NewRun, Runs
from mlmesh_pipeline.store import ExecutionStore, RunStore, TaskStore

MAX_NAMED = 1000


@dataclass(frozen=True, slots=True)
class Rerun:
    """What a client asks for.

    Attributes:
        from_tasks: Names of the tasks that run anew.
        parameters: Those that are not as in the earlier run.
        spec: Another pipeline; None: that of the earlier run.
        display_name: Of the new run; "": that of the earlier one.
        creator: Who asks.
    """

    from_tasks: Sequence[str] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] | None = None
    display_name: str = ""
    creator: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A rerun that has been planned."""

    new: NewRun
    spec: dict[str, Any]
    plan: Plan


class RunAnalysis:
    """Answers questions about runs.

    Args:
        runs, tasks, executions: The database.
        maker: Makes runs.
        look: Looks at artifacts.
    """

    def __init__(self, runs: RunStore, tasks: TaskStore, executions: ExecutionStore, maker: Runs, look: Look) -> None:
        self._runs = runs
        self._tasks = tasks
        self._executions = executions
        self._maker = maker
        self._look = look

    def explain(self, run: Run, name: str) -> tuple[Task, Explanation]:
        """Says why a task was answered from the cache, or why it was not.

        Args:
            run: Its run.
            name: What the user calls the task.

        Raises:
            InvalidArgument: The name fits several tasks.
            NotFound: It fits none.
        """
        documents: dict[str, PipelineDocument] = {}
        task = find_task(self._tasks.of_run(run.run_id), name, "task")
        one = self._execution(run, task, documents)
        key = one.place.cache_key
        if task.cached_from:
            verdict = Verdict.REUSED if run.rerun_of else Verdict.HIT
            words = "its outputs were taken over from" if run.rerun_of else "it was answered from the cache, by"
            origin = self._executions.by_id(task.cached_from)
            if origin is None or origin[0].namespace != run.namespace:
                return task, Explanation(verdict, f"{words} a run that has been deleted since")
            message = f"{words} task {origin[1].path!r} of run {origin[0].run_id}"
            return task, Explanation(verdict, message, self._execution(*origin, documents), cache_key=key)
        others = self._executions.earlier(run, task) if task.fingerprint else []
        found = explain(one, [self._execution(*other, documents) for other in others], self._look)
        return task, replace(found, cache_key=key)

    def diff(self, before: Run, after: Run) -> RunComparison:
        """Says in what two runs differ."""
        documents: dict[str, PipelineDocument] = {}
        return compare_runs(self._record(before, documents), self._record(after, documents))

    def describe(self, run: Run, name: str) -> TaskCall:
        """Says what a task was called with.

        Raises:
            InvalidArgument: The name fits several tasks.
            NotFound: It fits none.
            FailedPrecondition: The task runs no Python function, or has not begun.
        """
        task = find_task(self._tasks.of_run(run.run_id), name, "task")
        documents: dict[str, PipelineDocument] = {}
        one = self._execution(run, task, documents)
        return describe(run, task, documents[run.spec_digest], one.place)

    def outputs(self, run: Run) -> RunOutputs:
        """Says what a run has given so far."""
        return outputs_of(self._document(run, {}), self._tasks.of_run(run.run_id))

    def prepare(self, run: Run, asked: Rerun) -> Prepared:
        """Plans a run that takes over the outputs of an earlier one; makes nothing.

        Raises:
            InvalidArgument: The pipeline, a parameter or the name of a task is wrong.
            NotFound: There is no such task.
            FailedPrecondition: The run has not ended, has a workspace, or nothing would run anew.
        """
        if not run.state.is_final:
            raise FailedPrecondition(f"run {run.run_id!r} is {run.state}; only one that has ended can be run anew")
        before = parse(self._runs.spec(run.spec_digest))
        spec = asked.spec if asked.spec is not None else before.content
        after, parameters = self._maker.checked(spec, self._parameters(run, spec, asked))
        if has_workspace(before) or has_workspace(after):
            raise FailedPrecondition(
                "its tasks share a workspace, and what earlier tasks have put there is not kept; run it whole"
            )
        earlier = self._tasks.of_run(run.run_id)
        paths = TaskPaths(earlier, dict(paths_and_titles_in(after)))
        named = {paths.find(name, f"from_tasks[{at}]") for at, name in enumerate(asked.from_tasks)}
        changed = changed_parameters(run.parameters, parameters)
        plan = plan_rerun(Pipelines(before, after), earlier, named, changed, self._look)
        run_id = str(uuid.uuid4())
        plan.tasks = [replace(task, run_id=run_id) for task in plan.tasks]
        new = NewRun(
            display_name=asked.display_name or run.display_name,
            parameters=parameters,
            description=f"Takes over what run {run.run_id} has done",
            pipeline_root=run.pipeline_root,
            service_account=run.service_account,
            creator=asked.creator,
            plugins_input=run.plugins_input,
            run_id=run_id,
            rerun_of=run.run_id,
        )
        return Prepared(new, spec, plan)

    def make(self, prepared: Prepared, experiment: Experiment, version: PipelineVersion | None) -> Run:
        """Makes the run that was planned; what it takes over is in the database before it starts.

        Args:
            prepared: The plan.
            experiment: What it belongs to.
            version: Where its pipeline came from; None: with a request.

        Raises:
            FailedPrecondition: The experiment is archived.
        """
        return self._maker.create(experiment, prepared.new, prepared.spec, version, reused=prepared.plan.tasks)

    def _parameters(self, run: Run, spec: dict[str, Any], asked: Rerun) -> dict[str, Any]:
        """Gives the parameters of the new run: the earlier one's, as far as the pipeline still has them."""
        known = parse(spec).spec.root.input_definitions.parameters
        kept = {name: value for name, value in run.parameters.items() if name in known}
        return {**kept, **asked.parameters}

    def _record(self, run: Run, documents: dict[str, PipelineDocument]) -> RunRecord:
        counted = Counter(attempt.task_id for attempt in self._tasks.attempts_of(run.run_id))
        return RunRecord(run, self._document(run, documents), self._tasks.of_run(run.run_id), counted)

    def _execution(self, run: Run, task: Task, documents: dict[str, PipelineDocument]) -> Execution:
        place = place_of(self._document(run, documents), task.path)
        assert place is not None, task.path
        return Execution(run, task, place)

    def _document(self, run: Run, documents: dict[str, PipelineDocument]) -> PipelineDocument:
        if run.spec_digest not in documents:
            documents[run.spec_digest] = parse(self._runs.spec(run.spec_digest))
        return documents[run.spec_digest]
