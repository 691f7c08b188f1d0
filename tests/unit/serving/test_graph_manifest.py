"""Manifests of InferenceGraphs: what KServe's examples say, and every way to be wrong."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_kit.errors import InvalidArgument
from mlmesh_serving.graph.graph import Data, Dependency, RouterType
from mlmesh_serving.graph.manifest import MAX_CALLS, MAX_DEPTH, MAX_NODES, MAX_STEPS, parse_graph
from mlmesh_serving.remote.hosts import parse_hosts

HOSTS = parse_hosts("*.example.com, 10.0.0.0/8")


def manifest(nodes: object, **spec) -> dict:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": "graph", "labels": {"a": "b"}},
        "spec": {"nodes": nodes, **spec},
    }


def sequence(*steps: dict) -> dict:
    return {"routerType": "Sequence", "steps": list(steps)}


def test_a_whole_graph_is_read() -> None:
    made = manifest(
        {
            "root": sequence(
                {"serviceName": "classifier", "name": "first", "dependency": "Hard"},
                {"nodeName": "breeds", "data": "$response", "condition": '[@this].#(predictions.0=="dog")'},
                {"serviceUrl": "http://models.example.com/v1/models/m:predict", "mapPredictionsToInstances": True},
            ),
            "breeds": {
                "routerType": "Switch",
                "steps": [{"serviceName": "dogs", "condition": "a"}, {"nodeName": "split", "condition": "b"}],
            },
            "split": {
                "routerType": "Splitter",
                "steps": [{"serviceName": "a", "weight": 20}, {"nodeName": "both", "weight": 80.0}],
            },
            "both": {"routerType": "Ensemble", "steps": [{"serviceName": "a"}, {"serviceName": "b", "name": "bee"}]},
        },
        timeout=30,
        routerTimeouts={"serverRead": 10, "serviceClient": 5},
        minReplicas=1,
        resources={"limits": {"cpu": 1}},
    )
    graph = parse_graph(made, HOSTS)
    assert graph.name == "graph" and graph.timeout_seconds == 30 and graph.step_seconds == 5
    first, second, third = graph.nodes["root"].steps
    assert (first.name, first.service, first.dependency) == ("first", "classifier", Dependency.HARD)
    assert (second.name, second.node, second.data, second.dependency) == ("1", "breeds", Data.RESPONSE, Dependency.SOFT)
    assert second.condition is not None and second.condition.holds({"predictions": ["dog"]})
    assert third.url is not None and third.renames_predictions
    assert (str(third.url.address), third.url.path) == ("http://models.example.com:80", "/v1/models/m:predict")
    assert [step.weight for step in graph.nodes["split"].steps] == [20, 80]
    assert [step.name for step in graph.nodes["both"].steps] == ["0", "bee"]
    assert graph.nodes["breeds"].router_type is RouterType.SWITCH
    assert graph.services == {"classifier", "dogs", "a", "b"}


STEP = {"serviceName": "a"}
WRONG = [
    ({}, "spec.nodes: must hold 1 to 64 nodes"),
    (None, "spec.nodes: must be an object"),
    ({"first": sequence(STEP)}, "spec.nodes: must hold a node 'root'"),
    ({"root": sequence(STEP), "a b": sequence(STEP)}, "names of nodes are"),
    ({"root": []}, "spec.nodes.root: must be an object"),
    ({"root": {"routerType": "Chain", "steps": [STEP]}}, "spec.nodes.root.routerType: must be one of Sequence"),
    ({"root": {"routerType": "Sequence"}}, "spec.nodes.root.steps: must be a list of 1 to 32"),
    ({"root": sequence()}, "spec.nodes.root.steps: must be a list of 1 to 32"),
    ({"root": {**sequence(STEP), "routes": []}}, "spec.nodes.root.routes: is not known"),
    ({"root": sequence({})}, r"root.steps\[0\]: must hold one of nodeName, serviceName, serviceUrl, got 0"),
    ({"root": sequence({"serviceName": "a", "nodeName": "root"})}, "must hold one of .*, got 2"),
    ({"root": sequence({"serviceName": "A b"})}, r"steps\[0\].serviceName: must be 1 to 63"),
    ({"root": sequence({"serviceName": 3})}, r"steps\[0\].serviceName: must be a string"),
    ({"root": sequence({"serviceUrl": "grpc://a.example.com:1"})}, r"steps\[0\].serviceUrl: must begin with http://"),
    ({"root": sequence({"serviceUrl": "http://127.0.0.1"})}, r"steps\[0\].serviceUrl: 127.0.0.1 is no host that this"),
    ({"root": sequence({"serviceUrl": "http://u:p@a.example.com"})}, r"steps\[0\].serviceUrl: must not hold cred"),
    ({"root": sequence({"nodeName": "other"})}, r"steps\[0\].nodeName: there is no node 'other'"),
    ({"root": sequence({**STEP, "name": "x"}, {**STEP, "name": "x"})}, r"steps\[1\].name: 'x' is there twice"),
    ({"root": sequence(STEP, {**STEP, "name": "0"})}, r"steps\[1\].name: '0' is there twice"),
    ({"root": sequence({**STEP, "name": 3})}, r"steps\[0\].name: must be a string"),
    ({"root": sequence({**STEP, "name": "x" * 200})}, r"steps\[0\].name: must be a string of at most 128"),
    ({"root": sequence({**STEP, "data": "$response"})}, r"steps\[0\].data: is for the second and later steps"),
    ({"root": sequence(STEP, {**STEP, "data": "$response.predictions"})}, r"steps\[1\].data: must be \$request or"),
    ({"root": sequence({**STEP, "weight": 1})}, r"steps\[0\].weight: is for a Splitter"),
    ({"root": sequence({**STEP, "condition": "a"})}, r"steps\[0\].condition: is for a Switch, and for the second"),
    ({"root": sequence(STEP, {**STEP, "condition": "{a}"})}, r"steps\[1\].condition: must be a path in GJSON's syntax"),
    ({"root": sequence({**STEP, "dependency": "hard"})}, r"steps\[0\].dependency: must be Soft or Hard"),
    ({"root": sequence({**STEP, "mapPredictionsToInstances": "yes"})}, r"mapPredictionsToInstances: must be true or"),
    ({"root": sequence({**STEP, "service": "a"})}, r"steps\[0\].service: is not known"),
    ({"root": {"routerType": "Switch", "steps": [STEP]}}, r"steps\[0\].condition: must be given in a Switch"),
    ({"root": {"routerType": "Ensemble", "steps": [{**STEP, "condition": "a"}]}}, r"condition: is for a Switch"),
    ({"root": {"routerType": "Ensemble", "steps": [STEP, {**STEP, "data": "$response"}]}}, r"data: is for the second"),
    ({"root": {"routerType": "Splitter", "steps": [STEP]}}, r"steps\[0\].weight: must be an integer, 0 to 100"),
    (
        {"root": {"routerType": "Splitter", "steps": [{**STEP, "weight": 99}]}},
        "root.steps: the weights must sum to 100",
    ),
    ({"root": {"routerType": "Splitter", "steps": [{**STEP, "weight": 99.5}]}}, "weight: must be an integer"),
    ({"root": {"routerType": "Splitter", "steps": [{**STEP, "weight": True}]}}, "weight: must be an integer"),
    ({"root": sequence({"nodeName": "root"})}, "spec.nodes.root: must have no cycle, and root → root is one"),
    (
        {"root": sequence(STEP), "a": sequence({"nodeName": "b"}), "b": sequence({"nodeName": "a"})},
        "must have no cycle, and a → b → a is one",
    ),
    ({f"n{n}": sequence(STEP) for n in range(MAX_NODES)} | {"root": sequence(STEP)}, "1 to 64 nodes"),
    ({"root": sequence(*[STEP] * (MAX_STEPS + 1))}, "1 to 32 steps"),
]


@pytest.mark.parametrize(("nodes", "says"), WRONG)
def test_wrong_graphs_are_refused_by_name(nodes: object, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as error:
        parse_graph(manifest(nodes), HOSTS)
    assert error.value.violations[0][0].startswith("manifest.spec.nodes")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"apiVersion": "v1"}, "manifest.apiVersion: must be serving.kserve.io/v1alpha1"),
        ({"kind": "InferenceService"}, "manifest.kind: must be InferenceGraph"),
        ({"metadata": None}, "manifest.metadata: must be an object"),
        ({"metadata": {"name": "A"}}, "manifest.metadata.name: must be 1 to 63"),
        ({"metadata": {}}, "manifest.metadata.name: must be a non-empty string"),
        ({"spec": None}, "manifest.spec: must be an object"),
        ({"extra": 1}, "manifest.extra: is not known"),
    ],
)
def test_wrong_manifests_are_refused(change: dict, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        parse_graph({**manifest({"root": sequence(STEP)}), **change}, HOSTS)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"timeout": 0}, "manifest.spec.timeout: must be seconds"),
        ({"timeout": "1s"}, "manifest.spec.timeout: must be seconds"),
        ({"timeout": 1e9}, "manifest.spec.timeout: must be seconds"),
        ({"routerTimeouts": 3}, "manifest.spec.routerTimeouts: must be an object"),
        ({"routerTimeouts": {"serviceClient": -1}}, "manifest.spec.routerTimeouts.serviceClient: must be seconds"),
        ({"routerTimeouts": {"read": 1}}, "manifest.spec.routerTimeouts.read: is not known"),
        ({"router": 1}, "manifest.spec.router: is not known"),
    ],
)
def test_wrong_settings_of_a_graph_are_refused(spec: dict, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        parse_graph(manifest({"root": sequence(STEP)}, **spec), HOSTS)


def test_depth_and_cost_are_bounded() -> None:
    def chain(length: int) -> dict:
        nodes = {f"n{n}": sequence({"nodeName": f"n{n + 1}"}) for n in range(1, length - 1)}
        return {"root": sequence({"nodeName": "n1"}), **nodes, f"n{length - 1}": sequence(STEP)}

    parse_graph(manifest(chain(MAX_DEPTH)), HOSTS)
    with pytest.raises(InvalidArgument, match="at most 16 nodes deep, got 17"):
        parse_graph(manifest(chain(MAX_DEPTH + 1)), HOSTS)

    def doubling(levels: int) -> dict:
        both = {"routerType": "Ensemble", "steps": [{"nodeName": "n1", "name": "a"}, {"nodeName": "n1", "name": "b"}]}
        nodes = {"root": both}
        for level in range(1, levels):
            steps = [{"nodeName": f"n{level + 1}", "name": name} for name in "ab"]
            nodes[f"n{level}"] = {"routerType": "Ensemble", "steps": steps}
        return {**nodes, f"n{levels}": sequence(STEP)}

    parse_graph(manifest(doubling(7)), HOSTS)
    with pytest.raises(InvalidArgument, match=f"at most {MAX_CALLS} steps, and could take 256"):
        parse_graph(manifest(doubling(8)), HOSTS)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 200), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(st.data())
def test_a_manifest_with_anything_in_it_is_a_graph_or_is_refused(data) -> None:
    made = copy.deepcopy(
        manifest({"root": sequence(dict(STEP), {"nodeName": "n", "data": "$response"}), "n": sequence(dict(STEP))})
    )
    places = [made]
    for place in places:
        places += [v for v in (place.values() if isinstance(place, dict) else place) if isinstance(v, (dict, list))]
    place = data.draw(st.sampled_from(places))
    if isinstance(place, dict):
        known = ["nodes", "steps", "weight", "data", "condition", "name", "nodeName", "serviceUrl", "routerType"]
        place[data.draw(st.sampled_from([*place, *known]))] = data.draw(JSON)
    else:
        place[data.draw(st.integers(0, len(place) - 1))] = data.draw(JSON)
    try:
        parse_graph(made, HOSTS)
    except InvalidArgument as error:
        assert error.violations and error.violations[0][0].startswith("manifest")
