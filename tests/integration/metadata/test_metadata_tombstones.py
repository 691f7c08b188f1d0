"""Deletion: content goes, the place in the lineage stays."""

import json
import threading
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import grpc
import httpx
import pytest
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import graph_pb2, lineage_pb2, mark_pb2
from mlmesh_protos.mlmesh.metadata.v1 import question_pb2 as q
from mlmesh_protos.mlmesh.metadata.v1 import tombstone_pb2 as t

DELETED = "mlmesh_deleted"
KINDS = ("Artifact", "Execution", "Context")
SECRET = "s3://bucket/person-4711"


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def client(request: Any, tmp_path_factory: Any, connect: Any) -> Any:
    tmp_path = tmp_path_factory.mktemp(request.param)
    settings = {}
    if request.param != "sqlite":
        settings["DATABASE_URL"] = request.getfixturevalue(f"{request.param}_server").make_database()
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path, settings) as process:
        made = connect(process)
        yield made
        made.channel.close()
        assert "Traceback" not in process.log_path.read_text()


def chain(client: Any) -> SimpleNamespace:
    """raw -> clean -> model, in a run; types and words are this chain's own."""
    data, job, run = client.artifact_type(), client.execution_type(), client.context_type()
    given = [
        mlpb.Artifact(
            type_id=data,
            name=name,
            external_id=f"x{data}-{name}",
            uri=f"{SECRET}/{name}{data}",
            state=mlpb.Artifact.LIVE,
        )
        for name in ("raw", "clean", "model")
    ]
    for one in given:
        one.custom_properties["note"].string_value = f"confidential{data}"
    raw, clean, model = client.artifacts(*given)
    prepare, train = client.executions(
        *(mlpb.Execution(type_id=job, name=name, last_known_state=mlpb.Execution.COMPLETE) for name in ("p", "t"))
    )
    (within,) = client.contexts(mlpb.Context(type_id=run, name="monday"))
    client.connect(prepare, [raw], [clean])
    client.connect(train, [clean], [model])
    client.call(
        "PutAttributionsAndAssociations",
        associations=[mlpb.Association(context_id=within, execution_id=one) for one in (prepare, train)],
    )
    types = [client.call(f"Get{k}TypesByID", type_ids=[i]) for k, i in zip(KINDS, (data, job, run), strict=True)]
    names = [getattr(one, f"{kind.lower()}_types")[0].name for one, kind in zip(types, KINDS, strict=True)]
    ids = {k: v for k, v in locals().items() if isinstance(v, int)}
    return SimpleNamespace(**ids, types=names)


def delete(client: Any, **fields: Any) -> list[t.Tombstone]:
    return list(client.retention.DeleteNodes(t.DeleteNodesRequest(**fields), timeout=30).tombstones)


def tombstones(client: Any) -> list[Any]:
    found = client.retention.ListTombstones(t.ListTombstonesRequest()).tombstones
    return sorted(
        (one.node_kind, one.type, one.node_name, one.reason, one.delete_time.ToMilliseconds()) for one in found
    )


def shown(client: Any, artifact_id: int) -> dict[tuple[str, int], graph_pb2.Node]:
    answer = client.query(artifact_id=artifact_id, direction=lineage_pb2.DIRECTION_BOTH)
    return {(node.kind, node.id): node for node in answer.nodes}


def test_content_goes_and_lineage_stays(client: Any, refused: Any) -> None:
    made = chain(client)
    before = client.query(artifact_id=made.model)
    client.lineage.SearchNodes(q.SearchNodesRequest(query=f"confidential{made.data}"))  # all is indexed
    tried = delete(client, artifact_ids=[made.clean], execution_ids=[made.train], validate_only=True)
    assert [(one.node_kind, one.node_name, one.HasField("delete_time")) for one in tried] == [
        ("artifact", "clean", False),
        ("execution", "t", False),
    ]
    assert client.artifact(made.clean).name == "clean"
    done = delete(
        client, artifact_ids=[made.clean], execution_ids=[made.train], context_ids=[made.within], reason="GDPR 17"
    )
    assert [(one.node_kind, one.node_id, one.type, one.node_name, one.reason) for one in done] == [
        ("artifact", made.clean, made.types[0], "clean", "GDPR 17"),
        ("execution", made.train, made.types[1], "t", "GDPR 17"),
        ("context", made.within, made.types[2], "monday", "GDPR 17"),
    ]
    assert all(one.deleter and one.HasField("delete_time") for one in done)
    assert delete(client, artifact_ids=[made.clean], reason="again") == done[:1]  # twice is once

    left = client.artifact(made.clean)
    assert (left.name, left.uri, left.external_id, left.state) == ("", "", "", mlpb.Artifact.DELETED)
    assert list(left.custom_properties) == [DELETED] and not left.properties
    assert left.last_update_time_since_epoch > left.create_time_since_epoch - 1
    after = client.query(artifact_id=made.model)
    assert list(after.edges) == list(before.edges)
    nodes = shown(client, made.model)
    assert nodes["artifact", made.clean].tombstone == done[0] and nodes["artifact", made.clean].name == "clean"
    assert nodes["execution", made.train].tombstone == done[1]
    assert nodes["context", made.within].name == "monday" and not nodes["artifact", made.raw].HasField("tombstone")

    listed = client.lineage.ListArtifacts(q.ListArtifactsRequest(type=made.types[0])).artifacts
    assert [node.name for node in listed] == ["model", "raw"]
    every = client.lineage.ListArtifacts(q.ListArtifactsRequest(type=made.types[0], show_deleted=True)).artifacts
    assert [(node.name, node.HasField("tombstone")) for node in every] == [
        ("model", False),
        ("clean", True),
        ("raw", False),
    ]
    query = f"custom_properties.{DELETED}.string_value != '' AND type_id = {made.data}"
    options = mlpb.ListOperationOptions(max_result_size=9, filter_query=query)
    assert [node.id for node in client.call("GetArtifacts", options=options).artifacts] == [made.clean]
    for word in (f"confidential{made.data}", "clean"):
        found = client.lineage.SearchNodes(q.SearchNodesRequest(query=word)).nodes
        assert made.clean not in {node.id for node in found if node.kind == "artifact"}
    assert not client.lineage.ListContexts(q.ListContextsRequest(type=made.types[2])).contexts
    tombstones = client.retention.ListTombstones(t.ListTombstonesRequest(page_size=2))
    rest = client.retention.ListTombstones(t.ListTombstonesRequest(page_size=2, page_token=tombstones.next_page_token))
    assert [*tombstones.tombstones, *rest.tombstones][:3] == done[::-1]
    assert refused(lambda: client.retention.ListTombstones(t.ListTombstonesRequest(page_token="no"))).fields == (
        "page_token",
    )


def test_the_names_are_free_and_the_ids_are_not(client: Any, refused: Any) -> None:
    made = chain(client)
    old, old_run = client.artifact(made.clean), client.call("GetContextsByID", context_ids=[made.within]).contexts[0]
    delete(client, artifact_ids=[made.clean], context_ids=[made.within])
    again = mlpb.Artifact(type_id=old.type_id, name="clean", external_id=old.external_id)
    again.custom_properties[DELETED].string_value = "forged"
    (new,) = client.artifacts(again)
    assert new != made.clean and not client.artifact(new).custom_properties
    assert client.contexts(mlpb.Context(type_id=old_run.type_id, name="monday")) != [made.within]
    for given in (old, mlpb.Artifact(id=old.id, type_id=old.type_id, uri="x")):
        refusal = refused(lambda given=given: client.artifacts(given))
        assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION and str(made.clean) in refusal.message
    tombstone = client.artifact(made.clean)
    assert client.artifacts(tombstone) == [made.clean]  # nothing is to be changed
    client.connect(made.prepare, [made.clean], [])  # lineage that comes late is not lost
    assert client.artifact(made.clean) == tombstone


def test_a_mark_stays_on_a_tombstone(client: Any) -> None:
    made = chain(client)
    mark = client.lineage.MarkDownstream(mark_pb2.MarkDownstreamRequest(artifact_id=made.raw, reason="wrong labels"))
    delete(client, artifact_ids=[made.clean])
    assert client.artifact(made.clean).custom_properties["mlmesh_bad_data"].string_value == "wrong labels"
    client.lineage.UndoMark(mark_pb2.UndoMarkRequest(name=mark.name))
    assert list(client.artifact(made.clean).custom_properties) == [DELETED]


def test_what_is_deleted_is_no_hit(client: Any) -> None:
    made = chain(client)

    def find() -> q.FindExecutionResponse:
        wanted = [q.InputArtifact(artifact_id=made.raw)]
        answer: q.FindExecutionResponse = client.lineage.FindExecution(
            q.FindExecutionRequest(type=made.types[1], inputs=wanted)
        )
        return answer

    assert find().hit
    delete(client, artifact_ids=[made.clean])
    assert [reason.code for reason in find().reasons] == ["OUTPUT_DELETED"]
    delete(client, execution_ids=[made.prepare])
    assert not find().hit and find().execution.id != made.prepare


def test_drawn_as_what_it_is(client: Any) -> None:
    made = chain(client)
    delete(client, artifact_ids=[made.clean])
    request = q.RenderGraphRequest(context_id=made.within, format=q.GRAPH_FORMAT_DOT)
    lines = client.lineage.RenderGraph(request).data.decode().splitlines()
    drawn = next(line for line in lines if line.lstrip().startswith(f"a{made.clean} ["))
    assert "dashed" in drawn and "clean (deleted)" in drawn
    request.format = q.GRAPH_FORMAT_SVG
    text = "".join(ElementTree.fromstring(client.lineage.RenderGraph(request).data).itertext())
    assert "clean (deleted)" in text


def test_exported_and_imported(client: Any, tmp_path: Any, connect: Any) -> None:
    made = chain(client)
    known = tombstones(client)
    delete(client, artifact_ids=[made.clean], context_ids=[made.within], execution_ids=[made.train], reason="old")
    out = httpx.get(f"{client.process.http}/metadata/v1/export", params={"format": "jsonl"}).content
    assert f"{SECRET}/clean{made.data}".encode() not in out and out.count(b'"kind":"tombstone"') == len(known) + 3
    own = httpx.post(f"{client.process.http}/metadata/v1/import", params={"format": "jsonl"}, content=out).json()
    assert not own["created"] and not own["updated"], own
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path / "other") as process:
        other = connect(process)
        for created in (True, False):
            done = httpx.post(f"{process.http}/metadata/v1/import", params={"format": "jsonl"}, content=out).json()
            assert bool(done["created"]) is created and not done["updated"], done
        assert tombstones(other) == tombstones(client)
        line = json.dumps({"kind": "tombstone", "node_kind": "artifact", "node_id": "99"}).encode()
        head = out.splitlines()[0]
        bad = httpx.post(
            f"{process.http}/metadata/v1/import", params={"format": "jsonl"}, content=head + b"\n" + line + b"\n"
        )
        assert bad.status_code == 400 and "node_id" in bad.text
        other.channel.close()
    events = httpx.get(f"{client.process.http}/metadata/v1/export", params={"format": "openlineage"})
    assert len(events.content.splitlines()) == len(client.call("GetExecutions").executions)


def test_bad_requests_change_nothing(client: Any, refused: Any) -> None:
    made = chain(client)
    before = client.everything()
    for given, code, fields in (
        ({}, grpc.StatusCode.INVALID_ARGUMENT, ("artifact_ids",)),
        ({"artifact_ids": range(1, 1002)}, grpc.StatusCode.INVALID_ARGUMENT, ("artifact_ids",)),
        ({"artifact_ids": [made.raw], "reason": "x" * 1001}, grpc.StatusCode.INVALID_ARGUMENT, ("reason",)),
        ({"artifact_ids": [made.raw, 10**6]}, grpc.StatusCode.NOT_FOUND, ()),
        ({"artifact_ids": [made.raw], "execution_ids": [10**6]}, grpc.StatusCode.NOT_FOUND, ()),
        ({"artifact_ids": [-1]}, grpc.StatusCode.NOT_FOUND, ()),
    ):
        refusal = refused(lambda given=given: delete(client, **given))
        assert (refusal.code, refusal.fields) == (code, fields), given
    assert client.everything() == before


def test_puts_and_deletions_at_once(client: Any) -> None:
    """Whoever comes first: a tombstone holds nothing of what was put."""
    made = chain(client)
    kind = client.artifact(made.raw).type_id
    ids = client.artifacts(*(mlpb.Artifact(type_id=kind, uri=f"{SECRET}/{number}") for number in range(60)))
    refusals: list[grpc.StatusCode] = []

    def put() -> None:
        for number in ids:
            given = mlpb.Artifact(id=number, type_id=kind, uri=SECRET)
            given.custom_properties["note"].string_value = "confidential"
            try:
                client.artifacts(given)
            except grpc.RpcError as error:
                refusals.append(error.code())

    putters = [threading.Thread(target=put) for _ in range(3)]
    for one in putters:
        one.start()
    for number in ids:
        delete(client, artifact_ids=[number])
    for one in putters:
        one.join()
    assert set(refusals) <= {grpc.StatusCode.FAILED_PRECONDITION}
    for left in client.call("GetArtifactsByID", artifact_ids=ids).artifacts:
        assert (left.uri, left.state, list(left.custom_properties)) == ("", mlpb.Artifact.DELETED, [DELETED]), left
