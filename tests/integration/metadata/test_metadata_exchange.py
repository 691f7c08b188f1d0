"""Export and import: what goes out comes in again, in another store, once; and OpenLineage's events."""

import json
import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import any_pb2, struct_pb2
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import question_pb2
from support.mesh import RunningMesh

START: dict[str, Any] = {
    "eventType": "START",
    "eventTime": "2024-05-01T12:00:00.123456789Z",
    "producer": "https://github.com/apache/airflow",
    "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
    "run": {"runId": "3f5e83fa-3480-44ff-99c5-ff943904e5e8", "facets": {"nominalTime": {"n": 1, "at": "noon"}}},
    "job": {"namespace": "airflow", "name": "dag.task", "facets": {"sql": {"query": "select 1"}}},
    "inputs": [{"namespace": "s3://bucket", "name": "raw/day.csv", "facets": {"schema": {"fields": [{"name": "a"}]}}}],
    "outputs": [],
}
COMPLETE: dict[str, Any] = {
    **START,
    "eventType": "COMPLETE",
    "eventTime": "2024-05-01T12:05:00Z",
    "run": {"runId": START["run"]["runId"], "facets": {"stats": {"rows": 7}}},
    "outputs": [{"namespace": "file", "name": "/data/clean.csv"}],
}


class Exchange:
    """A service's two routes."""

    def __init__(self, process: ServiceProcess, client: Any) -> None:
        self.url = process.http
        self.client = client

    def export(self, form: str = "jsonl") -> bytes:
        answer = httpx.get(f"{self.url}/metadata/v1/export", params={"format": form}, timeout=60)
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/x-ndjson", answer.text
        return answer.content

    def send(self, body: Any, form: str = "jsonl") -> httpx.Response:
        return httpx.post(f"{self.url}/metadata/v1/import", params={"format": form}, content=body, timeout=60)

    def take(self, body: Any, form: str = "jsonl") -> dict[str, Any]:
        answer = self.send(body, form)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def exchange(tmp_path: Path, connect: Any) -> Iterator[Callable[..., Exchange]]:
    """Starts an empty store."""
    with ExitStack() as stack:

        def start(database_url: str = "") -> Exchange:
            folder = tmp_path / uuid.uuid4().hex
            env = {"DATABASE_URL": database_url} if database_url else {}
            process = stack.enter_context(ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", folder, env))
            client = connect(process)
            stack.callback(client.channel.close)
            return Exchange(process, client)

        yield start


def lines(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


def ndjson(*found: Any) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in found)


def fill(client: Any, share: float = math.inf) -> None:
    """One of everything that a store can hold."""
    struct = struct_pb2.Struct()
    struct.update({"deep": {"list": [1, None, "é"]}, "odd": math.inf})
    packed = any_pb2.Any(type_url="type.googleapis.com/unknown.Message", value=b"\x00\xff")
    data = client.artifact_type("Data", number=mlpb.INT, share=mlpb.DOUBLE)
    client.call("PutArtifactType", artifact_type=mlpb.ArtifactType(name="Data", version="2", external_id="type-2"))
    job_type = mlpb.ExecutionType(name="Job", description="works", base_type=mlpb.ExecutionType.TRAIN)
    job_type.input_type.any.SetInParent()
    job = client.call("PutExecutionType", execution_type=job_type).type_id
    group = client.context_type("Group")
    named = mlpb.Artifact(type_id=data, name="named", uri="s3://bucket/named", state=mlpb.Artifact.LIVE)
    named.properties["number"].int_value = -(2**63)
    named.properties["share"].double_value = share
    for name, value in {
        "struct": mlpb.Value(struct_value=struct),
        "packed": mlpb.Value(proto_value=packed),
        "text": mlpb.Value(string_value='line\nbreak "é" \U0001f600'),
        "no": mlpb.Value(bool_value=False),
        "encoded": mlpb.Value(string_value="not at all"),
    }.items():
        named.custom_properties[name].CopyFrom(value)
    bare = mlpb.Artifact(type_id=data)
    known = mlpb.Artifact(type_id=data, external_id="elsewhere-1", uri="file:///data/known")
    artifacts = client.artifacts(named, bare, known, bare)
    runs = client.executions(
        mlpb.Execution(type_id=job, name="run", last_known_state=mlpb.Execution.COMPLETE),
        mlpb.Execution(type_id=job, last_known_state=mlpb.Execution.FAILED),
    )
    groups = client.contexts(*(mlpb.Context(type_id=group, name=name) for name in ("child", "parent")))
    client.connect(runs[0], artifacts[:2], artifacts[2:3])
    client.connect(runs[1], artifacts[2:3], artifacts[3:])
    event = mlpb.Event(artifact_id=artifacts[3], execution_id=runs[0], type=mlpb.Event.DECLARED_OUTPUT)
    event.path.steps.add(key="model")
    event.path.steps.add(index=3)
    client.call("PutEvents", events=[event])
    client.call("PutParentContexts", parent_contexts=[mlpb.ParentContext(child_id=groups[0], parent_id=groups[1])])
    client.call(
        "PutAttributionsAndAssociations",
        attributions=[mlpb.Attribution(artifact_id=artifacts[1], context_id=groups[0])],
        associations=[mlpb.Association(execution_id=runs[1], context_id=groups[1])],
    )


def without_ids(body: bytes) -> list[str]:
    """The lines with each id replaced by its place among its kind's, and without what a store says of itself."""
    found = lines(body)
    places: dict[tuple[str, str], int] = {}
    for line in found:
        if "id" in line:
            places[line["kind"], line["id"]] = sum(kind == line["kind"] for kind, _ in places)
    refers = {"artifact_id": "artifact", "execution_id": "execution", "context_id": "context"}
    refers |= {"child_id": "context", "parent_id": "context"}
    for line in found:
        kind = line["kind"]
        for field in ("store", "time_since_epoch", "last_update_time_since_epoch"):
            line.pop(field, None)
        if line.get("external_id", "").startswith("import:"):
            del line["external_id"]
        if "id" in line:
            line["id"] = places[kind, line["id"]]
        if "type_id" in line:
            line["type_id"] = places[f"{kind}_type", line["type_id"]]
        for field, of in refers.items():
            if field in line:
                line[field] = places[of, line[field]]
    return [json.dumps(line, sort_keys=True) for line in found]


def test_a_store_goes_into_another_once(exchange: Any, database_url: str) -> None:
    source, target = exchange(), exchange(database_url)
    fill(source.client, 0.1 if database_url.startswith("mysql") else math.inf)  # MariaDB has no infinity
    body = source.export()
    time.sleep(0.01)  # so that times that are not kept would differ
    first = target.take(body)
    counted: dict[str, int] = {}
    for line in lines(body)[1:-1]:
        counted[line["kind"]] = counted.get(line["kind"], 0) + 1
    assert first == {"lines": len(lines(body)), "complete": True, "created": counted, "updated": {}, "unchanged": {}}
    copy = target.export()
    assert without_ids(copy) == without_ids(body)
    before = target.client.everything()
    second = target.take(body)
    assert (second["created"], second["updated"], second["unchanged"]) == ({}, {}, counted)
    assert target.client.everything() == before and lines(target.export())[1:] == lines(copy)[1:]
    # Back to where it came from, and into itself: everything is there.
    before = source.client.everything()
    for again in (copy, body):
        assert source.take(again)["unchanged"] == counted
        assert source.client.everything() == before
    # What is imported is found.
    found = target.client.lineage.SearchNodes(question_pb2.SearchNodesRequest(query="elsewhere"), timeout=30)
    assert [node.uri for node in found.nodes] == ["file:///data/known"]


def test_a_changed_file_brings_up_to_date(exchange: Any) -> None:
    source, target = exchange(), exchange()
    fill(source.client)
    target.take(source.export())
    (node,) = source.client.call("GetArtifactsByURI", uris=["s3://bucket/named"]).artifacts
    node.custom_properties["text"].string_value = "changed"
    source.client.artifacts(node)
    done = target.take(source.export())
    assert (done["created"], done["updated"]) == ({}, {"artifact": 1})
    (copy,) = target.client.call("GetArtifactsByURI", uris=["s3://bucket/named"]).artifacts
    assert copy.custom_properties["text"].string_value == "changed"
    assert copy.create_time_since_epoch == node.create_time_since_epoch


def test_many_pages(exchange: Any) -> None:
    source, target = exchange(), exchange()
    type_id = source.client.artifact_type("Many")
    source.client.artifacts(*(mlpb.Artifact(type_id=type_id, name=f"n{number}") for number in range(2500)))
    body = source.export()
    assert [line["name"] for line in lines(body) if line["kind"] == "artifact"] == [f"n{n}" for n in range(2500)]
    assert target.take(iter([body[at : at + 777] for at in range(0, len(body), 777)]))["created"]["artifact"] == 2500
    with httpx.stream("GET", f"{source.url}/metadata/v1/export") as answer:
        next(answer.iter_raw())  # and gone: nothing must be left open
    assert lines(source.export())[-1]["counts"]["artifact"] == 2500


def bad(*changed: Any) -> bytes:
    header = {"kind": "header", "version": 1, "store": "test"}
    good = {"kind": "artifact_type", "id": "1", "name": "Kept"}
    return ndjson(header, good) + b"".join(one if isinstance(one, bytes) else ndjson(one) for one in changed)


def test_bad_lines(exchange: Any) -> None:
    target = exchange()
    node = {"kind": "artifact", "id": "1", "type_id": "1"}
    before = target.client.everything()
    cases: list[tuple[bytes, str]] = [
        (b"", "body"),
        (ndjson(node), "line 1, kind"),
        (ndjson({"kind": "header", "version": 2, "store": "x"}), "line 1, version"),
        (ndjson({"kind": "header", "version": 1}), "line 1, store"),
        (bad({"kind": "header", "version": 1, "store": "x"}), "line 3, kind"),
        (bad(b"{\n"), "line 3"),
        (bad(b"[1]\n"), "line 3"),
        (bad(b"\xff\n"), "line 3"),
        (bad(b'{"kind": "artifact", "id": NaN}\n'), "line 3"),
        (bad(b"[" * 100_000 + b"\n"), "line 3"),
        (bad({"kind": "Artifact"}), "line 3, kind"),
        (bad({"kind": ["artifact"]}), "line 3, kind"),
        (bad({"kind": "artifact", "colour": 1}), "line 3"),
        (bad({**node, "id": "x"}), "line 3"),
        (bad({**node, "name": "\ud800"}), "line 3"),
        (bad({**node, "name": "x" * 256}), "line 3, name"),
        (bad({"kind": "artifact", "type_id": "1"}), "line 3, id"),
        (bad({**node, "type_id": "2"}), "line 3, type_id"),
        (bad({**node, "properties": {"a": {"int_value": 1}}}), "line 3, properties['a']"),
        (bad({**node, "custom_properties": {"a": {"encoded": "?"}}}), "line 3, custom_properties['a'].encoded"),
        (bad({**node, "custom_properties": {"a": {"encoded": 1}}}), "line 3, custom_properties['a'].encoded"),
        (bad(node, {"kind": "event", "artifact_id": "1", "execution_id": "1"}), "line 4, execution_id"),
        (bad({"kind": "attribution", "artifact_id": "1", "context_id": "1"}), "line 3, context_id"),
        (bad({"kind": "parent_context", "child_id": "1", "parent_id": "1"}), "line 3, child_id"),
        (bad(b'{"kind": "' + b"x" * (1 << 20) + b'"}\n'), "line 3"),
        (bad(b'{"kind": "' + b"x" * (3 << 20)), "line 3"),
    ]
    for body, field in cases:
        answer = target.send(body)
        assert answer.status_code == 400, (body[:200], answer.text)
        (detail,) = answer.json()["details"]
        assert detail["field_violations"][0]["field"] == field, (body[:200], answer.text)
        assert target.client.everything() == before, body[:200]
    assert target.send(b"", "csv").status_code == 400
    assert httpx.get(f"{target.url}/metadata/v1/export", params={"format": "csv"}).status_code == 400


def test_earlier_batches_stay(exchange: Any) -> None:
    target = exchange()
    nodes = [{"kind": "artifact", "id": str(number), "type_id": "1"} for number in range(1, 600)]
    answer = target.send(bad(*nodes, {"kind": "?"}))
    assert answer.status_code == 400 and "lines 1 to 500 are stored" in answer.json()["message"]
    done = target.take(bad(*nodes))
    assert (done["unchanged"]["artifact"], done["created"]["artifact"], done["complete"]) == (498, 101, False)


def test_openlineage_there_and_back(exchange: Any) -> None:
    source, target = exchange(), exchange()
    fill(source.client)
    body = source.export("openlineage")
    events = lines(body)
    assert source.export("openlineage") == body, "run ids are stable"
    assert [(event["eventType"], event["job"]["name"]) for event in events] == [("COMPLETE", "Job"), ("FAIL", "Job")]
    assert next((one["namespace"], one["name"]) for one in events[0]["inputs"]) == ("s3://bucket", "named")
    assert [(one["namespace"], one["name"]) for one in events[1]["inputs"]] == [("file", "/data/known")]
    assert events[1]["run"]["facets"]["mlmesh_execution"]["contexts"] == [{"type": "Group", "name": "parent"}]
    facet = events[0]["inputs"][0]["facets"]["mlmesh_artifact"]
    assert (
        facet["_producer"] and facet["_schemaURL"] and facet["properties"]["struct"]["deep"]["list"] == [1, None, "é"]
    )
    for event in events:
        assert str(uuid.UUID(event["run"]["runId"])) == event["run"]["runId"]
        assert {"eventTime", "producer", "schemaURL"} <= event.keys()
    first = target.take(body, "openlineage")
    assert first["created"]["execution"] == 2 and first["created"]["event"] == 6
    assert lines(target.export("openlineage")) == events
    before = target.client.everything()
    assert target.take(body, "openlineage")["created"] == {}
    assert target.client.everything() == before


def test_events_of_producers(exchange: Any) -> None:
    target = exchange()

    def post(event: Any) -> int:
        content = event if isinstance(event, bytes) else json.dumps(event)
        return httpx.post(f"{target.url}/api/v1/lineage", content=content).status_code

    def run() -> mlpb.Execution:
        (found,) = target.client.call("GetExecutionsByType", type_name="openlineage.Job").executions
        assert isinstance(found, mlpb.Execution)
        return found

    assert post(START) == 201
    assert run().last_known_state == mlpb.Execution.RUNNING and run().name == START["run"]["runId"]
    assert post(COMPLETE) == 201
    done = run()
    assert done.last_known_state == mlpb.Execution.COMPLETE
    assert done.properties["job_name"].string_value == "dag.task"
    assert done.custom_properties["run.stats"].struct_value["rows"] == 7
    assert done.custom_properties["run.nominalTime"].struct_value["at"] == "noon"
    artifacts = target.client.call("GetArtifactsByType", type_name="openlineage.Dataset").artifacts
    assert {node.name: node.uri for node in artifacts} == {
        "s3://bucket/raw/day.csv": "s3://bucket/raw/day.csv",
        "file//data/clean.csv": "file:///data/clean.csv",
    }
    walk = target.client.query(uri="file:///data/clean.csv")
    assert {node.name for node in walk.nodes} == {*(node.name for node in artifacts), done.name}
    before = target.client.everything()
    assert post(START) == 201, "which comes again, late: it changes nothing"
    assert target.take(ndjson(START, COMPLETE), "openlineage")["updated"] == {}
    assert target.client.everything() == before
    assert post({"eventTime": START["eventTime"], "job": START["job"]}) == 201, "a JobEvent: nothing to keep"
    wrong: list[Any] = [
        b"",
        b"{",
        [],
        {},
        {**START, "eventTime": "noon"},
        {**START, "eventType": "STOP"},
        {**START, "run": {"runId": "1"}},
        {**START, "job": {"namespace": "a"}},
        {**START, "inputs": [{"name": "a"}]},
        {**START, "inputs": {}},
        {**START, "run": {"runId": START["run"]["runId"], "facets": {"a": 1}}},
        {**START, "run": {"runId": START["run"]["runId"], "facets": {"a" * 300: {}}}},
    ]
    for event in wrong:
        assert post(event) == 400, event
    assert target.client.everything() == before
    assert (
        httpx.post(f"{target.url}/api/v1/lineage", content=b"", headers={"Content-Encoding": "gzip"}).status_code == 400
    )
    answer = target.send(ndjson(START, {**START, "run": 1}), "openlineage")
    assert answer.status_code == 400 and answer.json()["message"].startswith("line 2, run: ")


def test_through_the_ingress(mesh: RunningMesh) -> None:
    event = {**START, "run": {"runId": str(uuid.uuid4())}, "job": {"namespace": "ingress", "name": "crossing"}}
    assert httpx.post(f"{mesh.ingress}/api/v1/lineage", json=event).status_code == 201
    found = httpx.get(f"{mesh.ingress}/metadata/v1/search", params={"query": "crossing ingress", "kind": "execution"})
    assert [node["name"] for node in found.json()["nodes"]] == [event["run"]["runId"]]
    body = httpx.get(f"{mesh.ingress}/metadata/v1/export", timeout=60).content
    assert lines(body)[-1]["kind"] == "end" and event["run"]["runId"].encode() in body
    # Not what was exported: other tests' runs go on meanwhile, and would be set back.
    done = httpx.post(f"{mesh.ingress}/metadata/v1/import", content=bad(), timeout=60)
    assert done.status_code == 200 and done.json()["lines"] == 2
    assert httpx.post(f"{mesh.ingress}/metadata/v1/import", content=b"{").status_code == 400
