"""Many writers at once, and a service that is killed while they write."""

import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service_pb2

WRITERS = 8
Pair = service_pb2.PutExecutionRequest.ArtifactAndEvent


def at_once(functions: list[Callable[[], Any]]) -> list[Any]:
    """Calls all of them at the same moment; gives what each returned, or its status code."""
    gate = threading.Barrier(len(functions))

    def call(function: Callable[[], Any]) -> Any:
        gate.wait(10)
        try:
            return function()
        except grpc.RpcError as error:
            return error.code()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(call, functions))


@pytest.mark.parametrize("kind", ["artifact", "execution", "context"])
def test_of_writers_of_one_name_exactly_one_wins(client: Any, fresh_name: Any, kind: str) -> None:
    type_id = getattr(client, f"{kind}_type")()
    message = {"artifact": mlpb.Artifact, "execution": mlpb.Execution, "context": mlpb.Context}[kind]
    for _ in range(15):
        name = fresh_name("contested")
        writer = lambda: getattr(client, f"{kind}s")(message(type_id=type_id, name=name))  # noqa: B023, E731
        began = time.monotonic()
        answers = at_once([writer] * WRITERS)
        assert time.monotonic() - began < 5, "writers waited for one another's locks until these ran out"
        won = [answer for answer in answers if isinstance(answer, list)]
        assert len(won) == 1
        assert answers.count(grpc.StatusCode.ALREADY_EXISTS) == WRITERS - 1
        list_name = f"Get{kind.title()}s"
        named = [node for node in getattr(client.call(list_name), f"{kind}s") if node.name == name]
        assert [node.id for node in named] == won[0]


def test_of_writers_of_one_external_id_exactly_one_wins(client: Any, fresh_name: Any) -> None:
    type_id, external_id = client.artifact_type(), fresh_name("external")
    answers = at_once([lambda: client.artifacts(mlpb.Artifact(type_id=type_id, external_id=external_id))] * WRITERS)
    assert answers.count(grpc.StatusCode.ALREADY_EXISTS) == WRITERS - 1
    assert len(client.call("GetArtifactsByExternalIds", external_ids=[external_id]).artifacts) == 1


def test_writers_of_one_type_get_one_type(client: Any, fresh_name: Any) -> None:
    name = fresh_name("type")
    ids = at_once([lambda: client.artifact_type(name, p=mlpb.INT)] * WRITERS)
    assert len(set(ids)) == 1 and isinstance(ids[0], int)


def test_executions_that_share_a_new_context_all_get_it(client: Any, fresh_name: Any) -> None:
    job, group, name = client.execution_type(), client.context_type(), fresh_name("shared")
    answers = at_once(
        [
            lambda: client.call(
                "PutExecution",
                execution=mlpb.Execution(type_id=job),
                contexts=[mlpb.Context(type_id=group, name=name)],
                options={"reuse_context_if_already_exist": True},
            )
        ]
        * WRITERS
    )
    assert len({answer.context_ids[0] for answer in answers}) == 1
    members = client.call("GetExecutionsByContext", context_id=answers[0].context_ids[0]).executions
    assert {node.id for node in members} == {answer.execution_id for answer in answers}
    assert len(members) == WRITERS


def test_of_writers_who_saw_the_same_state_one_wins(client: Any) -> None:
    """Optimistic concurrency: abort_if_latest_updated_time_changed."""
    (artifact_id,) = client.artifacts(mlpb.Artifact(type_id=client.artifact_type(), uri="0"))
    seen = client.artifact(artifact_id)

    def writer(number: int) -> Callable[[], Any]:
        given = mlpb.Artifact()
        given.CopyFrom(seen)
        given.uri = str(number)
        options = {"abort_if_latest_updated_time_changed": True}
        return lambda: client.call("PutArtifacts", artifacts=[given], options=options)

    answers = at_once([writer(number) for number in range(1, WRITERS + 1)])
    assert answers.count(grpc.StatusCode.FAILED_PRECONDITION) == WRITERS - 1
    winner = next(n for n, answer in enumerate(answers, 1) if not isinstance(answer, grpc.StatusCode))
    assert client.artifact(artifact_id).uri == str(winner)


def test_kill_9_while_writing(tmp_path: Path, connect: Any) -> None:
    """Every write that was acknowledged is there after it, and no half of one that was not."""
    process = ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path)
    process.start()
    client = connect(process)
    data, job, group = client.artifact_type("Data"), client.execution_type("Job"), client.context_type("Group")
    acknowledged: dict[str, service_pb2.PutExecutionResponse] = {}
    failures: list[grpc.StatusCode] = []
    written = threading.Semaphore(0)

    def write_until_it_dies(store: Any, writer: str) -> None:
        for number in range(10_000):
            name = f"{writer}-{number}"
            event = mlpb.Event(type=mlpb.Event.OUTPUT)
            pairs = [Pair(artifact=mlpb.Artifact(type_id=data, name=f"{name}-{n}"), event=event) for n in range(3)]
            request = service_pb2.PutExecutionRequest(
                execution=mlpb.Execution(type_id=job, name=name),
                artifact_event_pairs=pairs,
                contexts=[mlpb.Context(type_id=group, name=name)],
            )
            try:
                acknowledged[name] = store.PutExecution(request, timeout=10)
                written.release()
            except grpc.RpcError as error:
                failures.append(error.code())
                return

    for life in range(2):
        writers = [threading.Thread(target=write_until_it_dies, args=(client.store, f"{life}-{n}")) for n in range(4)]
        for writer in writers:
            writer.start()
        for _ in range(30):
            assert written.acquire(timeout=10), failures
        process.kill()
        for writer in writers:
            writer.join(20)
        client.channel.close()
        process.start()
        client = connect(process)

    assert len(failures) == 2 * 4  # each writer of each life was cut off
    executions = {node.name: node.id for node in client.call("GetExecutions").executions}
    artifacts = {node.name: node.id for node in client.call("GetArtifacts").artifacts}
    contexts = {node.name: node.id for node in client.call("GetContexts").contexts}
    for name, response in acknowledged.items():
        assert executions[name] == response.execution_id
        assert [artifacts[f"{name}-{n}"] for n in range(3)] == list(response.artifact_ids)
    for name, execution_id in executions.items():  # acknowledged or not: whole
        made = {artifacts[f"{name}-{n}"] for n in range(3)}
        events = client.call("GetEventsByExecutionIDs", execution_ids=[execution_id]).events
        assert {event.artifact_id for event in events} == made
        context_id = contexts[name]
        assert {n.id for n in client.call("GetArtifactsByContext", context_id=context_id).artifacts} == made
        members = client.call("GetExecutionsByContext", context_id=context_id).executions
        assert [node.id for node in members] == [execution_id]
    assert len(artifacts) == 3 * len(executions) and len(contexts) == len(executions)
    client.channel.close()
    process.stop()


def _database(folder: Path, script: str) -> str:
    path = folder / "other.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()
    return f"sqlite:///{path}"


@pytest.mark.parametrize("version", [9, 11])
def test_a_database_of_another_schema_version_is_left_alone(tmp_path: Path, version: int) -> None:
    script = f"CREATE TABLE MLMDEnv (schema_version INTEGER PRIMARY KEY); INSERT INTO MLMDEnv VALUES ({version});"
    url = _database(tmp_path, script)
    process = ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path / "data", {"DATABASE_URL": url})
    with pytest.raises(RuntimeError) as caught:
        process.start()
    log = str(caught.value)
    assert f"schema version {version}" in log and "10 is needed" in log
    assert "Traceback" not in log, log
    with sqlite3.connect(tmp_path / "other.db") as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert tables == ["MLMDEnv"]
        assert connection.execute("SELECT schema_version FROM MLMDEnv").fetchall() == [(version,)]
    connection.close()


def test_replicas_that_start_at_once_on_an_empty_database(tmp_path: Path, connect: Any) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    replicas = [
        ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path / str(n), {"DATABASE_URL": url}) for n in (1, 2)
    ]
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ServiceProcess.start, replicas))
        one, other = (connect(replica) for replica in replicas)
        (artifact_id,) = one.artifacts(mlpb.Artifact(type_id=one.artifact_type("Data"), name="shared"))
        assert other.artifact(artifact_id).name == "shared"
        base = mlpb.ArtifactType(name="Derived", base_type=mlpb.ArtifactType.MODEL)
        other.call("PutArtifactType", artifact_type=base)
        assert one.call("GetArtifactType", type_name="Derived").artifact_type.base_type == mlpb.ArtifactType.MODEL
    finally:
        for replica in replicas:
            replica.stop()
