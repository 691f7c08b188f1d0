"""LineageService: where an artifact comes from, and what was made of it."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import lineage_pb2

UP, DOWN, BOTH = lineage_pb2.DIRECTION_UPSTREAM, lineage_pb2.DIRECTION_DOWNSTREAM, lineage_pb2.DIRECTION_BOTH


@pytest.fixture(scope="module")
def types(client: Any) -> SimpleNamespace:
    return SimpleNamespace(
        data=client.artifact_type("Data"), job=client.execution_type("Job"), group=client.context_type("Group")
    )


def runs(client: Any, types: SimpleNamespace, count: int) -> list[int]:
    return client.executions(*(mlpb.Execution(type_id=types.job) for _ in range(count)))


def things(client: Any, types: SimpleNamespace, count: int) -> list[int]:
    return client.artifacts(*(mlpb.Artifact(type_id=types.data) for _ in range(count)))


def depths(answer: lineage_pb2.QueryLineageResponse, kind: str) -> dict[int, int]:
    return {node.id: node.depth for node in answer.nodes if node.kind == kind}


def links(answer: lineage_pb2.QueryLineageResponse) -> set[tuple[str, int, int]]:
    return {(edge.type, edge.artifact_id, edge.execution_id) for edge in answer.edges if not edge.context_id}


@pytest.fixture(scope="module")
def chain(client: Any, types: SimpleNamespace) -> SimpleNamespace:
    """raw → clean → (model, report); model → scores. Each arrow is an execution."""
    raw, clean, model, report, scores = things(client, types, 5)
    prepare, train, evaluate = runs(client, types, 3)
    client.connect(prepare, [raw], [clean])
    client.connect(train, [clean], [model, report])
    client.connect(evaluate, [model], [scores])
    return SimpleNamespace(**{k: v for k, v in locals().items() if isinstance(v, int)})


def test_upstream(client: Any, chain: Any) -> None:
    answer = client.query(artifact_id=chain.model, direction=UP)
    assert answer.artifact_id == chain.model
    assert depths(answer, "artifact") == {chain.model: 0, chain.clean: 1, chain.raw: 2}
    assert depths(answer, "execution") == {chain.train: 1, chain.prepare: 2}
    assert links(answer) == {
        ("OUTPUT", chain.model, chain.train),
        ("INPUT", chain.clean, chain.train),
        ("OUTPUT", chain.clean, chain.prepare),
        ("INPUT", chain.raw, chain.prepare),
    }
    assert not answer.truncated
    assert answer == client.query(artifact_id=chain.model)  # the direction that is meant where none is said


def test_downstream(client: Any, chain: Any) -> None:
    answer = client.query(artifact_id=chain.clean, direction=DOWN)
    assert depths(answer, "artifact") == {chain.clean: 0, chain.model: 1, chain.report: 1, chain.scores: 2}
    assert depths(answer, "execution") == {chain.train: 1, chain.evaluate: 2}


def test_both_ways(client: Any, chain: Any) -> None:
    answer = client.query(artifact_id=chain.model, direction=BOTH)
    assert depths(answer, "artifact") == {chain.model: 0, chain.clean: 1, chain.scores: 1, chain.raw: 2}
    assert depths(answer, "execution") == {chain.train: 1, chain.evaluate: 1, chain.prepare: 2}
    assert [node.depth for node in answer.nodes] == sorted(node.depth for node in answer.nodes)


def test_an_end_has_nothing_beyond_it(client: Any, chain: Any) -> None:
    answer = client.query(artifact_id=chain.raw, direction=UP)
    assert [(node.kind, node.id) for node in answer.nodes] == [("artifact", chain.raw)]
    assert not answer.edges and not answer.truncated


@pytest.fixture(scope="module")
def row(client: Any, types: SimpleNamespace) -> list[int]:
    """Thirty artifacts, each made of the one before."""
    nodes = things(client, types, 30)
    for run, used, made in zip(runs(client, types, 29), nodes, nodes[1:], strict=False):
        client.connect(run, [used], [made])
    return nodes


@pytest.mark.parametrize(
    ("max_depth", "reached", "truncated"),
    [(1, 1, True), (28, 28, True), (29, 29, False), (10_000, 29, False), (0, 29, False)],
)
@pytest.mark.parametrize("direction", [UP, DOWN])
def test_depth(client: Any, row: list[int], direction: int, max_depth: int, reached: int, truncated: bool) -> None:
    start = row[0] if direction == DOWN else row[-1]
    answer = client.query(artifact_id=start, direction=direction, max_depth=max_depth)
    assert max(depths(answer, "artifact").values()) == max(depths(answer, "execution").values()) == reached
    assert answer.truncated is truncated


def test_depth_holds_for_each_way(client: Any, row: list[int]) -> None:
    answer = client.query(artifact_id=row[10], direction=BOTH, max_depth=3)
    assert depths(answer, "artifact") == {row[10 + step]: abs(step) for step in range(-3, 4)}
    assert answer.truncated


@pytest.fixture(scope="module", params=range(4))
def tangle(request: pytest.FixtureRequest, client: Any, types: SimpleNamespace) -> list[int]:
    """A random graph, cycles included (an execution that changes an artifact in place makes one)."""
    shuffled = random.Random(request.param)
    nodes, jobs = 10, 8
    edges = [
        {"execution_index": run, "artifact_index": node, "event": mlpb.Event(type=kind)}
        for run in range(jobs)
        for kind in (mlpb.Event.INPUT, mlpb.Event.OUTPUT)
        for node in shuffled.sample(range(nodes), shuffled.randint(0, 2))
    ]
    made = client.call(
        "PutLineageSubgraph",
        artifacts=[mlpb.Artifact(type_id=types.data) for _ in range(nodes)],
        executions=[mlpb.Execution(type_id=types.job) for _ in range(jobs)],
        event_edges=edges,
    )
    return list(made.artifact_ids)


def everything(answer: lineage_pb2.QueryLineageResponse) -> set[tuple[Any, ...]]:
    return {(node.kind, node.id) for node in answer.nodes} | links(answer)


def test_both_ways_is_one_way_and_the_other(client: Any, tangle: list[int]) -> None:
    for node in tangle:
        up, down = (client.query(artifact_id=node, direction=way) for way in (UP, DOWN))
        assert everything(client.query(artifact_id=node, direction=BOTH)) == everything(up) | everything(down)


def test_a_cycle_does_not_hide_what_is_beyond_it(client: Any, types: SimpleNamespace) -> None:
    """a → b → a, and b → c: seen from a, b lies both ways, and c only downstream."""
    a, b, c = things(client, types, 3)
    for run, used, made in zip(runs(client, types, 3), (a, b, b), (b, a, c), strict=True):
        client.connect(run, [used], [made])
    assert depths(client.query(artifact_id=a, direction=BOTH), "artifact") == {a: 0, b: 1, c: 2}


def test_what_comes_from_here_has_here_in_its_history(client: Any, tangle: list[int]) -> None:
    after = {n: depths(client.query(artifact_id=n, direction=DOWN), "artifact") for n in tangle}
    before = {n: depths(client.query(artifact_id=n, direction=UP), "artifact") for n in tangle}
    for one in tangle:
        for other in tangle:
            assert after[one].get(other) == before[other].get(one)


def test_it_is_truncated_where_one_more_step_finds_more(client: Any, tangle: list[int]) -> None:
    found = set()
    for node in tangle[:5]:
        for depth in (1, 2, 4):
            for way in (UP, DOWN, BOTH):
                less, more = (client.query(artifact_id=node, direction=way, max_depth=d) for d in (depth, depth + 1))
                assert less.truncated is (len(less.nodes) < len(more.nodes))
                assert everything(less) <= everything(more)
                found.add(less.truncated)
    assert False in found


def test_the_start_by_uri_name_and_type(client: Any, types: SimpleNamespace) -> None:
    other = client.artifact_type("Other")
    first, second, named, twin = client.artifacts(
        mlpb.Artifact(type_id=types.data, uri="file:///model"),
        mlpb.Artifact(type_id=types.data, uri="file:///model"),
        mlpb.Artifact(type_id=types.data, name="champion", uri="file:///older"),
        mlpb.Artifact(type_id=other, name="champion", uri="file:///model"),
    )
    assert client.query(uri="file:///model").artifact_id == twin  # the newest
    assert client.query(uri="file:///model", type="Data").artifact_id == second
    assert client.query(name="champion").artifact_id == twin
    assert client.query(name="champion", type="Data").artifact_id == named
    assert client.query(name="champion", uri="file:///older").artifact_id == named
    assert client.query(artifact_id=first).artifact_id == first


def test_contexts_come_with_their_members(client: Any, types: SimpleNamespace) -> None:
    used, made = things(client, types, 2)
    (run,) = runs(client, types, 1)
    client.connect(run, [used], [made])
    near, far = client.contexts(*(mlpb.Context(type_id=types.group, name=name) for name in ("near", "far")))
    client.call(
        "PutAttributionsAndAssociations",
        attributions=[mlpb.Attribution(artifact_id=made, context_id=near)],
        associations=[mlpb.Association(execution_id=run, context_id=far)],
    )
    answer = client.query(artifact_id=made)
    assert depths(answer, "context") == {near: 0, far: 1}
    assert [node.name for node in answer.nodes if node.kind == "context"] == ["near", "far"]
    memberships = {(e.type, e.artifact_id, e.execution_id, e.context_id) for e in answer.edges if e.context_id}
    assert memberships == {("ATTRIBUTION", made, 0, near), ("ASSOCIATION", 0, run, far)}


def test_a_node_says_what_it_is(client: Any, types: SimpleNamespace) -> None:
    declared = client.artifact_type("Told", size=mlpb.INT)
    struct = struct_pb2.Struct()
    struct.update({"deep": [1, {"no": None}], "odd": float("nan")})
    custom = {
        "text": mlpb.Value(string_value="é"),
        "endless": mlpb.Value(double_value=float("inf")),
        "yes": mlpb.Value(bool_value=True),
        "tree": mlpb.Value(struct_value=struct),
    }
    node = mlpb.Artifact(type_id=declared, name="told", uri="file:///told", state=mlpb.Artifact.LIVE)
    node.properties["size"].int_value = 3
    for key, value in custom.items():
        node.custom_properties[key].CopyFrom(value)
    node.custom_properties["packed"].proto_value.Pack(mlpb.Context(name="inside"))
    (artifact_id,) = client.artifacts(node)
    (run,) = client.executions(mlpb.Execution(type_id=types.job, name="r", last_known_state=mlpb.Execution.CACHED))
    event = mlpb.Event(artifact_id=artifact_id, execution_id=run, type=mlpb.Event.DECLARED_OUTPUT)
    event.path.steps.add(key="models")
    event.path.steps.add(index=2)
    client.call("PutEvents", events=[event])
    answer = client.query(artifact_id=artifact_id)
    told, job = answer.nodes
    assert (told.type, told.name, told.uri, told.state) == ("Told", "told", "file:///told", "LIVE")
    assert (job.type, job.name, job.state) == ("Job", "r", "CACHED")
    assert told.create_time_since_epoch == client.artifact(artifact_id).create_time_since_epoch
    assert json_format.MessageToDict(told.properties) == {  # JSON has it all, as Envoy will need
        "size": 3,
        "text": "é",
        "endless": "inf",
        "yes": True,
        "tree": {"deep": [1, {"no": None}], "odd": "nan"},
        "packed": "type.googleapis.com/ml_metadata.Context",
    }
    assert [(edge.type, edge.path) for edge in answer.edges] == [("OUTPUT", "models.2")]
