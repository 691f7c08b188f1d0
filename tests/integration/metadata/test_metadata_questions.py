"""LineageService's questions: lists, comparisons, DAGs, what has been run before, contexts by who and what."""

from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import grpc
import pytest
from google.protobuf import struct_pb2
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import question_pb2 as q


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def client(request: Any, tmp_path_factory: Any, connect: Any) -> Any:
    data_dir = tmp_path_factory.mktemp("questions")
    settings = {}
    if request.param != "sqlite":
        settings["DATABASE_URL"] = request.getfixturevalue(f"{request.param}_server").make_database()
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", data_dir, settings) as process:
        made = connect(process)
        yield made
        made.channel.close()
        assert "Traceback" not in process.log_path.read_text()


@pytest.fixture(scope="module")
def trained(client: Any) -> SimpleNamespace:
    """Two runs of train(data) -> model, metrics; the second on other data, at another rate."""
    data, model = client.artifact_type("Data"), client.artifact_type("Model", accuracy=mlpb.DOUBLE)
    metrics, train = client.artifact_type("system.Metrics"), client.execution_type("Train")
    run_type = client.context_type("system.PipelineRun")
    found: dict[str, list[int]] = {"data": [], "model": [], "execution": [], "run": []}
    for number, rate in ((1, 0.1), (2, 0.5)):
        raw = mlpb.Artifact(type_id=data, uri=f"s3://b/data/{number}", name=f"data-{number}")
        made = mlpb.Artifact(type_id=model, uri=f"s3://b/model/{number}", name=f'model "{number}" <b>')
        made.properties["accuracy"].double_value = 0.9 + number / 100
        scores = mlpb.Artifact(type_id=metrics, name=f"scores-{number}")
        scores.custom_properties["loss"].double_value = 1 / number
        (data_id, model_id, scores_id) = client.artifacts(raw, made, scores)
        execution = mlpb.Execution(type_id=train, last_known_state=mlpb.Execution.COMPLETE, name=f"train-{number}")
        execution.custom_properties["inputs"].struct_value.update({"rate": rate, "epochs": 3})
        execution.custom_properties["image"].string_value = "trainer:1"
        (execution_id,) = client.executions(execution)
        events = [
            mlpb.Event(artifact_id=data_id, execution_id=execution_id, type=mlpb.Event.INPUT),
            mlpb.Event(artifact_id=model_id, execution_id=execution_id, type=mlpb.Event.OUTPUT),
            mlpb.Event(artifact_id=scores_id, execution_id=execution_id, type=mlpb.Event.OUTPUT),
        ]
        for event, name in zip(events, ("data", "model", "scores"), strict=True):
            event.path.steps.add(key=name)
        client.call("PutEvents", events=events)
        (run,) = client.contexts(mlpb.Context(type_id=run_type, name=f"run-{number}"))
        client.call(
            "PutAttributionsAndAssociations",
            associations=[mlpb.Association(execution_id=execution_id, context_id=run)],
            attributions=[mlpb.Attribution(artifact_id=model_id, context_id=run)],
        )
        for name, node_id in (("data", data_id), ("model", model_id), ("execution", execution_id), ("run", run)):
            found[name].append(node_id)
    return SimpleNamespace(**found)


def test_all_artifacts_of_a_type_newest_first_in_pages(client: Any, trained: Any) -> None:
    first = client.lineage.ListArtifacts(q.ListArtifactsRequest(type="Model", page_size=1))
    assert [node.id for node in first.artifacts] == [trained.model[1]]
    second = client.lineage.ListArtifacts(
        q.ListArtifactsRequest(type="Model", page_size=1, page_token=first.next_page_token)
    )
    assert [node.id for node in second.artifacts] == [trained.model[0]] and not second.next_page_token
    better = client.lineage.ListArtifacts(
        q.ListArtifactsRequest(type="Model", filter="properties.accuracy.double_value > 0.915")
    )
    assert [node.id for node in better.artifacts] == [trained.model[1]]
    assert not client.lineage.ListArtifacts(q.ListArtifactsRequest(type="None such")).artifacts


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "type"),
        ({"type": "Model", "page_size": 101}, "page_size"),
        ({"type": "Model", "page_size": -1}, "page_size"),
        ({"type": "Model", "page_token": "x"}, "page_token"),
        ({"type": "Model", "filter": "no such ="}, "filter"),
    ],
)
def test_a_bad_list_request_names_its_field(client: Any, refused: Any, trained: Any, asked: Any, field: str) -> None:
    refusal = refused(lambda: client.lineage.ListArtifacts(q.ListArtifactsRequest(**asked)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT and refusal.fields == (field,)


def test_comparison(client: Any, trained: Any, refused: Any) -> None:
    left, right = trained.model
    found = client.lineage.CompareArtifacts(q.CompareArtifactsRequest(left_id=left, right_id=right))
    assert {one.name for one in found.properties} == {"uri"}
    metrics = {one.name: one for one in found.metrics}
    assert metrics.keys() == {"accuracy", "scores.loss"}
    assert metrics["accuracy"].delta == pytest.approx(0.01) and metrics["scores.loss"].delta == pytest.approx(-0.5)
    (used,) = found.inputs
    assert (used.name, used.left.string_value, used.right.string_value) == ("data", "s3://b/data/1", "s3://b/data/2")
    assert {one.name for one in found.executions} == {"inputs.rate"}
    assert not found.equal
    same = client.lineage.CompareArtifacts(q.CompareArtifactsRequest(left_id=left, right_id=left))
    assert same.equal and not same.metrics
    refusal = refused(
        lambda: client.lineage.CompareArtifacts(q.CompareArtifactsRequest(left_id=left, right_id=trained.data[0]))
    )
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT and refusal.fields == ("right_id",)
    refusal = refused(lambda: client.lineage.CompareArtifacts(q.CompareArtifactsRequest(left_id=left)))
    assert refusal.code is grpc.StatusCode.NOT_FOUND


def test_the_dag_of_a_run(client: Any, trained: Any, refused: Any) -> None:
    found = client.lineage.GetGraph(q.GetGraphRequest(name="run-1", type="system.PipelineRun"))
    assert found.context.id == trained.run[0]
    assert [(node.kind, node.id) for node in found.nodes][:3] == [
        ("artifact", trained.data[0]),
        ("execution", trained.execution[0]),
        ("artifact", trained.model[0]),
    ]
    assert {(edge.type, edge.path) for edge in found.edges} == {
        ("INPUT", "data"),
        ("OUTPUT", "model"),
        ("OUTPUT", "scores"),
    }
    assert found == client.lineage.GetGraph(q.GetGraphRequest(context_id=trained.run[0]))
    assert refused(lambda: client.lineage.GetGraph(q.GetGraphRequest())).fields == ("context_id",)
    unknown = refused(lambda: client.lineage.GetGraph(q.GetGraphRequest(name="run-1", type="katib.Experiment")))
    assert unknown.code is grpc.StatusCode.NOT_FOUND


def test_pictures_hold_hostile_names(client: Any, trained: Any) -> None:
    svg = client.lineage.RenderGraph(q.RenderGraphRequest(name="run-1", format=q.GRAPH_FORMAT_SVG))
    assert svg.content_type == "image/svg+xml"
    texts = [element.text for element in ElementTree.fromstring(svg.data).iter("{http://www.w3.org/2000/svg}text")]
    assert 'model "1" <b>' in texts and "train-1" in texts
    dot = client.lineage.RenderGraph(q.RenderGraphRequest(name="run-1"))
    assert dot.content_type == "text/vnd.graphviz"
    assert r"model \"1\" <b>\nModel" in dot.data.decode()
    assert f"e{trained.execution[0]} -> a{trained.model[0]}" in dot.data.decode()


def asked(client: Any, inputs: list[q.InputArtifact], /, **properties: Any) -> q.FindExecutionResponse:
    given = struct_pb2.Struct()
    given.update(properties)
    answer: q.FindExecutionResponse = client.lineage.FindExecution(
        q.FindExecutionRequest(type="Train", inputs=inputs, properties=given)
    )
    return answer


def test_has_it_been_run_before(client: Any, trained: Any) -> None:
    by_id = q.InputArtifact(name="data", artifact_id=trained.data[0])
    hit = asked(client, [by_id], image="trainer:1", inputs={"rate": 0.1, "epochs": 3})
    assert hit.hit and hit.execution.id == trained.execution[0] and not hit.reasons
    assert trained.model[0] in {node.id for node in hit.outputs}
    same = asked(client, [q.InputArtifact(name="data", uri="s3://b/data/1")], image="trainer:1")
    assert same.hit and same.execution.id == trained.execution[0]
    assert len(hit.fingerprint) == 64 and hit.fingerprint != same.fingerprint
    again = asked(client, [by_id], inputs={"epochs": 3, "rate": 0.1}, image="trainer:1")
    assert again.fingerprint == hit.fingerprint


def test_a_miss_says_why(client: Any, trained: Any) -> None:
    data = q.InputArtifact(name="data", artifact_id=trained.data[0])
    (reason,) = asked(client, [data], image="trainer:2").reasons
    assert (reason.code, reason.name, reason.wanted, reason.found) == (
        "PROPERTY_DIFFERS",
        "image",
        '"trainer:2"',
        '"trainer:1"',
    )
    (reason,) = asked(client, [data], seed=1).reasons
    assert (reason.code, reason.name) == ("PROPERTY_MISSING", "seed")
    (reason,) = asked(client, [data, q.InputArtifact(name="test", uri="s3://b/none")]).reasons
    assert (reason.code, reason.name) == ("INPUT_MISSING", "test")
    (reason,) = asked(client, [q.InputArtifact(name="data", artifact_id=trained.model[1])]).reasons
    assert reason.code == "INPUT_DIFFERS"
    (reason,) = asked(client, []).reasons
    assert (reason.code, reason.name) == ("INPUT_EXTRA", "data")
    none = client.lineage.FindExecution(q.FindExecutionRequest(type="None such"))
    assert not none.hit and [reason.code for reason in none.reasons] == ["NO_EXECUTION_OF_TYPE"]
    running = client.executions(mlpb.Execution(type_id=client.execution_type("Slow"), last_known_state=2))
    found = client.lineage.FindExecution(q.FindExecutionRequest(type="Slow"))
    assert found.execution.id == running[0] and [reason.code for reason in found.reasons] == ["NOT_COMPLETE"]


def test_contexts_by_who_and_what(client: Any, trained: Any, refused: Any) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    hostile = 'x" OR name LIKE "%'
    given = {"type": "Change", "name": "c1", "owner": "ann@example.com", "commit": commit, "project": hostile}
    first = client.lineage.RecordContext(q.RecordContextRequest(**given, artifact_ids=[trained.model[0]]))
    more = client.lineage.RecordContext(q.RecordContextRequest(type="Change", name="c1", experiment="e"))
    assert (
        more.id == first.id and more.properties["owner"] == "ann@example.com" and more.properties["experiment"] == "e"
    )
    other = client.lineage.RecordContext(q.RecordContextRequest(type="Change", name="c2", owner="bob"))

    def found(**asked: str) -> list[int]:
        return [node.id for node in client.lineage.ListContexts(q.ListContextsRequest(**asked)).contexts]

    assert found(type="Change") == [other.id, first.id]
    assert found(owner="ann@example.com") == found(commit=commit) == found(commit="01234567") == [first.id]
    assert found(project=hostile) == found(experiment="e", type="Change") == [first.id]
    assert found(owner="ann%") == found(owner="ann@example.com", project="other") == []
    members = client.call("GetArtifactsByContext", context_id=first.id).artifacts
    assert [node.id for node in members] == [trained.model[0]]
    assert refused(lambda: client.lineage.RecordContext(q.RecordContextRequest(name="c"))).fields == ("type",)
    nothing = q.RecordContextRequest(type="Change", name="c3", execution_ids=[10**6])
    assert refused(lambda: client.lineage.RecordContext(nothing)).fields == ("execution_ids[0].execution_id",)
    assert found(type="Change") == [other.id, first.id]
