"""mlmesh.pipeline.v1.RunAnalysisService."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct, Value
from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_kit.identity import current_caller
from mlmesh_kit.names import parse_resource
from mlmesh_protos.mlmesh.pipeline.v1 import difference_pb2, run_analysis_pb2, run_analysis_pb2_grpc

from mlmesh_pipeline.access import require_visible
from mlmesh_pipeline.analysis.differences import MISSING, Difference
from mlmesh_pipeline.analysis.run_analysis import MAX_NAMED, Rerun, RunAnalysis
from mlmesh_pipeline.analysis.run_diff import Pair, RunComparison, RunRecord, TaskPair
from mlmesh_pipeline.resources import Artifact, PipelineVersion, Run, Task
from mlmesh_pipeline.servicers.convert import parameters_of
from mlmesh_pipeline.servicers.sources import Sources
from mlmesh_pipeline.store import PipelineStore, RunStore


class RunAnalysisServicer(run_analysis_pb2_grpc.RunAnalysisServiceServicer):
    """Answers questions about runs.

    Args:
        analysis: Has the answers.
        sources: Finds experiments.
        runs, pipelines: The database.
    """

    def __init__(self, analysis: RunAnalysis, sources: Sources, runs: RunStore, pipelines: PipelineStore) -> None:
        self._analysis = analysis
        self._sources = sources
        self._runs = runs
        self._pipelines = pipelines

    def ExplainCache(self, request: Any, context: Any) -> run_analysis_pb2.CacheExplanation:
        run = self._visible(request.name, "name")
        task, found = self._analysis.explain(run, request.task)
        earlier = found.earlier
        return run_analysis_pb2.CacheExplanation(
            verdict=run_analysis_pb2.CacheExplanation.Verdict.Value(f"VERDICT_{found.verdict}"),
            message=found.message,
            task_path=task.path,
            task_id=task.task_id,
            fingerprint=task.fingerprint,
            cache_key=found.cache_key,
            earlier_run=f"runs/{earlier.run.run_id}" if earlier else "",
            earlier_task_path=earlier.task.path if earlier else "",
            earlier_task_id=earlier.task.task_id if earlier else "",
            differences=[_difference(each) for each in found.differences],
        )

    def DiffRuns(self, request: Any, context: Any) -> run_analysis_pb2.RunDiff:
        before, after = self._visible(request.name, "name"), self._visible(request.other, "other")
        return _run_diff(self._analysis.diff(before, after))

    def RerunRun(self, request: Any, context: Any) -> run_analysis_pb2.RerunRunResponse:
        run = self._visible(request.name, "name")
        if len(request.from_tasks) > MAX_NAMED:
            raise InvalidArgument(f"must be at most {MAX_NAMED}", field="from_tasks")
        experiment = self._sources.experiment(self._experiment_of(run), "runs", run.namespace)
        spec = json_format.MessageToDict(request.pipeline_spec) if request.HasField("pipeline_spec") else None
        asked = Rerun(
            from_tasks=request.from_tasks,
            parameters=parameters_of(request),
            spec=spec,
            display_name=request.display_name,
            creator=current_caller().user,
        )
        prepared = self._analysis.prepare(run, asked)
        made = None
        if not request.validate_only:
            made = self._analysis.make(prepared, experiment, self._version_of(run) if spec is None else None)
        return run_analysis_pb2.RerunRunResponse(
            run_id=made.run_id if made else "",
            reused=prepared.plan.reused,
            anew=[run_analysis_pb2.AnewTask(path=path, reason=reason) for path, reason in prepared.plan.anew],
        )

    def DescribeTask(self, request: Any, context: Any) -> run_analysis_pb2.TaskCall:
        run = self._visible(request.name, "name")
        call = self._analysis.describe(run, request.task)
        return run_analysis_pb2.TaskCall(
            task_path=call.task.path,
            task_id=call.task.task_id,
            state=call.task.state.value,
            error=call.task.problem.message if call.task.problem else "",
            source=call.code.source,
            function=call.code.function,
            requirements=call.code.requirements,
            environment=call.environment,
            secret_variables=call.secret_variables,
            executor_input=json.dumps(call.executor_input),
        )

    def GetOutputs(self, request: Any, context: Any) -> run_analysis_pb2.RunOutputs:
        found = self._analysis.outputs(self._visible(request.name, "name"))
        return run_analysis_pb2.RunOutputs(
            parameters=_values(found.pipeline.parameters),
            tasks=[
                run_analysis_pb2.TaskOutputs(
                    path=task.path,
                    task_id=task.task_id,
                    display_name=task.display_name,
                    parameters=_values(task.outputs.parameters),
                    artifacts=[
                        run_analysis_pb2.OutputArtifact(
                            name=name,
                            type=item.kind,
                            uri=item.uri,
                            metadata=Struct(fields=_values(item.metadata)),
                        )
                        for name, items in task.outputs.artifacts.items()
                        for item in items
                    ],
                )
                for task in found.tasks
            ],
        )

    def _visible(self, name: str, field: str) -> Run:
        run_id = parse_resource(name, "runs/{run}", field)["run"]
        found = self._runs.get(run_id)
        require_visible("get", "runs", found.namespace, "run", run_id)
        return found

    def _experiment_of(self, run: Run) -> str:
        """Gives the experiment of a run, if it is there still."""
        try:
            self._sources.experiment(run.experiment_id, "runs")
        except NotFound:
            return ""
        return run.experiment_id

    def _version_of(self, run: Run) -> PipelineVersion | None:
        """Gives the pipeline version of a run, if it has one and that is there still."""
        if not run.version_id:
            return None
        try:
            return self._pipelines.get_version(run.pipeline_id, run.version_id)
        except NotFound:
            return None


def _value(content: Any) -> Value | None:
    """Gives a value as a message; one that no message can hold as the text of its JSON."""
    if content is MISSING:
        return None
    try:
        return json_format.ParseDict(content, Value())
    except (OverflowError, UnicodeEncodeError, json_format.ParseError):
        return Value(string_value=json.dumps(content))


def _values(content: Mapping[str, Any]) -> dict[str, Value]:
    return {name: value for name, one in content.items() if (value := _value(one)) is not None}


def _difference(one: Difference) -> difference_pb2.Difference:
    return difference_pb2.Difference(
        kind=difference_pb2.Difference.Kind.Value(f"KIND_{one.kind}"),
        name=one.name,
        before=_value(one.before),
        after=_value(one.after),
        text=one.text,
    )


def _seconds(start: int, end: int) -> float | None:
    return (end - start) / 1e6 if start and end else None


def _run_diff(found: RunComparison) -> run_analysis_pb2.RunDiff:
    before, after = found.before.run, found.after.run
    return run_analysis_pb2.RunDiff(
        before=f"runs/{before.run_id}",
        after=f"runs/{after.run_id}",
        before_state=before.state.value,
        after_state=after.state.value,
        before_seconds=_seconds(before.created_at, before.finished_at),
        after_seconds=_seconds(after.created_at, after.finished_at),
        parameters=_pairs(found.parameters),
        pipeline=[_difference(each) for each in found.pipeline],
        tasks=[_task_diff(pair, found.before, found.after) for pair in found.tasks],
    )


def _task_diff(pair: TaskPair, before: RunRecord, after: RunRecord) -> run_analysis_pb2.TaskDiff:
    return run_analysis_pb2.TaskDiff(
        path=pair.path,
        before=_side(pair.before, before),
        after=_side(pair.after, after),
        changed=pair.changed,
        inputs=_pairs(pair.inputs),
        input_artifacts=_artifact_pairs(pair.input_artifacts),
        outputs=_pairs(pair.outputs),
        output_artifacts=_artifact_pairs(pair.output_artifacts),
        metadata=_pairs(pair.metadata),
    )


def _side(task: Task | None, record: RunRecord) -> run_analysis_pb2.TaskSide | None:
    if task is None:
        return None
    return run_analysis_pb2.TaskSide(
        task_id=task.task_id,
        state=task.state.value,
        cached=bool(task.cached_from),
        seconds=_seconds(task.started_at, task.finished_at),
        attempts=record.attempts.get(task.task_id, 0),
        error=task.problem.message if task.problem else "",
    )


def _pairs(found: Sequence[Pair]) -> list[run_analysis_pb2.ValuePair]:
    return [
        run_analysis_pb2.ValuePair(
            name=pair.name, before=_value(pair.before), after=_value(pair.after), delta=pair.delta
        )
        for pair in found
    ]


def _artifact_pairs(found: Sequence[Pair]) -> list[run_analysis_pb2.ArtifactPair]:
    return [
        run_analysis_pb2.ArtifactPair(name=pair.name, before=_artifact(pair.before), after=_artifact(pair.after))
        for pair in found
    ]


def _artifact(side: Any) -> run_analysis_pb2.ArtifactSide | None:
    if not isinstance(side, Artifact):
        return None
    return run_analysis_pb2.ArtifactSide(type=side.kind, uri=side.uri, digest=side.digest)
