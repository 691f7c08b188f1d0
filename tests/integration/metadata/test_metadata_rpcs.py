"""Every RPC of ML Metadata's store answers, or says that it is not served."""

from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service_pb2

METHODS = [method.name for method in service_pb2.DESCRIPTOR.services_by_name["MetadataStoreService"].methods]
GRAPHS = {"GetLineageGraph", "GetLineageSubgraph"}
"""Their answer is a graph; the second is compared with MLMD's in tests/conformance."""


@pytest.fixture(scope="module")
def graph(client: Any) -> SimpleNamespace:
    """One of everything."""
    data, job, group = client.artifact_type("Data"), client.execution_type("Job"), client.context_type("Group")
    (artifact,) = client.artifacts(mlpb.Artifact(type_id=data, name="a", uri="file:///a", external_id="xa"))
    (execution,) = client.executions(mlpb.Execution(type_id=job, name="e", external_id="xe"))
    context, parent = client.contexts(
        mlpb.Context(type_id=group, name="c", external_id="xc"), mlpb.Context(type_id=group, name="p")
    )
    client.connect(execution, [artifact], [])
    client.call(
        "PutAttributionsAndAssociations",
        attributions=[mlpb.Attribution(artifact_id=artifact, context_id=context)],
        associations=[mlpb.Association(execution_id=execution, context_id=context)],
    )
    client.call("PutParentContexts", parent_contexts=[mlpb.ParentContext(child_id=context, parent_id=parent)])
    types = {"artifact_type": "Data", "execution_type": "Job", "context_type": "Group"}
    for kind, name in types.items():
        made = getattr(client.call(f"Get{kind.title().replace('_', '')}", type_name=name), kind)
        made.external_id = f"x{name}"
        client.call(f"Put{kind.title().replace('_', '')}", **{kind: made})
    return SimpleNamespace(
        data=data, job=job, group=group, artifact=artifact, execution=execution, context=context, parent=parent
    )


def reading(graph: SimpleNamespace) -> dict[str, tuple[dict[str, Any], list[int]]]:
    """RPC → its request, and the ids that it must answer with."""
    g = graph
    found: dict[str, tuple[dict[str, Any], list[int]]] = {
        "GetArtifactsByURI": ({"uris": ["file:///a"]}, [g.artifact]),
        "GetContextsByArtifact": ({"artifact_id": g.artifact}, [g.context]),
        "GetContextsByExecution": ({"execution_id": g.execution}, [g.context]),
        "GetArtifactsByContext": ({"context_id": g.context}, [g.artifact]),
        "GetExecutionsByContext": ({"context_id": g.context}, [g.execution]),
        "GetParentContextsByContext": ({"context_id": g.context}, [g.parent]),
        "GetChildrenContextsByContext": ({"context_id": g.parent}, [g.context]),
        "GetContexts": ({}, [g.context, g.parent]),
        "GetContextsByType": ({"type_name": "Group"}, [g.context, g.parent]),
    }
    for kind, name, type_id, node_id in (
        ("Artifact", "Data", g.data, g.artifact),
        ("Execution", "Job", g.job, g.execution),
        ("Context", "Group", g.group, g.context),
    ):
        lower, letter = kind.lower(), kind[0].lower()
        by_name = {"type_name": name, f"{lower}_name": letter}
        found.setdefault(f"Get{kind}s", ({}, [node_id]))
        found.setdefault(f"Get{kind}sByType", ({"type_name": name}, [node_id]))
        found[f"Get{kind}sByID"] = ({f"{lower}_ids": [node_id]}, [node_id])
        found[f"Get{kind}sByExternalIds"] = ({"external_ids": [f"x{letter}"]}, [node_id])
        found[f"Get{kind}ByTypeAndName"] = (by_name, [node_id])
        found[f"Get{kind}Type"] = ({"type_name": name}, [type_id])
        found[f"Get{kind}Types"] = ({}, [type_id])
        found[f"Get{kind}TypesByID"] = ({"type_ids": [type_id]}, [type_id])
        found[f"Get{kind}TypesByExternalIds"] = ({"external_ids": [f"x{name}"]}, [type_id])
    return found


LINKS = {
    "GetEventsByExecutionIDs",
    "GetEventsByArtifactIDs",
    "GetParentContextsByContexts",
    "GetChildrenContextsByContexts",
}
"""Their answers have no ids of their own; tested below."""


def test_every_rpc_that_reads_finds_what_is_there(client: Any, graph: SimpleNamespace) -> None:
    requests = reading(graph)
    assert set(requests) | LINKS | GRAPHS == {name for name in METHODS if name.startswith("Get")}
    for method, (fields, expected) in requests.items():
        answer = client.call(method, **fields)
        ((_, content),) = answer.ListFields()
        items = list(content) if not hasattr(content, "DESCRIPTOR") else [content]
        assert [item.id for item in items] == expected, method


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_request_has_an_answer_too(client: Any, graph: SimpleNamespace, method: str) -> None:
    code = grpc.StatusCode.OK
    try:
        client.call(method)
    except grpc.RpcError as error:
        code = error.code()
    allowed = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    assert code in allowed


def _takes_options(method: str) -> bool:
    fields = service_pb2.DESCRIPTOR.message_types_by_name[f"{method}Request"].fields_by_name
    return "options" in fields and fields["options"].message_type.name == "ListOperationOptions"


LISTS = [method for method in METHODS if _takes_options(method)]


@pytest.mark.parametrize("method", LISTS)
def test_a_filter_narrows_each_list(client: Any, graph: SimpleNamespace, refused: Any, method: str) -> None:
    fields, expected = reading(graph)[method]
    for query, found in ((f"id IN ({expected[0]}, 0)", expected[:1]), ("id < 0", [])):
        options = mlpb.ListOperationOptions(max_result_size=10, filter_query=query)
        answer = client.call(method, **fields, options=options)
        lists = [value for field, value in answer.ListFields() if field.name != "next_page_token"]
        assert [item.id for items in lists for item in items] == found, (method, query)
    options = mlpb.ListOperationOptions(max_result_size=10, filter_query="nothing = 1")
    refusal = refused(lambda: client.call(method, **fields, options=options))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT and refusal.fields == ("options.filter_query",)


@pytest.mark.parametrize(
    ("fields", "artifacts"),
    [
        ({"artifacts_options": {"filter_query": "uri = 'file:///a'"}}, 1),
        ({"artifacts_options": {}, "stop_conditions": {"max_num_hops": 0}}, 1),
        ({"artifacts_options": {}, "stop_conditions": {"boundary_executions": "id < 0"}, "max_node_size": 0}, 1),
    ],
)
def test_the_old_lineage_graph(client: Any, graph: SimpleNamespace, fields: dict[str, Any], artifacts: int) -> None:
    found = client.call("GetLineageGraph", options=fields).subgraph
    assert len(found.artifacts) == artifacts
    hops = "stop_conditions" not in fields
    assert bool(found.executions) == bool(found.events) == hops, fields


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "options.query_nodes"),
        ({"artifacts_options": {}, "max_node_size": -1}, "options.max_node_size"),
        ({"artifacts_options": {}, "stop_conditions": {"max_num_hops": -1}}, "options.stop_conditions.max_num_hops"),
        (
            {"artifacts_options": {}, "stop_conditions": {"boundary_artifacts": "x"}},
            "options.stop_conditions.boundary_artifacts",
        ),
    ],
)
def test_a_bad_lineage_graph(client: Any, refused: Any, fields: dict[str, Any], field: str) -> None:
    refusal = refused(lambda: client.call("GetLineageGraph", options=fields))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT and refusal.fields == (field,)


def test_there_are_lists_to_test() -> None:
    assert len(LISTS) >= 8


def test_relatives_of_several_contexts(client: Any, fresh_name: Any) -> None:
    group = client.context_type()
    names = [fresh_name("relative") for _ in range(5)]
    a, b, c, d, lonely = client.contexts(*(mlpb.Context(type_id=group, name=name) for name in names))
    links = [(c, a), (c, b), (d, b)]
    client.call("PutParentContexts", parent_contexts=[mlpb.ParentContext(child_id=x, parent_id=y) for x, y in links])
    parents = client.call("GetParentContextsByContexts", context_ids=[c, d, lonely, 10**9]).contexts
    assert {key: [node.id for node in value.parent_contexts] for key, value in parents.items()} == {c: [a, b], d: [b]}
    assert parents[d].parent_contexts[0].name == names[1]
    children = client.call("GetChildrenContextsByContexts", context_ids=[a, b, lonely]).contexts
    assert {k: [node.id for node in v.children_contexts] for k, v in children.items()} == {a: [c], b: [c, d]}


def test_events_come_back_whole(client: Any) -> None:
    data, job = client.artifact_type(), client.execution_type()
    used, made = client.artifacts(mlpb.Artifact(type_id=data), mlpb.Artifact(type_id=data))
    (run,) = client.executions(mlpb.Execution(type_id=job))
    steps = [{"key": "data"}, {"index": 0}, {"key": ""}, {"index": 2**40}]
    first = mlpb.Event(artifact_id=used, execution_id=run, type=mlpb.Event.INPUT, milliseconds_since_epoch=12345)
    for step in steps:
        first.path.steps.add(**step)
    second = mlpb.Event(artifact_id=made, execution_id=run, type=mlpb.Event.OUTPUT)
    client.call("PutEvents", events=[first, second])
    by_run = client.call("GetEventsByExecutionIDs", execution_ids=[run]).events
    assert by_run[0] == first
    assert by_run[1].milliseconds_since_epoch > 1_600_000_000_000  # nothing said: now
    assert list(client.call("GetEventsByArtifactIDs", artifact_ids=[made, used, used]).events) == list(by_run)


def test_properties_and_custom_properties_of_one_name_stay_apart(client: Any) -> None:
    """MLMD 1.17 mixes them up on update; whoever reads must know which is which."""
    data = client.artifact_type(size=mlpb.INT, kept=mlpb.STRING)
    node = mlpb.Artifact(type_id=data)
    node.properties["size"].int_value = 1
    node.properties["kept"].string_value = "declared"
    node.custom_properties["size"].string_value = "large"
    node.custom_properties["kept"].double_value = 0.5
    (artifact_id,) = client.artifacts(node)

    def change(mask: list[str], **update: Any) -> None:
        given = mlpb.Artifact(id=artifact_id, **update)
        client.call("PutArtifacts", artifacts=[given], update_mask={"paths": mask})

    def stored() -> tuple[dict[str, Any], dict[str, Any]]:
        found = client.artifact(artifact_id)
        return (
            {key: getattr(value, value.WhichOneof("value")) for key, value in found.properties.items()},
            {key: getattr(value, value.WhichOneof("value")) for key, value in found.custom_properties.items()},
        )

    node.id = artifact_id
    node.properties["size"].int_value = 2
    client.artifacts(node)
    assert stored() == ({"size": 2, "kept": "declared"}, {"size": "large", "kept": 0.5})
    change(["custom_properties.size"], custom_properties={"size": mlpb.Value(bool_value=True)})
    assert stored() == ({"size": 2, "kept": "declared"}, {"size": True, "kept": 0.5})
    change(["properties.size"])  # not given: taken away
    assert stored() == ({"kept": "declared"}, {"size": True, "kept": 0.5})
    change(["custom_properties"], properties={"kept": mlpb.Value(string_value="not asked for")})
    assert stored() == ({"kept": "declared"}, {})


def test_a_masked_update_leaves_the_rest(client: Any) -> None:
    data = client.artifact_type()
    (artifact_id,) = client.artifacts(mlpb.Artifact(type_id=data, name="fixed", uri="1", state=mlpb.Artifact.PENDING))
    before = client.artifact(artifact_id)
    given = mlpb.Artifact(id=artifact_id, name="other", uri="2", state=mlpb.Artifact.LIVE)
    client.call("PutArtifacts", artifacts=[given], update_mask={"paths": ["uri", "name", "nothing", "a.b.c"]})
    after = client.artifact(artifact_id)
    assert (after.uri, after.name, after.state) == ("2", "fixed", mlpb.Artifact.PENDING)
    assert after.last_update_time_since_epoch > before.last_update_time_since_epoch


def test_the_time_of_the_last_update_moves_with_every_change(client: Any) -> None:
    (artifact_id,) = client.artifacts(mlpb.Artifact(type_id=client.artifact_type()))
    times = [client.artifact(artifact_id).last_update_time_since_epoch]
    for number in range(20):  # several within a millisecond
        client.artifacts(mlpb.Artifact(id=artifact_id, uri=str(number)))
        times.append(client.artifact(artifact_id).last_update_time_since_epoch)
    assert times == sorted(set(times))


def test_a_forced_update_time_moves_too(client: Any) -> None:
    job = client.execution_type()
    (run,) = client.executions(mlpb.Execution(type_id=job, name="touched"))
    times = []
    for _ in range(10):
        known = client.call("GetExecutionsByID", execution_ids=[run]).executions[0]
        times.append(known.last_update_time_since_epoch)
        client.call("PutExecution", execution=known, options={"force_update_time": True})
    assert times == sorted(set(times))
