"""Recurring runs: they fire when they should, once, whatever happens to the service."""

import re
import time
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from kfp import dsl
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import (
    experiment_pb2,
    pipeline_pb2,
    recurring_run_pb2,
    run_pb2,
)

ENABLE, DISABLE = recurring_run_pb2.RecurringRun.ENABLE, recurring_run_pb2.RecurringRun.DISABLE
LATER = {"cron_schedule": {"cron": "0 0 0 1 1 *"}}


@dsl.component
def say(text: str) -> str:
    return text


@dsl.pipeline(name="says")
def says(text: str = "hello", note: str = "", number: int = 1):
    say(text=text)


@dsl.component
def hold(path: str):
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.02)


@dsl.pipeline(name="holds")
def holds(path: str):
    hold(path=path)


@pytest.fixture(scope="module")
def spec(compile_pipeline: Any) -> dict[str, Any]:
    return compile_pipeline(says)


def create(client: Any, spec: dict[str, Any] | None, trigger: dict[str, Any], **fields: Any) -> Any:
    given = {"display_name": "Every Day!", "max_concurrency": 1, "mode": "ENABLE", "trigger": trigger, **fields}
    if spec is not None:
        given["pipeline_spec"] = spec
    message = json_format.ParseDict({"recurring_run": given}, recurring_run_pb2.CreateRecurringRunRequest())
    return client.recurring.CreateRecurringRun(message)


def get(client: Any, made: Any) -> Any:
    return client.recurring.GetRecurringRun(
        recurring_run_pb2.GetRecurringRunRequest(recurring_run_id=made.recurring_run_id)
    )


def delete(client: Any, made: Any) -> None:
    client.recurring.DeleteRecurringRun(
        recurring_run_pb2.DeleteRecurringRunRequest(recurring_run_id=made.recurring_run_id)
    )


def runs_of(client: Any, made: Any) -> list[Any]:
    """Its runs, in the order of the times that they were for."""
    predicate = {"operation": "EQUALS", "key": "recurring_run_id", "stringValue": made.recurring_run_id}
    text = str({"predicates": [predicate]}).replace("'", '"')
    request = run_pb2.ListRunsRequest(filter=text, sort_by="scheduled_at", page_size=200)
    return list(client.runs.ListRuns(request).runs)


def wait_for(condition: Any, seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def past(seconds: int) -> int:
    return int(time.time()) - seconds


def iso(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def ended(runs: list[Any], count: int) -> bool:
    return len(runs) == count and all(run.state == run_pb2.SUCCEEDED for run in runs)


def test_it_fires_each_second(client: Any, spec: dict[str, Any]) -> None:
    parameters = {"text": "[[Index]] [[ScheduledTime.05]]", "note": "[[RunUUID]]"}
    made = create(client, spec, {"cron_schedule": {"cron": "* * * * * *"}}, runtime_config={"parameters": parameters})
    assert (made.status, made.mode) == (recurring_run_pb2.RecurringRun.ENABLED, ENABLE)
    runs = wait_for(lambda: (found := runs_of(client, made)) and len(found) >= 3 and found)[:3]
    delete(client, made)
    seconds = [run.scheduled_at.seconds for run in runs]
    assert seconds == list(range(seconds[0], seconds[0] + 3)) and seconds[0] > made.created_at.seconds
    for index, run in enumerate(runs, 1):
        assert re.fullmatch(rf"every-day-{made.recurring_run_id[:5]}-{index}-\d+", run.display_name)
        given = run.runtime_config.parameters
        assert given["text"].string_value == f"{index} {run.scheduled_at.seconds % 60:02}"
        assert given["note"].string_value == run.run_id and given["number"].number_value == 1
        assert run.recurring_run_id == made.recurring_run_id and run.experiment_id == made.experiment_id
        assert client.wait(run.run_id).state == run_pb2.SUCCEEDED
    with pytest.raises(grpc.RpcError) as caught:
        get(client, made)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_what_was_missed_is_made_up_for_or_not(client: Any, spec: dict[str, Any]) -> None:
    start = past(330)
    trigger = {"periodic_schedule": {"interval_second": "60", "start_time": iso(start), "end_time": iso(start + 250)}}
    every = create(client, spec, trigger)
    latest = create(client, spec, {"cron_schedule": {"cron": "0 * * * * *", "start_time": iso(start)}}, no_catchup=True)
    runs = wait_for(lambda: ended(found := runs_of(client, every), 4) and found)
    assert [run.scheduled_at.seconds for run in runs] == [start + 60 * number for number in range(1, 5)]
    first = wait_for(lambda: runs_of(client, latest))[0]
    assert 0 <= latest.created_at.seconds - first.scheduled_at.seconds < 61
    assert len(runs_of(client, every)) == 4 and get(client, every).status == recurring_run_pb2.RecurringRun.ENABLED
    delete(client, every)
    delete(client, latest)


def test_no_more_at_a_time_than_allowed(client: Any, compile_pipeline: Any, tmp_path: Any) -> None:
    start = past(301)
    go = tmp_path / "go"
    made = create(
        client,
        compile_pipeline(holds, caching=False),
        {"periodic_schedule": {"interval_second": "60", "start_time": iso(start), "end_time": iso(start + 300)}},
        max_concurrency=2,
        runtime_config={"parameters": {"path": str(go)}},
    )
    wait_for(lambda: [run.state for run in runs_of(client, made)] == [run_pb2.RUNNING] * 2)
    assert len(runs_of(client, made)) == 2
    go.touch()
    most = 0

    def done() -> bool:
        nonlocal most
        runs = runs_of(client, made)
        most = max(most, sum(run.state in {run_pb2.PENDING, run_pb2.RUNNING} for run in runs))
        return ended(runs, 5)

    wait_for(done)
    assert most <= 2
    delete(client, made)


def test_disabled_and_enabled(client: Any, spec: dict[str, Any]) -> None:
    start = past(200)
    trigger = {"periodic_schedule": {"interval_second": "60", "start_time": iso(start), "end_time": iso(start + 190)}}
    made = create(client, spec, trigger, mode="DISABLE", description="thrice")
    other = create(client, spec, LATER, display_name="another")
    assert (made.mode, made.status) == (DISABLE, recurring_run_pb2.RecurringRun.DISABLED)
    listed = client.recurring.ListRecurringRuns(
        recurring_run_pb2.ListRecurringRunsRequest(page_size=1, sort_by="created_at desc")
    )
    assert [one.recurring_run_id for one in listed.recurringRuns] == [other.recurring_run_id] and listed.total_size >= 2
    rest = client.recurring.ListRecurringRuns(
        recurring_run_pb2.ListRecurringRunsRequest(
            page_size=1, sort_by="created_at desc", page_token=listed.next_page_token
        )
    )
    assert rest.recurringRuns[0] == made == get(client, made) and made.description == "thrice"
    assert json_format.MessageToDict(made.pipeline_spec) == spec
    assert not runs_of(client, made)  # the service has looked: `other` was made after it
    request = recurring_run_pb2.EnableRecurringRunRequest(recurring_run_id=made.recurring_run_id)
    for _ in range(2):
        client.recurring.EnableRecurringRun(request)
    wait_for(lambda: ended(runs_of(client, made), 3))
    disable = recurring_run_pb2.DisableRecurringRunRequest(recurring_run_id=made.recurring_run_id)
    client.recurring.DisableRecurringRun(disable)
    assert get(client, made).status == recurring_run_pb2.RecurringRun.DISABLED
    assert get(client, made).updated_at.ToNanoseconds() > made.updated_at.ToNanoseconds()
    delete(client, made)
    delete(client, other)
    assert len(runs_of(client, made)) == 3  # they stay


def test_by_version_and_what_happens_when_it_is_gone(client: Any, spec: dict[str, Any]) -> None:
    pipeline = client.pipelines.CreatePipeline(
        pipeline_pb2.CreatePipelineRequest(pipeline=pipeline_pb2.Pipeline(display_name=f"p {time.time()}"))
    )
    version = pipeline_pb2.PipelineVersion(pipeline_id=pipeline.pipeline_id, display_name="one")
    json_format.ParseDict(spec, version.pipeline_spec)
    version = client.pipelines.CreatePipelineVersion(
        pipeline_pb2.CreatePipelineVersionRequest(pipeline_id=pipeline.pipeline_id, pipeline_version=version)
    )
    fixed = {"pipeline_id": pipeline.pipeline_id, "pipeline_version_id": version.pipeline_version_id}
    second = {"cron_schedule": {"cron": "* * * * * *"}}
    made = create(client, None, second, pipeline_version_reference=fixed)
    latest = create(client, None, second, pipeline_version_reference={"pipeline_id": pipeline.pipeline_id})
    assert made.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert not latest.pipeline_version_reference.pipeline_version_id
    for one in (made, latest):
        run = wait_for(lambda one=one: runs_of(client, one))[0]
        assert run.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    client.pipelines.DeletePipelineVersion(
        pipeline_pb2.DeletePipelineVersionRequest(
            pipeline_id=pipeline.pipeline_id, pipeline_version_id=version.pipeline_version_id
        )
    )
    for one in (made, latest):
        broken = wait_for(lambda one=one: (found := get(client, one)).error.code and found)
        assert broken.error.code == grpc.StatusCode.NOT_FOUND.value[0] and "version" in broken.error.message
    other = pipeline_pb2.PipelineVersion(pipeline_id=pipeline.pipeline_id, display_name="two")
    json_format.ParseDict(spec, other.pipeline_spec)
    other = client.pipelines.CreatePipelineVersion(
        pipeline_pb2.CreatePipelineVersionRequest(pipeline_id=pipeline.pipeline_id, pipeline_version=other)
    )
    wait_for(lambda: not get(client, latest).error.code)
    run = runs_of(client, latest)[-1]
    assert run.pipeline_version_reference.pipeline_version_id == other.pipeline_version_id
    assert get(client, made).error.code
    delete(client, made)
    delete(client, latest)


def test_an_archived_experiment_fires_nothing(client: Any, spec: dict[str, Any]) -> None:
    experiment = client.experiments.CreateExperiment(
        experiment_pb2.CreateExperimentRequest(experiment=experiment_pb2.Experiment(display_name=f"e {time.time()}"))
    )
    made = create(client, spec, LATER, experiment_id=experiment.experiment_id)
    of_experiment = recurring_run_pb2.ListRecurringRunsRequest(experiment_id=experiment.experiment_id)
    assert list(client.recurring.ListRecurringRuns(of_experiment).recurringRuns) == [made]
    client.experiments.ArchiveExperiment(
        experiment_pb2.ArchiveExperimentRequest(experiment_id=experiment.experiment_id)
    )
    assert get(client, made).status == recurring_run_pb2.RecurringRun.DISABLED
    request = recurring_run_pb2.EnableRecurringRunRequest(recurring_run_id=made.recurring_run_id)
    with pytest.raises(grpc.RpcError) as caught:
        client.recurring.EnableRecurringRun(request)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(grpc.RpcError) as caught:
        create(client, spec, LATER, experiment_id=experiment.experiment_id)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    client.experiments.UnarchiveExperiment(
        experiment_pb2.UnarchiveExperimentRequest(experiment_id=experiment.experiment_id)
    )
    client.recurring.EnableRecurringRun(request)
    delete(client, made)


@pytest.mark.parametrize(
    ("fields", "trigger", "named"),
    [
        ({"display_name": ""}, LATER, "recurring_run.display_name"),
        ({"max_concurrency": 0}, LATER, "recurring_run.max_concurrency"),
        ({"max_concurrency": 11}, LATER, "recurring_run.max_concurrency"),
        ({}, {}, "recurring_run.trigger"),
        ({}, {"cron_schedule": {"cron": "* * *"}}, "recurring_run.trigger.cron_schedule.cron"),
        ({}, {"cron_schedule": {}}, "recurring_run.trigger.cron_schedule.cron"),
        ({}, {"periodic_schedule": {}}, "recurring_run.trigger.periodic_schedule.interval_second"),
        (
            {},
            {"periodic_schedule": {"interval_second": "-5"}},
            "recurring_run.trigger.periodic_schedule.interval_second",
        ),
        (
            {},
            {
                "cron_schedule": {
                    "cron": "@daily",
                    "start_time": "2024-02-02T00:00:00Z",
                    "end_time": "2024-02-01T00:00:00Z",
                }
            },
            "recurring_run.trigger.cron_schedule.end_time",
        ),
        (
            {},
            {"cron_schedule": {"cron": "@daily", "start_time": "0001-01-01T00:00:00Z"}},
            "recurring_run.trigger.cron_schedule.start_time",
        ),
        ({"namespace": "other"}, LATER, "recurring_run.namespace"),
        ({"runtime_config": {"parameters": {"none": 1}}}, LATER, "runtime_config.parameters['none']"),
        ({"runtime_config": {"parameters": {"number": "[[Index]]"}}}, LATER, "runtime_config.parameters['number']"),
        ({"pipeline_spec": {"root": {}}}, LATER, None),
    ],
)
def test_bad_requests_are_refused(
    client: Any, spec: dict[str, Any], fields: dict[str, Any], trigger: dict[str, Any], named: str | None
) -> None:
    before = client.recurring.ListRecurringRuns(recurring_run_pb2.ListRecurringRunsRequest()).total_size
    if "namespace" in fields:
        default = client.experiments.ListExperiments(experiment_pb2.ListExperimentsRequest()).experiments[0]
        fields = {**fields, "experiment_id": default.experiment_id}
    with pytest.raises(grpc.RpcError) as caught:
        create(client, None if "pipeline_spec" in fields else spec, trigger, **fields)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
    bad = error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(caught.value).details:
        detail.Unpack(bad)
    if named is not None:
        assert [violation.field for violation in bad.field_violations] == [named]
    after = client.recurring.ListRecurringRuns(recurring_run_pb2.ListRecurringRunsRequest()).total_size
    assert after == before


def test_a_stranger_sees_nothing(client: Any, spec: dict[str, Any]) -> None:
    made = create(client, spec, LATER)
    stranger = (("kubeflow-userid", "stranger@example.com"),)
    for verb in ("Get", "Enable", "Disable", "Delete"):
        request = getattr(recurring_run_pb2, f"{verb}RecurringRunRequest")(recurring_run_id=made.recurring_run_id)
        with pytest.raises(grpc.RpcError) as caught:
            getattr(client.recurring, f"{verb}RecurringRun")(request, metadata=stranger)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert get(client, made) == made
    delete(client, made)


def test_each_time_has_one_run_whatever_is_killed(make_service: Any, connect: Any, spec: dict[str, Any]) -> None:
    service = make_service()
    client = connect(service)
    start = past(24 * 60 + 5)
    trigger = {
        "periodic_schedule": {"interval_second": "60", "start_time": iso(start), "end_time": iso(start + 24 * 60)}
    }
    made = create(client, spec, trigger, max_concurrency=10)
    for some in (2, 8, 15):
        wait_for(lambda some=some: len(runs_of(client, made)) >= some)
        service.kill()
        service.start()
        client.connect()
    runs = wait_for(lambda: ended(found := runs_of(client, made), 24) and found, 60)
    assert [run.scheduled_at.seconds for run in runs] == [start + 60 * number for number in range(1, 25)]
    assert "Traceback" not in service.log_path.read_text()


def test_two_replicas_fire_once(
    make_service: Any, connect: Any, spec: dict[str, Any], postgresql_server: Any, tmp_path: Any
) -> None:
    url = postgresql_server.make_database()
    client, other = (connect(make_service(tmp_path / name, DATABASE_URL=url)) for name in ("one", "two"))
    start = past(20 * 60 + 5)
    trigger = {
        "periodic_schedule": {"interval_second": "60", "start_time": iso(start), "end_time": iso(start + 20 * 60)}
    }
    schedules = [create(one, spec, trigger, max_concurrency=10) for one in (client, other, client)]
    for made in schedules:
        runs = wait_for(lambda made=made: ended(found := runs_of(other, made), 20) and found, 60)
        assert [run.scheduled_at.seconds for run in runs] == [start + 60 * number for number in range(1, 21)]
        assert len({run.display_name for run in runs}) == 20
    for one in (client, other):
        assert "Traceback" not in one.service.log_path.read_text()
