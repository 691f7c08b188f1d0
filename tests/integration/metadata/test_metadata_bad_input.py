"""Bad input at every door: the field is named, and nothing is stored."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from mlmesh_kit.paging import encode_page_token
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service_pb2

INVALID, TAKEN, ABSENT = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.NOT_FOUND,
)
LONG = "x" * 256
Pair = service_pb2.PutExecutionRequest.ArtifactAndEvent
Edge = service_pb2.PutLineageSubgraphRequest.EventEdge


@pytest.fixture(scope="module")
def at(client: Any) -> SimpleNamespace:
    """A store with one of each, whose ids the requests below use."""
    data = client.artifact_type("Data", number=mlpb.INT, text=mlpb.STRING, tree=mlpb.STRUCT)
    job, group = client.execution_type("Job"), client.context_type("Group")
    (artifact,) = client.artifacts(mlpb.Artifact(type_id=data, name="a"))
    (execution,) = client.executions(mlpb.Execution(type_id=job, name="e"))
    (context,) = client.contexts(mlpb.Context(type_id=group, name="c"))
    return SimpleNamespace(data=data, job=job, group=group, artifact=artifact, execution=execution, context=context)


def artifact(at: SimpleNamespace, **fields: Any) -> mlpb.Artifact:
    return mlpb.Artifact(type_id=at.data, **fields)


def good(at: SimpleNamespace) -> mlpb.Artifact:
    """Comes before a bad one; must not be stored either."""
    return artifact(at, name="never stored")


def artifacts(make: Callable[[SimpleNamespace], mlpb.Artifact]) -> Callable[[SimpleNamespace], tuple[str, dict]]:
    return lambda at: ("PutArtifacts", {"artifacts": [good(at), make(at)]})


def typed(**fields: Any) -> Callable[[SimpleNamespace], tuple[str, dict]]:
    before = mlpb.ArtifactType(name="never stored")
    return lambda at: ("PutTypes", {"artifact_types": [before, mlpb.ArtifactType(**fields)]})


def event(at: SimpleNamespace, **fields: Any) -> mlpb.Event:
    return mlpb.Event(**{"artifact_id": at.artifact, "execution_id": at.execution, "type": mlpb.Event.INPUT, **fields})


def events(**fields: Any) -> Callable[[SimpleNamespace], tuple[str, dict]]:
    return lambda at: ("PutEvents", {"events": [event(at, type=mlpb.Event.OUTPUT), event(at, **fields)]})


def publication(**fields: Callable[[SimpleNamespace], Any]) -> Callable[[SimpleNamespace], tuple[str, dict]]:
    def make(at: SimpleNamespace) -> tuple[str, dict]:
        execution = mlpb.Execution(type_id=at.job, name="never stored")
        return "PutExecution", {"execution": execution, **{key: value(at) for key, value in fields.items()}}

    return make


def subgraph(**fields: Callable[[SimpleNamespace], Any]) -> Callable[[SimpleNamespace], tuple[str, dict]]:
    def make(at: SimpleNamespace) -> tuple[str, dict]:
        executions = [mlpb.Execution(type_id=at.job, name="never stored")]
        given = {"executions": executions, "artifacts": [good(at)]}
        return "PutLineageSubgraph", {**given, **{key: value(at) for key, value in fields.items()}}

    return make


def number(value: float) -> mlpb.Value:
    return mlpb.Value(double_value=value)


NESTED = struct_pb2.Struct(fields={"a": struct_pb2.Value(string_value="b")})
IN = mlpb.Event.INPUT

BAD: dict[str, tuple[Callable[[SimpleNamespace], tuple[str, dict]], grpc.StatusCode, str]] = {
    # Names
    "type: no name": (typed(), INVALID, "artifact_types[1].name"),
    "type: name too long": (typed(name=LONG), INVALID, "artifact_types[1].name"),
    "type: version too long": (typed(name="T", version=LONG), INVALID, "artifact_types[1].version"),
    "type: external id too long": (typed(name="T", external_id=LONG), INVALID, "artifact_types[1].external_id"),
    "type: property name too long": (typed(name="T", properties={LONG: 1}), INVALID, "artifact_types[1].properties"),
    "type: unknown kind of property": (
        typed(name="T", properties={"p": mlpb.UNKNOWN}),
        INVALID,
        "artifact_types[1].properties['p']",
    ),
    "artifact: name too long": (artifacts(lambda at: artifact(at, name=LONG)), INVALID, "artifacts[1].name"),
    "artifact: external id too long": (
        artifacts(lambda at: artifact(at, external_id=LONG)),
        INVALID,
        "artifacts[1].external_id",
    ),
    "artifact: custom property's name too long": (
        artifacts(lambda at: artifact(at, custom_properties={LONG: number(1)})),
        INVALID,
        f"artifacts[1].custom_properties['{LONG}']",
    ),
    # Ids and types
    "artifact: no type": (artifacts(lambda at: mlpb.Artifact(uri="u")), INVALID, "artifacts[1].type_id"),
    "artifact: unknown type": (artifacts(lambda at: mlpb.Artifact(type_id=10**9)), ABSENT, ""),
    "artifact: an execution's type": (artifacts(lambda at: mlpb.Artifact(type_id=at.job)), ABSENT, ""),
    "artifact: unknown id": (artifacts(lambda at: artifact(at, id=10**9)), INVALID, "artifacts[1].id"),
    "artifact: negative id": (artifacts(lambda at: artifact(at, id=-1)), INVALID, "artifacts[1].id"),
    "artifact: another type than before": (
        artifacts(lambda at: mlpb.Artifact(id=at.artifact, type_id=at.data + 1)),
        INVALID,
        "artifacts[1].type_id",
    ),
    "artifact: name taken": (artifacts(lambda at: artifact(at, name="a")), TAKEN, ""),
    "context: no name": (
        lambda at: ("PutContexts", {"contexts": [mlpb.Context(type_id=at.group)]}),
        INVALID,
        "contexts[0].name",
    ),
    "execution: no type": (
        lambda at: ("PutExecutions", {"executions": [mlpb.Execution(name="x")]}),
        INVALID,
        "executions[0].type_id",
    ),
    # Properties
    "property: NaN": (
        artifacts(lambda at: artifact(at, custom_properties={"p": number(math.nan)})),
        INVALID,
        "artifacts[1].custom_properties['p']",
    ),
    "property: text that looks like a struct": (
        artifacts(lambda at: artifact(at, properties={"text": mlpb.Value(string_value="mlmd-struct::")})),
        INVALID,
        "artifacts[1].properties['text']",
    ),
    "property: not declared": (
        artifacts(lambda at: artifact(at, properties={"other": number(1)})),
        INVALID,
        "artifacts[1].properties['other']",
    ),
    "property: a double for an int": (
        artifacts(lambda at: artifact(at, properties={"number": number(1)})),
        INVALID,
        "artifacts[1].properties['number']",
    ),
    "property: a struct for a text": (
        artifacts(lambda at: artifact(at, properties={"text": mlpb.Value(struct_value=NESTED)})),
        INVALID,
        "artifacts[1].properties['text']",
    ),
    "property: a text for a struct": (
        artifacts(lambda at: artifact(at, properties={"tree": mlpb.Value(string_value="{}")})),
        INVALID,
        "artifacts[1].properties['tree']",
    ),
    "property: no value": (
        artifacts(lambda at: artifact(at, properties={"number": mlpb.Value()})),
        INVALID,
        "artifacts[1].properties['number']",
    ),
    "custom property: no value": (
        artifacts(lambda at: artifact(at, custom_properties={"p": mlpb.Value()})),
        INVALID,
        "artifacts[1].custom_properties['p']",
    ),
    # Links
    "event: no artifact": (
        lambda at: ("PutEvents", {"events": [mlpb.Event(execution_id=at.execution, type=IN)]}),
        INVALID,
        "events[0].artifact_id",
    ),
    "event: no execution": (
        lambda at: ("PutEvents", {"events": [mlpb.Event(artifact_id=at.artifact, type=IN)]}),
        INVALID,
        "events[0].execution_id",
    ),
    "event: no type": (events(type=mlpb.Event.UNKNOWN), INVALID, "events[1].type"),
    "event: unknown artifact": (events(artifact_id=10**9), INVALID, "events[1].artifact_id"),
    "event: unknown execution": (events(execution_id=10**9), INVALID, "events[1].execution_id"),
    "event: an empty step in its path": (
        events(path={"steps": [{"key": "k"}, {}]}),
        INVALID,
        "events[1].path.steps[1]",
    ),
    "event: twice": (events(type=mlpb.Event.OUTPUT), TAKEN, ""),
    "attribution: unknown artifact": (
        lambda at: (
            "PutAttributionsAndAssociations",
            {
                "attributions": [
                    mlpb.Attribution(artifact_id=at.artifact, context_id=at.context),
                    mlpb.Attribution(artifact_id=10**9, context_id=at.context),
                ]
            },
        ),
        INVALID,
        "attributions[1].artifact_id",
    ),
    "association: unknown context": (
        lambda at: (
            "PutAttributionsAndAssociations",
            {
                "attributions": [mlpb.Attribution(artifact_id=at.artifact, context_id=at.context)],
                "associations": [mlpb.Association(execution_id=at.execution)],
            },
        ),
        INVALID,
        "associations[0].context_id",
    ),
    "parent: missing": (
        lambda at: ("PutParentContexts", {"parent_contexts": [mlpb.ParentContext(child_id=at.context)]}),
        INVALID,
        "parent_contexts[0]",
    ),
    "parent: itself": (
        lambda at: (
            "PutParentContexts",
            {"parent_contexts": [mlpb.ParentContext(child_id=at.context, parent_id=at.context)]},
        ),
        INVALID,
        "parent_contexts[0]",
    ),
    # Several at once
    "publication: bad artifact": (
        publication(artifact_event_pairs=lambda at: [Pair(artifact=good(at)), Pair(artifact=artifact(at, name=LONG))]),
        INVALID,
        "artifact_event_pairs[1].artifact.name",
    ),
    "publication: event without a type": (
        publication(artifact_event_pairs=lambda at: [Pair(artifact=good(at), event=mlpb.Event())]),
        INVALID,
        "artifact_event_pairs[0].event.type",
    ),
    "publication: event of another artifact": (
        publication(artifact_event_pairs=lambda at: [Pair(artifact=good(at), event=event(at))]),
        INVALID,
        "artifact_event_pairs[0].event.execution_id",
    ),
    "publication: bad context": (
        publication(
            artifact_event_pairs=lambda at: [Pair(artifact=good(at), event=mlpb.Event(type=IN))],
            contexts=lambda at: [mlpb.Context(type_id=at.group, name="never stored"), mlpb.Context(name="x")],
        ),
        INVALID,
        "contexts[1].type_id",
    ),
    "subgraph: an index past the end": (
        subgraph(event_edges=lambda at: [Edge(execution_index=0, artifact_index=1, event=mlpb.Event(type=IN))]),
        grpc.StatusCode.OUT_OF_RANGE,
        "",
    ),
    "subgraph: a negative index": (
        subgraph(event_edges=lambda at: [Edge(execution_index=-1, artifact_index=0, event=mlpb.Event(type=IN))]),
        grpc.StatusCode.OUT_OF_RANGE,
        "",
    ),
    "subgraph: an edge without an end": (
        subgraph(event_edges=lambda at: [Edge(execution_index=0, event=mlpb.Event(type=IN))]),
        INVALID,
        "event_edges[0]",
    ),
    "subgraph: an edge with two ends": (
        subgraph(
            event_edges=lambda at: [
                Edge(execution_index=0, artifact_index=0, event=mlpb.Event(type=IN, artifact_id=at.artifact))
            ]
        ),
        INVALID,
        "event_edges[0].event.artifact_id",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_stored_is_refused_whole(client: Any, at: SimpleNamespace, refused: Any, case: str) -> None:
    make, code, field = BAD[case]
    method, fields = make(at)
    before = client.everything()
    refusal = refused(lambda: client.call(method, **fields))
    assert refusal.code is code
    assert refusal.fields == ((field,) if code is INVALID else ())
    assert refusal.message
    assert client.everything() == before


def test_the_longest_that_is_allowed_is_stored(client: Any, at: SimpleNamespace) -> None:
    name = "é" * 255  # characters, not bytes
    wide = artifact(at, name=name, external_id=name, uri="u" * 100_000, custom_properties={name: number(math.inf)})
    (artifact_id,) = client.artifacts(wide)
    wide.id, wide.type = artifact_id, "Data"
    found = client.artifact(artifact_id)
    for field in ("create_time_since_epoch", "last_update_time_since_epoch"):
        found.ClearField(field)
    assert found == wide


MANY = {
    "PutArtifacts": "artifacts",
    "PutEvents": "events",
    "PutTypes": "context_types",
    "PutLineageSubgraph": "event_edges",
    "PutExecution": "artifact_event_pairs",
    "PutParentContexts": "parent_contexts",
    "PutAttributionsAndAssociations": "associations",
}


@pytest.mark.parametrize("method", MANY)
def test_more_than_10000_items_are_refused_before_any_is_looked_at(client: Any, refused: Any, method: str) -> None:
    request = getattr(service_pb2, f"{method}Request")()
    items = getattr(request, MANY[method])
    for _ in range(10_001):
        items.add()
    refusal = refused(lambda: getattr(client.store, method)(request, timeout=30))
    assert (refusal.code, refusal.fields) == (INVALID, (MANY[method],))
    assert "10001" in refusal.message and "10000" in refusal.message


def test_more_than_10000_ids_are_refused_and_10000_are_not(client: Any, at: SimpleNamespace, refused: Any) -> None:
    ids = [at.artifact] * 10_000
    assert len(client.call("GetArtifactsByID", artifact_ids=ids).artifacts) == 1
    assert len(client.call("GetArtifactsByID", artifact_ids=range(1, 10_001)).artifacts) >= 1
    refusal = refused(lambda: client.call("GetArtifactsByID", artifact_ids=[*ids, 1]))
    assert refusal.fields == ("artifact_ids",)
    refusal = refused(lambda: client.call("GetArtifactsByURI", uris=["u"] * 10_001))
    assert refusal.fields == ("uris",)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_result_size": 0}, "options.max_result_size"),
        ({"max_result_size": -1}, "options.max_result_size"),
        ({"max_result_size": 5, "next_page_token": "not a token"}, "options.next_page_token"),
        ({"max_result_size": 5, "next_page_token": "x" * 5000}, "options.next_page_token"),
    ],
)
def test_bad_list_options(client: Any, refused: Any, options: dict[str, Any], field: str) -> None:
    refusal = refused(lambda: client.call("GetArtifacts", options=options))
    assert (refusal.code, refusal.fields) == (INVALID, (field,))


@pytest.mark.parametrize(
    "position", ["text", [1], [1, 2, 3], {"a": 1}, 5, True, [[1], [2]], [1.5, 2], ["1", "2"], [10**30, 1], [None, None]]
)
def test_a_token_that_a_client_made_up(client: Any, at: SimpleNamespace, refused: Any, position: Any) -> None:
    """A token is no secret: whoever reads the source can make one for the right list with anything in it."""

    def read(content: Any) -> Any:
        token = encode_page_token(content, ["artifact", "id", True, None, None, ""])
        by_id = {"field": mlpb.ListOperationOptions.OrderByField.ID, "is_asc": True}
        asked = {"max_result_size": 5, "next_page_token": token, "order_by_field": by_id}
        return client.call("GetArtifacts", options=asked)

    assert read([0, 0]).artifacts  # it is the right list
    refusal = refused(lambda: read(position))
    assert (refusal.code, refusal.fields) == (INVALID, ("options.next_page_token",))


@pytest.mark.parametrize("method", ["GetArtifactsByExternalIds", "GetContextTypesByExternalIds"])
def test_an_empty_external_id_is_nobody_s(client: Any, refused: Any, method: str) -> None:
    refusal = refused(lambda: client.call(method, external_ids=["", "x"]))
    assert (refusal.code, refusal.fields) == (INVALID, ("external_ids",))


@pytest.mark.parametrize(
    ("question", "field"),
    [
        ({}, "artifact_id"),
        ({"type": "Data"}, "artifact_id"),
        ({"artifact_id": 1, "direction": 99}, "direction"),
        ({"artifact_id": 1, "direction": -1}, "direction"),
        ({"artifact_id": 1, "max_depth": -1}, "max_depth"),
        ({"artifact_id": 1, "max_depth": 10_001}, "max_depth"),
    ],
)
def test_bad_questions_about_lineage(client: Any, refused: Any, question: dict[str, Any], field: str) -> None:
    refusal = refused(lambda: client.query(**question))
    assert (refusal.code, refusal.fields) == (INVALID, (field,))


@pytest.mark.parametrize(
    "question",
    [
        {"artifact_id": 10**9},
        {"artifact_id": -1},
        {"uri": "file:///nothing"},
        {"name": "nobody"},
        {"name": "a", "type": "x"},
    ],
)
def test_lineage_of_an_unknown_artifact(client: Any, at: SimpleNamespace, refused: Any, question: Any) -> None:
    assert refused(lambda: client.query(**question)).code is ABSENT
