"""Marks: an artifact is bad, and with it all that was made from it, now and later."""

from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import mark_pb2 as m
from mlmesh_protos.mlmesh.metadata.v1 import question_pb2 as q

BAD = "mlmesh_bad_data"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def client(request: Any, tmp_path: Any, connect: Any) -> Any:
    settings = {}
    if request.param != "sqlite":
        settings["DATABASE_URL"] = request.getfixturevalue(f"{request.param}_server").make_database()
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path, settings) as process:
        made = connect(process)
        yield made
        made.channel.close()
        assert "Traceback" not in process.log_path.read_text()


def chain(client: Any) -> SimpleNamespace:
    """raw -> clean -> model, and apart from them: other."""
    data, job = client.artifact_type("Data"), client.execution_type("Job")
    raw, clean, model, other = client.artifacts(
        *(mlpb.Artifact(type_id=data, name=name) for name in ("raw", "clean", "model", "other"))
    )
    prepare, train = client.executions(mlpb.Execution(type_id=job), mlpb.Execution(type_id=job))
    client.connect(prepare, [raw], [clean])
    client.connect(train, [clean], [model])
    return SimpleNamespace(**{k: v for k, v in locals().items() if isinstance(v, int)})


def marked(client: Any) -> dict[str, str]:
    """What every client sees: the property, by name."""
    return {
        node.name: node.custom_properties[BAD].string_value
        for node in client.call("GetArtifacts").artifacts
        if BAD in node.custom_properties
    }


def test_marked_seen_everywhere_and_undone(client: Any) -> None:
    made = chain(client)
    tried = client.lineage.MarkDownstream(
        m.MarkDownstreamRequest(artifact_id=made.clean, reason="wrong labels", validate_only=True)
    )
    assert (tried.artifact_count, tried.execution_count, tried.name) == (2, 1, "") and not marked(client)
    mark = client.lineage.MarkDownstream(m.MarkDownstreamRequest(artifact_id=made.clean, reason="wrong labels"))
    assert (mark.artifact_count, mark.execution_count) == (2, 1) and mark.creator
    assert marked(client) == {"clean": "wrong labels", "model": "wrong labels"}
    options = mlpb.ListOperationOptions(max_result_size=10, filter_query=f"custom_properties.{BAD}.string_value != ''")
    assert {node.name for node in client.call("GetArtifacts", options=options).artifacts} == {"clean", "model"}
    listed = client.lineage.ListArtifacts(q.ListArtifactsRequest(type="Data")).artifacts
    notes = {node.name: [(note.mark, note.reason, note.origin) for note in node.marks] for node in listed}
    assert notes["clean"] == [(mark.name, "wrong labels", True)]
    assert notes["model"] == [(mark.name, "wrong labels", False)] and not notes["raw"] and not notes["other"]
    shown = client.query(artifact_id=made.model)
    assert {(node.kind, node.id) for node in shown.nodes if node.marks} == {
        ("artifact", made.clean),
        ("artifact", made.model),
        ("execution", made.train),
    }
    second = client.lineage.MarkDownstream(m.MarkDownstreamRequest(artifact_id=made.raw, reason="a leak"))
    assert marked(client) == {"raw": "a leak", "clean": "wrong labels; a leak", "model": "wrong labels; a leak"}
    undone = client.lineage.UndoMark(m.UndoMarkRequest(name=mark.name))
    assert undone.HasField("undo_time") and undone == client.lineage.UndoMark(m.UndoMarkRequest(name=mark.name))
    assert marked(client) == dict.fromkeys(("raw", "clean", "model"), "a leak")
    assert [one.name for one in client.lineage.ListMarks(m.ListMarksRequest()).marks] == [second.name]
    client.lineage.UndoMark(m.UndoMarkRequest(name=second.name))
    assert not marked(client)
    pages = []
    token = ""
    for _ in range(2):
        page = client.lineage.ListMarks(m.ListMarksRequest(page_size=1, page_token=token, show_undone=True))
        pages += [one.name for one in page.marks]
        token = page.next_page_token
    assert pages == [second.name, mark.name] and not token


def test_what_is_made_later_is_marked_too(client: Any) -> None:
    made = chain(client)
    client.lineage.MarkDownstream(m.MarkDownstreamRequest(artifact_id=made.raw, reason="bad"))
    data, job = client.artifact_type("Data"), client.execution_type("Job")
    report, scores = client.artifacts(*(mlpb.Artifact(type_id=data, name=name) for name in ("report", "scores")))
    later, last = client.executions(mlpb.Execution(type_id=job), mlpb.Execution(type_id=job))
    client.connect(last, [report], [scores])
    client.connect(later, [other_and_model := made.other, made.model], [])
    assert "report" not in marked(client) and other_and_model == made.other
    client.connect(later, [], [report])  # and with it what had been made from the report
    assert marked(client).keys() == {"raw", "clean", "model", "report", "scores"}


def test_a_client_neither_sets_nor_loses_a_mark(client: Any) -> None:
    made = chain(client)
    client.lineage.MarkDownstream(m.MarkDownstreamRequest(artifact_id=made.model, reason="bad"))
    plain = client.artifact(made.model)
    del plain.custom_properties[BAD]
    plain.custom_properties["note"].string_value = "new"
    client.artifacts(plain)
    found = client.artifact(made.model)
    assert (found.custom_properties[BAD].string_value, found.custom_properties["note"].string_value) == ("bad", "new")
    forged = mlpb.Artifact(type_id=plain.type_id, name="forged")
    forged.custom_properties[BAD].string_value = "slander"
    client.artifacts(forged)
    assert marked(client) == {"model": "bad"}


def test_bad_requests_change_nothing(client: Any, refused: Any) -> None:
    made = chain(client)
    before = client.everything()
    for given, code, fields in (
        ({"artifact_id": made.raw}, grpc.StatusCode.INVALID_ARGUMENT, ("reason",)),
        ({"artifact_id": made.raw, "reason": "x" * 1001}, grpc.StatusCode.INVALID_ARGUMENT, ("reason",)),
        ({"reason": "x"}, grpc.StatusCode.INVALID_ARGUMENT, ("artifact_id",)),
        ({"artifact_id": 10**6, "reason": "x"}, grpc.StatusCode.NOT_FOUND, ()),
    ):
        refusal = refused(lambda given=given: client.lineage.MarkDownstream(m.MarkDownstreamRequest(**given)))
        assert (refusal.code, refusal.fields) == (code, fields)
    for name in ("", "marks/0", "marks/x", "marks/1/2"):
        assert refused(lambda name=name: client.lineage.GetMark(m.GetMarkRequest(name=name))).fields == ("name",)
    assert refused(lambda: client.lineage.UndoMark(m.UndoMarkRequest(name="marks/9"))).code is grpc.StatusCode.NOT_FOUND
    assert client.everything() == before
