"""InferenceGraph manifests (serving.kserve.io/v1alpha1), checked.

Beside what KServe's webhook refuses, a graph is refused here that KServe would only fail at, request by request:
cycles, nodes that are not there, a Switch without conditions, conditions that are no GJSON.
"""

import re
from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.names import check_name

from mlmesh_serving.graph.condition import parse_condition
from mlmesh_serving.graph.graph import (
    ROOT,
    Data,
    Dependency,
    InferenceGraph,
    Node,
    RouterType,
    ServiceUrl,
    Step,
)
from mlmesh_serving.remote.address import RemoteAddress, parse_address
from mlmesh_serving.remote.hosts import AllowedHosts

API_VERSION = "serving.kserve.io/v1alpha1"
MAX_NODES = 64
MAX_STEPS = 32
MAX_DEPTH = 16
MAX_CALLS = 128
DEFAULT_TIMEOUT_SECONDS = 60.0
MAX_TIMEOUT_SECONDS = 3600
# For Kubernetes alone: kept in the manifest, of no effect here.
_KUBERNETES = {
    "affinity", "maxReplicas", "minReplicas", "nodeName", "nodeSelector", "resources", "scaleMetric", "scaleTarget",
    "tolerations",
}  # fmt: skip
_TARGETS = ("nodeName", "serviceName", "serviceUrl")
_STEP = {
    *_TARGETS, "name", "data", "weight", "condition", "dependency", "mapPredictionsToInstances",
}  # fmt: skip
_TIMEOUTS = {"serverRead", "serverWrite", "serverIdle", "serviceClient"}
_NODE_NAME = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?", re.ASCII)
_MAX_STEP_NAME = 128


def parse_graph(manifest: Mapping[str, Any], hosts: AllowedHosts) -> InferenceGraph:
    """Checks a manifest.

    Args:
        manifest: As given by the user.
        hosts: That a `serviceUrl` may name.

    Raises:
        InvalidArgument: A field is missing, wrong or not known, or the nodes are no graph; the message names the field.
    """
    if manifest.get("apiVersion") != API_VERSION:
        raise InvalidArgument(f"must be {API_VERSION}", field="manifest.apiVersion")
    if manifest.get("kind") != "InferenceGraph":
        raise InvalidArgument("must be InferenceGraph", field="manifest.kind")
    _only(manifest, {"apiVersion", "kind", "metadata", "spec", "status"}, "manifest")
    metadata = _object(manifest.get("metadata"), "manifest.metadata")
    name = metadata.get("name")
    if not isinstance(name, str):
        raise InvalidArgument("must be a non-empty string", field="manifest.metadata.name")
    check_name(name, "manifest.metadata.name")
    spec = _object(manifest.get("spec"), "manifest.spec")
    _only(spec, {"nodes", "timeout", "routerTimeouts", *_KUBERNETES}, "manifest.spec")
    nodes = _nodes(spec.get("nodes"), "manifest.spec.nodes", hosts)
    _check_shape(nodes, "manifest.spec.nodes")
    timeout = _seconds(spec, "timeout", "manifest.spec", DEFAULT_TIMEOUT_SECONDS)
    return InferenceGraph(name, nodes, timeout, _step_seconds(spec, timeout))


def _nodes(given: Any, where: str, hosts: AllowedHosts) -> dict[str, Node]:
    given = _object(given, where)
    if not 1 <= len(given) <= MAX_NODES:
        raise InvalidArgument(f"must hold 1 to {MAX_NODES} nodes", field=where)
    if ROOT not in given:
        raise InvalidArgument(f"must hold a node {ROOT!r}, where the graph begins", field=where)
    found = {}
    for name, node in given.items():
        if not isinstance(name, str) or not _NODE_NAME.fullmatch(name):
            raise InvalidArgument("names of nodes are 1 to 63 letters, digits, '-', '_' and '.'", field=where)
        found[name] = _node(node, f"{where}.{name}", hosts)
    return found


def _node(given: Any, where: str, hosts: AllowedHosts) -> Node:
    given = _object(given, where)
    _only(given, {"routerType", "steps"}, where)
    words = [kind.value for kind in RouterType]
    if given.get("routerType") not in words:
        raise InvalidArgument(f"must be one of {', '.join(words)}", field=f"{where}.routerType")
    kind = RouterType(given["routerType"])
    steps = given.get("steps")
    if not isinstance(steps, list) or not 1 <= len(steps) <= MAX_STEPS:
        raise InvalidArgument(f"must be a list of 1 to {MAX_STEPS} steps", field=f"{where}.steps")
    found = tuple(_step(step, index, kind, f"{where}.steps[{index}]", hosts) for index, step in enumerate(steps))
    names = [step.name for step in found]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidArgument(f"{name!r} is there twice", field=f"{where}.steps[{index}].name")
    if kind is RouterType.SPLITTER and sum(step.weight for step in found) != 100:
        raise InvalidArgument(
            f"the weights must sum to 100, got {sum(step.weight for step in found)}", field=f"{where}.steps"
        )
    return Node(kind, found)


def _step(given: Any, index: int, kind: RouterType, where: str, hosts: AllowedHosts) -> Step:
    given = _object(given, where)
    _only(given, _STEP, where)
    targets = [key for key in _TARGETS if given.get(key) not in (None, "")]
    if len(targets) != 1:
        raise InvalidArgument(f"must hold one of {', '.join(_TARGETS)}, got {len(targets)}", field=where)
    target = given[targets[0]]
    if not isinstance(target, str):
        raise InvalidArgument("must be a string", field=f"{where}.{targets[0]}")
    if targets[0] == "serviceName":
        check_name(target, f"{where}.serviceName")
    return Step(
        name=_step_name(given, index, where),
        node=target if targets[0] == "nodeName" else "",
        service=target if targets[0] == "serviceName" else "",
        url=_url(target, f"{where}.serviceUrl", hosts) if targets[0] == "serviceUrl" else None,
        data=_data(given, index, kind, where),
        weight=_weight(given, kind, where),
        condition=_condition(given, index, kind, where),
        dependency=_dependency(given, where),
        renames_predictions=_flag(given, "mapPredictionsToInstances", where),
    )


def _step_name(given: Mapping[str, Any], index: int, where: str) -> str:
    name = given.get("name")
    if name in (None, ""):
        return str(index)
    if not isinstance(name, str) or len(name) > _MAX_STEP_NAME or not name.isprintable():
        raise InvalidArgument(f"must be a string of at most {_MAX_STEP_NAME} characters", field=f"{where}.name")
    return name


def _url(target: str, field: str, hosts: AllowedHosts) -> ServiceUrl:
    found = parse_address(target, field, ("http", "https"))
    hosts.check(found.host, field)
    path = found.path + ("/" if target.endswith("/") or not found.path else "")
    return ServiceUrl(RemoteAddress(found.scheme, found.host, found.port), path)


def _data(given: Mapping[str, Any], index: int, kind: RouterType, where: str) -> Data:
    data = given.get("data")
    if data in (None, ""):
        return Data.REQUEST
    if data not in [word.value for word in Data]:
        raise InvalidArgument("must be $request or $response", field=f"{where}.data")
    if data == Data.RESPONSE.value and (kind is not RouterType.SEQUENCE or index == 0):
        raise InvalidArgument("is for the second and later steps of a Sequence", field=f"{where}.data")
    return Data(data)


def _weight(given: Mapping[str, Any], kind: RouterType, where: str) -> int:
    weight = given.get("weight")
    if kind is not RouterType.SPLITTER:
        if weight is not None:
            raise InvalidArgument("is for a Splitter", field=f"{where}.weight")
        return 0
    if isinstance(weight, float) and weight.is_integer():  # JSON, as protobuf's Struct has it, knows no integers
        weight = int(weight)
    if type(weight) is not int or not 0 <= weight <= 100:
        raise InvalidArgument("must be an integer, 0 to 100", field=f"{where}.weight")
    return weight


def _condition(given: Mapping[str, Any], index: int, kind: RouterType, where: str) -> Any:
    text = given.get("condition")
    field = f"{where}.condition"
    if text in (None, ""):
        if kind is RouterType.SWITCH:
            raise InvalidArgument("must be given in a Switch", field=field)
        return None
    if kind not in (RouterType.SWITCH, RouterType.SEQUENCE) or (kind is RouterType.SEQUENCE and index == 0):
        raise InvalidArgument("is for a Switch, and for the second and later steps of a Sequence", field=field)
    return parse_condition(text, field)


def _dependency(given: Mapping[str, Any], where: str) -> Dependency:
    dependency = given.get("dependency")
    if dependency in (None, ""):
        return Dependency.SOFT
    if dependency not in [word.value for word in Dependency]:
        raise InvalidArgument("must be Soft or Hard", field=f"{where}.dependency")
    return Dependency(dependency)


def _flag(given: Mapping[str, Any], key: str, where: str) -> bool:
    flag = given.get(key)
    if flag not in (None, True, False):
        raise InvalidArgument("must be true or false", field=f"{where}.{key}")
    return bool(flag)


def _seconds(given: Mapping[str, Any], key: str, where: str, default: float) -> float:
    seconds = given.get(key)
    if seconds is None:
        return default
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        raise InvalidArgument(f"must be seconds, more than 0 and at most {MAX_TIMEOUT_SECONDS}", field=f"{where}.{key}")
    return float(seconds)


def _step_seconds(spec: Mapping[str, Any], timeout: float) -> float:
    """Reads `routerTimeouts`; those of the server are for a server of the graph's own, which there is not here."""
    given = spec.get("routerTimeouts")
    if given is None:
        return timeout
    where = "manifest.spec.routerTimeouts"
    given = _object(given, where)
    _only(given, _TIMEOUTS, where)
    for key in _TIMEOUTS:
        _seconds(given, key, where, timeout)
    return _seconds(given, "serviceClient", where, timeout)


def _check_shape(nodes: Mapping[str, Node], where: str) -> None:
    """Checks that the nodes exist, that nothing leads back to where it came from, and what a request may cost."""
    for name, node in nodes.items():
        for index, step in enumerate(node.steps):
            if step.node and step.node not in nodes:
                raise InvalidArgument(
                    f"there is no node {step.node!r}", field=f"{where}.{name}.steps[{index}].nodeName"
                )
    costs: dict[str, tuple[int, int]] = {}
    for name in nodes:
        _cost(name, nodes, costs, (), where)
    depth, calls = costs[ROOT]
    if depth > MAX_DEPTH:
        raise InvalidArgument(f"must be at most {MAX_DEPTH} nodes deep, got {depth}", field=where)
    if calls > MAX_CALLS:
        raise InvalidArgument(f"a request may take at most {MAX_CALLS} steps, and could take {calls}", field=where)


def _cost(
    name: str, nodes: Mapping[str, Node], costs: dict[str, tuple[int, int]], way: tuple[str, ...], where: str
) -> tuple[int, int]:
    """Gives how deep a node is, and how many services a request to it may ask."""
    if name in way:
        cycle = " → ".join((*way[way.index(name) :], name))
        raise InvalidArgument(f"must have no cycle, and {cycle} is one", field=f"{where}.{name}")
    known = costs.get(name)
    if known is not None:
        return known
    node = nodes[name]
    below = [_cost(step.node, nodes, costs, (*way, name), where) if step.node else (0, 1) for step in node.steps]
    takes_all = node.router_type in (RouterType.SEQUENCE, RouterType.ENSEMBLE)
    calls = sum(calls for _, calls in below) if takes_all else max(calls for _, calls in below)
    costs[name] = (1 + max(depth for depth, _ in below), calls)
    return costs[name]


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidArgument("must be an object", field=where)
    return value


def _only(parent: Mapping[str, Any], allowed: set[str], where: str) -> None:
    for key in parent:
        if key not in allowed:
            raise InvalidArgument(f"is not known; known are {', '.join(sorted(allowed))}", field=f"{where}.{key}")
