"""RunAnalysisService: why a task missed the cache, how runs differ, and runs that take over what others have done."""

import copy
import json
import uuid

import grpc
import pytest
from google.protobuf import json_format, struct_pb2
from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2
from mlmesh_protos.mlmesh.pipeline.v1 import run_analysis_pb2 as pb2
from mlmesh_protos.mlmesh.pipeline.v1 import run_analysis_pb2_grpc

Verdict = pb2.CacheExplanation.Verdict


@dsl.component
def rows(count: int, word: str, made: Output[Dataset]):
    with open(made.path, "w") as file:
        file.write(f"{word}\n" * count)


@dsl.component
def train(made: Input[Dataset], rate: float, metrics: Output[Metrics]) -> float:
    with open(made.path) as file:
        number = len(file.readlines())
    if rate < 0:
        raise ValueError("the rate must not be negative")
    metrics.log_metric("score", number * rate)
    return number * rate


@dsl.component
def report(score: float) -> str:
    return f"score {score}"


@dsl.component
def total(scores: list[float]) -> float:
    return sum(scores)


@dsl.pipeline(name="analysis")
def chain(count: int = 3, word: str = "a", rate: float = 0.5):
    data = rows(count=count, word=word)
    report(score=train(made=data.outputs["made"], rate=rate).outputs["Output"])


@dsl.pipeline(name="analysis-loop")
def loop(count: int = 3, word: str = "a", limit: float = 1.0):
    data = rows(count=count, word=word)
    with dsl.ParallelFor([0.5, 1.0, 2.0]) as rate:
        trained = train(made=data.outputs["made"], rate=rate)
        shown = report(score=trained.outputs["Output"])
        shown.set_caching_options(False)
    with dsl.If(limit > 5.0):
        report(score=limit)
    total(scores=dsl.Collected(trained.outputs["Output"]))


@dsl.pipeline(name="analysis-titles")
def titles():
    with dsl.ParallelFor([0.5, 1.0], name="rates") as rate:
        report(score=rate).set_display_name("shown")


@pytest.fixture(scope="module")
def analysis(client):
    return run_analysis_pb2_grpc.RunAnalysisServiceStub(client.channel)


@pytest.fixture(scope="module")
def chain_spec(compile_pipeline):
    return compile_pipeline(chain)


@pytest.fixture
def word():
    """Keeps the caches of the tests apart."""
    return uuid.uuid4().hex


def explain(analysis, run, task):
    return analysis.ExplainCache(pb2.ExplainCacheRequest(name=f"runs/{run.run_id}", task=task))


def rerun(client, analysis, run, *tasks, **fields):
    answer = analysis.RerunRun(pb2.RerunRunRequest(name=f"runs/{run.run_id}", from_tasks=tasks, **fields))
    return answer, client.wait(answer.run_id) if answer.run_id else None


def states(run):
    return {
        task.display_name: "REUSED"
        if task.executor_detail.pre_caching_check_job
        else run_pb2.RuntimeState.Name(task.state)
        for task in run.run_details.task_details
    }


def value(content):
    return json_format.ParseDict(content, struct_pb2.Value())


def refusal(call, code):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() == code, caught.value
    return caught.value.details()


# -- the cache --------------------------------------------------------------------------------------------------------


def test_a_miss_is_explained_by_what_differs(client, analysis, chain_spec, word):
    first = client.run(chain_spec, {"word": word})
    assert explain(analysis, first, "train").verdict == Verdict.VERDICT_NO_EARLIER
    second = client.run(chain_spec, {"word": word, "rate": 0.75})
    hit = explain(analysis, second, "rows")
    assert hit.verdict == Verdict.VERDICT_HIT and hit.earlier_run == f"runs/{first.run_id}"
    found = explain(analysis, second, "train")
    assert found.verdict == Verdict.VERDICT_CHANGED and found.earlier_run == f"runs/{first.run_id}"
    (difference,) = found.differences
    assert difference.name == "rate" and difference.Kind.Name(difference.kind) == "KIND_PARAMETER"
    assert (difference.before.number_value, difference.after.number_value) == (0.5, 0.75)
    assert found.fingerprint and found.task_path == "train"
    third = client.run(chain_spec, {"word": word, "count": 5, "rate": 0.75})
    (difference,) = explain(analysis, third, "train").differences  # the nearest is the second, and not the first
    assert difference.Kind.Name(difference.kind) == "KIND_ARTIFACT" and difference.name == "made"
    assert difference.before.string_value != difference.after.string_value


def test_a_miss_by_another_source_image_or_variable(client, analysis, chain_spec, word):
    client.run(chain_spec, {"word": word})
    changed = copy.deepcopy(chain_spec)
    container = changed["deploymentSpec"]["executors"]["exec-rows"]["container"]
    container["command"][-1] = container["command"][-1].replace("* count", "* (count + 0)")
    container["image"] = "python:3.12"
    container["env"] = [{"name": "MODE", "value": "fast"}]
    found = explain(analysis, client.run(changed, {"word": word}), "rows")
    kinds = {each.Kind.Name(each.kind): each for each in found.differences}
    assert set(kinds) == {"KIND_SOURCE", "KIND_IMAGE", "KIND_ENVIRONMENT"}, found
    assert '+        file.write(f"{word}\\n" * (count + 0))' in kinds["KIND_SOURCE"].text.splitlines()
    assert kinds["KIND_IMAGE"].after.string_value == "python:3.12"
    assert kinds["KIND_ENVIRONMENT"].name == "MODE" and not kinds["KIND_ENVIRONMENT"].HasField("before")


def test_a_miss_without_a_difference(client, analysis, chain_spec, compile_pipeline, word):
    off = compile_pipeline(chain, caching=False)
    client.run(off, {"word": word})
    disabled = explain(analysis, client.run(off, {"word": word}), "rows")
    assert disabled.verdict == Verdict.VERDICT_DISABLED and "an equal task has run" in disabled.message
    stored = client.run(chain_spec, {"word": word})
    assert explain(analysis, stored, "rows").verdict == Verdict.VERDICT_NOT_STORED
    (path,) = client.service.data_dir.rglob(f"{stored.run_id}/rows/made")
    path.write_text("something else")
    spoiled = client.run(chain_spec, {"word": word})
    found = explain(analysis, spoiled, "rows")
    assert found.verdict == Verdict.VERDICT_OUTPUTS_CHANGED and "made has been changed" in found.message


def test_what_is_not_cached_and_names_of_tasks(client, analysis, compile_pipeline, word):
    run = client.run(compile_pipeline(loop), {"word": word})
    assert explain(analysis, run, "for-loop-2").verdict == Verdict.VERDICT_NOT_CACHEABLE
    assert explain(analysis, run, "condition-3").verdict == Verdict.VERDICT_NOT_CACHEABLE
    assert explain(analysis, run, "for-loop-2[1]/report").verdict == Verdict.VERDICT_DISABLED
    words = refusal(lambda: explain(analysis, run, "train"), grpc.StatusCode.INVALID_ARGUMENT)
    assert "for-loop-2[0]/train, for-loop-2[1]/train" in words
    words = refusal(lambda: explain(analysis, run, "totle"), grpc.StatusCode.NOT_FOUND)
    assert "did you mean 'total'" in words
    refusal(lambda: explain(analysis, run, ""), grpc.StatusCode.INVALID_ARGUMENT)
    for name in ("", "runs/", "run/x", "runs/x/y"):
        request = pb2.ExplainCacheRequest(name=name, task="x")
        refusal(lambda request=request: analysis.ExplainCache(request), grpc.StatusCode.INVALID_ARGUMENT)
    request = pb2.ExplainCacheRequest(name="runs/nothing", task="x")
    refusal(lambda: analysis.ExplainCache(request), grpc.StatusCode.NOT_FOUND)


# -- reruns -----------------------------------------------------------------------------------------------------------


def test_a_run_takes_over_what_comes_before_the_named_task(client, analysis, chain_spec, word):
    first = client.run(chain_spec, {"word": word})
    answer, second = rerun(client, analysis, first, "train")
    assert answer.reused == ["rows"]
    assert [(one.path, one.reason) for one in answer.anew] == [("train", "named"), ("report", "follows train")]
    assert second.state == run_pb2.SUCCEEDED
    # train and report run, although the cache has them.
    assert states(second) == {"rows": "REUSED", "train": "SUCCEEDED", "report": "SUCCEEDED"}
    origin = next(task for task in first.run_details.task_details if task.display_name == "rows")
    taken = next(task for task in second.run_details.task_details if task.display_name == "rows")
    assert taken.executor_detail.pre_caching_check_job == f"cache/{origin.task_id}"
    assert explain(analysis, second, "rows").verdict == Verdict.VERDICT_REUSED
    assert explain(analysis, second, "train").verdict == Verdict.VERDICT_ANEW
    third = rerun(client, analysis, second, "report")[1]
    taken = next(task for task in third.run_details.task_details if task.display_name == "rows")
    assert taken.executor_detail.pre_caching_check_job == f"cache/{origin.task_id}"


def test_a_failed_run_is_taken_up_with_another_parameter(client, analysis, chain_spec, word):
    failed = client.run(chain_spec, {"word": word, "rate": -1.0})
    assert failed.state == run_pb2.FAILED
    answer, second = rerun(client, analysis, failed, parameters={"rate": value(2.0)})
    assert answer.reused == ["rows"] and second.state == run_pb2.SUCCEEDED
    assert dict(json_format.MessageToDict(second.runtime_config)["parameters"])["rate"] == 2.0
    assert [one.path for one in answer.anew] == ["train", "report"]


def test_within_loops_and_conditions(client, analysis, compile_pipeline, word):
    first = client.run(compile_pipeline(loop), {"word": word})
    answer, second = rerun(client, analysis, first, "for-loop-2[1]/train")
    assert second.state == run_pb2.SUCCEEDED
    assert sorted(answer.reused) == [
        "for-loop-2[0]/report", "for-loop-2[0]/train", "for-loop-2[2]/report", "for-loop-2[2]/train", "rows",
    ]  # fmt: skip
    assert {one.path for one in answer.anew} == {"for-loop-2[1]/train", "for-loop-2[1]/report", "total"}
    by_parent = {}
    for task in second.run_details.task_details:
        by_parent.setdefault(task.parent_task_id, []).append(task)
    loops = {task.display_name: task for task in second.run_details.task_details if "for-loop" in task.display_name}
    assert {run_pb2.RuntimeState.Name(task.state) for task in loops.values()} == {"SUCCEEDED"} and len(loops) == 4
    reused = {
        name: {bool(task.executor_detail.pre_caching_check_job) for task in by_parent[row.task_id]}
        for name, row in loops.items()
        if "[" in name
    }
    assert reused == {"for-loop-2[0]": {True}, "for-loop-2[1]": {False}, "for-loop-2[2]": {True}}
    assert states(second)["condition-3"] == "SKIPPED" and states(second)["total"] == "SUCCEEDED"
    # All iterations of a task, by its name alone; and a condition that holds only now.
    answer, third = rerun(client, analysis, second, "train", parameters={"limit": value(6.0)})
    assert answer.reused == ["rows"] and states(third)["condition-3"] == "SUCCEEDED"
    assert ("condition-3", "its condition or loop depends on pipelinechannel--limit") in [
        (one.path, one.reason) for one in answer.anew
    ]


def test_tasks_are_named_as_they_are_shown(client, analysis, compile_pipeline):
    first = client.run(compile_pipeline(titles))
    assert explain(analysis, first, "rates[1]/shown").task_path == "for-loop-2[1]/report"
    answer, second = rerun(client, analysis, first, "rates[1]/shown")
    assert answer.reused == ["for-loop-2[0]/report"] and second.state == run_pb2.SUCCEEDED
    answer, _ = rerun(client, analysis, first, "shown", validate_only=True)
    assert [one.path for one in answer.anew] == ["for-loop-2[0]/report", "for-loop-2[1]/report"]


def test_another_pipeline_runs_what_differs_in_it(client, analysis, chain_spec, word):
    first = client.run(chain_spec, {"word": word})
    changed = copy.deepcopy(chain_spec)
    container = changed["deploymentSpec"]["executors"]["exec-report"]["container"]
    container["command"][-1] = container["command"][-1].replace("score {", "the score is {")
    spec = json_format.ParseDict(changed, struct_pb2.Struct())
    answer, second = rerun(client, analysis, first, pipeline_spec=spec)
    assert sorted(answer.reused) == ["rows", "train"]
    assert [(one.path, one.reason) for one in answer.anew] == [("report", "its component has changed")]
    found = analysis.DiffRuns(pb2.DiffRunsRequest(name=f"runs/{first.run_id}", other=f"runs/{second.run_id}"))
    (output,) = next(task for task in found.tasks if task.path == "report").outputs
    assert (output.before.string_value, output.after.string_value) == ("score 1.5", "the score is 1.5")


def test_outputs_that_are_gone_are_made_anew(client, analysis, chain_spec, word):
    first = client.run(chain_spec, {"word": word})
    (path,) = client.service.data_dir.rglob(f"{first.run_id}/rows/made")
    path.unlink()
    answer, second = rerun(client, analysis, first, "report")
    assert answer.reused == [] and "output made is gone" in answer.anew[0].reason
    assert second.state == run_pb2.SUCCEEDED


def test_a_rerun_that_is_refused_makes_nothing(client, analysis, chain_spec, compile_pipeline, word):
    run = client.run(chain_spec, {"word": word})
    looped = client.run(compile_pipeline(loop), {"word": word})

    def listed():
        return client.runs.ListRuns(run_pb2.ListRunsRequest()).total_size

    before = listed()
    for one, fields, code, said in [
        (run, {}, grpc.StatusCode.FAILED_PRECONDITION, "nothing would run anew"),
        (run, {"from_tasks": ["tain"]}, grpc.StatusCode.NOT_FOUND, "did you mean 'train'"),
        (run, {"from_tasks": [""]}, grpc.StatusCode.INVALID_ARGUMENT, "from_tasks[0]"),
        (run, {"parameters": {"nothing": value(1)}}, grpc.StatusCode.INVALID_ARGUMENT, "nothing"),
        (run, {"parameters": {"rate": value("x")}}, grpc.StatusCode.INVALID_ARGUMENT, "rate"),
        (looped, {"from_tasks": ["report-2"]}, grpc.StatusCode.FAILED_PRECONDITION, "does not hold"),
        (run, {"pipeline_spec": struct_pb2.Struct()}, grpc.StatusCode.INVALID_ARGUMENT, "pipeline_spec"),
    ]:
        request = pb2.RerunRunRequest(name=f"runs/{one.run_id}", **fields)
        assert said in refusal(lambda request=request: analysis.RerunRun(request), code)
    answer, nothing = rerun(client, analysis, run, "train", validate_only=True)
    assert nothing is None and answer.reused == ["rows"]
    assert listed() == before


def test_a_rerun_goes_on_after_the_service_was_killed(make_service, connect, compile_pipeline, word):
    service = make_service()
    client = connect(service)
    first = client.run(compile_pipeline(chain), {"word": word})
    analysis = run_analysis_pb2_grpc.RunAnalysisServiceStub(client.channel)
    answer = analysis.RerunRun(pb2.RerunRunRequest(name=f"runs/{first.run_id}", from_tasks=["train"]))
    service.kill()
    service.start()
    client.connect()
    second = client.wait(answer.run_id)
    assert states(second) == {"rows": "REUSED", "train": "SUCCEEDED", "report": "SUCCEEDED"}


# -- differences and calls --------------------------------------------------------------------------------------------


def test_runs_are_compared(client, analysis, chain_spec, compile_pipeline, word):
    first = client.run(chain_spec, {"word": word})
    second = client.run(chain_spec, {"word": word, "rate": 2.0})
    failed = client.run(chain_spec, {"word": word, "rate": -1.0})

    def diff(one, other):
        return analysis.DiffRuns(pb2.DiffRunsRequest(name=f"runs/{one.run_id}", other=f"runs/{other.run_id}"))

    found = diff(first, second)
    (parameter,) = found.parameters
    assert (parameter.name, parameter.delta) == ("rate", 1.5) and not found.pipeline
    tasks = {task.path: task for task in found.tasks}
    assert list(tasks) == ["rows", "train", "report"]
    assert not tasks["rows"].changed and tasks["rows"].after.cached and tasks["rows"].before.attempts == 1
    assert [(pair.name, pair.delta) for pair in tasks["train"].metadata] == [("metrics.score", 4.5)]
    assert [(pair.name, pair.delta) for pair in tasks["train"].outputs] == [("Output", 4.5)]
    assert tasks["report"].outputs[0].after.string_value == "score 6.0"
    assert not tasks["report"].outputs[0].HasField("delta")
    tasks = {task.path: task for task in diff(second, failed).tasks}
    assert tasks["train"].after.state == "FAILED" and "must not be negative" in tasks["train"].after.error
    assert tasks["report"].after.state == "SKIPPED" and not tasks["report"].after.cached
    looped = client.run(compile_pipeline(loop), {"word": word})
    found = diff(first, looped)
    kinds = {(each.Kind.Name(each.kind), each.name) for each in found.pipeline}
    assert ("KIND_TASK", "for-loop-2") in kinds and ("KIND_OTHER", "name of the pipeline") in kinds
    assert not any(task.changed for task in diff(first, first).tasks)


def test_a_task_is_described_for_a_debugger(client, analysis, chain_spec, word):
    run = client.run(chain_spec, {"word": word, "rate": -1.0})

    def describe(task):
        return analysis.DescribeTask(pb2.DescribeTaskRequest(name=f"runs/{run.run_id}", task=task))

    call = describe("train")
    given = json.loads(call.executor_input)
    assert call.function == "train" and "def train(" in call.source and call.state == "FAILED"
    assert '"rate": -1.0' in call.executor_input
    assert given["inputs"]["artifacts"]["made"]["artifacts"][0]["uri"].endswith(f"{run.run_id}/rows/made")
    assert given["outputs"]["parameters"] == {"Output": {}} and "metrics" in given["outputs"]["artifacts"]
    assert "has not begun" in refusal(lambda: describe("report"), grpc.StatusCode.FAILED_PRECONDITION)


def test_a_stranger_learns_nothing(client, analysis, chain_spec, word):
    run = client.run(chain_spec, {"word": word})
    stranger = (("kubeflow-userid", "stranger@example.com"),)
    name = f"runs/{run.run_id}"
    for call, request in (
        (analysis.ExplainCache, pb2.ExplainCacheRequest(name=name, task="rows")),
        (analysis.DiffRuns, pb2.DiffRunsRequest(name=name, other=name)),
        (analysis.RerunRun, pb2.RerunRunRequest(name=name, from_tasks=["rows"])),
        (analysis.DescribeTask, pb2.DescribeTaskRequest(name=name, task="rows")),
    ):
        refusal(lambda call=call, request=request: call(request, metadata=stranger), grpc.StatusCode.NOT_FOUND)


@dsl.component
def measure(rate: float, numbers: dsl.Output[dsl.Metrics]) -> float:
    numbers.log_metric("accuracy", 1 - rate)
    return rate * 2


@dsl.pipeline(name="analysis-outputs")
def measured(rate: float = 0.25) -> float:
    return measure(rate=rate).outputs["Output"]


def test_the_outputs_of_a_run_are_those_of_its_pipeline_and_of_its_tasks(client, analysis, compile_pipeline):
    run = client.run(compile_pipeline(measured), {"rate": 0.125})
    found = analysis.GetOutputs(pb2.GetOutputsRequest(name=f"runs/{run.run_id}"))
    assert found.parameters["Output"].number_value == 0.25
    (task,) = found.tasks
    assert (task.path, task.display_name) == ("measure", "measure")
    assert task.parameters["Output"].number_value == 0.25
    (artifact,) = task.artifacts
    assert (artifact.name, artifact.type) == ("numbers", "system.Metrics")
    assert artifact.metadata["accuracy"] == 0.875


def test_a_run_that_has_given_nothing_has_no_outputs(client, analysis, compile_pipeline):
    run = client.create(compile_pipeline(measured), {"rate": 0.0625})
    found = analysis.GetOutputs(pb2.GetOutputsRequest(name=f"runs/{run.run_id}"))
    assert "Output" not in found.parameters or found.tasks
    client.wait(run.run_id)
    with pytest.raises(grpc.RpcError) as caught:
        analysis.GetOutputs(pb2.GetOutputsRequest(name="runs/none"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
