"""What two artifacts of a type differ in: themselves, their metrics, and how they came to be."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf import struct_pb2
from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.kinds import ARTIFACT, EXECUTION, INPUTS, OUTPUTS, Node
from mlmesh_metadata.store import Session
from mlmesh_metadata.values import plain

METRICS_TYPES = frozenset({"mlmd.Metrics", "system.Metrics", "system.ClassificationMetrics"})
"""Types of artifacts that hold numbers about the other artifacts that the same execution made."""


class _Missing:
    """Stands where one side has nothing; not None, which a property may be."""


MISSING = _Missing()


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    Args:
        name: Of a property, a metric or an input.
        left: As JSON has it, or MISSING.
        right: The same, of the other.
    """

    name: str
    left: Any
    right: Any

    @property
    def delta(self) -> float:
        """Right minus left, where both are numbers; else 0."""
        both = (self.left, self.right)
        return float(self.right - self.left) if all(_is_number(side) for side in both) else 0.0


@dataclass(frozen=True)
class Comparison:
    """Two artifacts, and in what they differ. Each list is by name."""

    left: Node
    right: Node
    properties: list[Difference]
    metrics: list[Difference]
    inputs: list[Difference]
    executions: list[Difference]


@dataclass
class _Side:
    """All that is compared of one artifact: values by name."""

    artifact: mlpb.Artifact
    properties: dict[str, Any]
    metrics: dict[str, Any]
    inputs: dict[str, Any]
    execution: dict[str, Any]


def compare_artifacts(session: Session, left_id: int, right_id: int) -> Comparison:
    """Compares two artifacts of one type.

    Args:
        session: Of a transaction.
        left_id: One.
        right_id: The other.

    Raises:
        NotFound: One does not exist.
        InvalidArgument: They are of different types.
    """
    left, right = (_side(session, node_id) for node_id in (left_id, right_id))
    if left.artifact.type_id != right.artifact.type_id:
        message = f"must be of type {left.artifact.type!r} as left_id is, not {right.artifact.type!r}"
        raise InvalidArgument(message, field="right_id")
    return Comparison(
        left.artifact,
        right.artifact,
        properties=_differences(left.properties, right.properties),
        metrics=_differences(left.metrics, right.metrics),
        inputs=_differences(left.inputs, right.inputs),
        executions=_differences(left.execution, right.execution),
    )


def _side(session: Session, artifact_id: int) -> _Side:
    artifact = _artifact(session, artifact_id)
    values = properties_of(artifact)
    side = _Side(
        artifact,
        properties={name: value for name, value in values.items() if not _is_number(value)},
        metrics={name: value for name, value in values.items() if _is_number(value)},
        inputs={},
        execution={},
    )
    side.properties["uri"] = artifact.uri
    if artifact.HasField("state"):
        side.properties["state"] = mlpb.Artifact.State.Name(artifact.state)
    makers = {e.execution_id for e in session.links.events_of(ARTIFACT, [artifact_id]) if e.type in OUTPUTS}
    if not makers:
        return side
    # One that was answered from a cache made nothing: the first one did. Of several that did, the newest counts.
    executions = session.nodes.by_ids(EXECUTION, makers)
    made = [e for e in executions if isinstance(e, mlpb.Execution) and e.last_known_state != mlpb.Execution.CACHED]
    execution = (made or executions)[-1]
    assert isinstance(execution, mlpb.Execution)
    side.execution = {"type": execution.type, **_flat(properties_of(execution))}
    if execution.HasField("last_known_state"):
        side.execution["state"] = mlpb.Execution.State.Name(execution.last_known_state)
    events = session.links.events_of(EXECUTION, [execution.id])
    artifacts = {node.id: node for node in session.nodes.by_ids(ARTIFACT, {event.artifact_id for event in events})}
    for event in events:
        node = artifacts.get(event.artifact_id)
        if not isinstance(node, mlpb.Artifact):
            continue
        if event.type in INPUTS:
            name = path_of(event) or node.type
            side.inputs[_free(side.inputs, name)] = node.uri or node.name or f"artifact {node.id}"
        elif event.type in OUTPUTS and node.id != artifact_id and node.type in METRICS_TYPES:
            prefix = path_of(event) or node.name or node.type
            numbers = {n: value for n, value in properties_of(node).items() if _is_number(value)}
            side.metrics.update({f"{prefix}.{name}": value for name, value in numbers.items()})
    return side


def path_of(event: mlpb.Event) -> str:
    """Gives the name under which an execution knows an artifact: the steps of the event's path, with dots."""
    return ".".join(step.key if step.HasField("key") else str(step.index) for step in event.path.steps)


def properties_of(node: Node) -> dict[str, Any]:
    """Gives declared and custom properties by name, as JSON has them; a custom one hides a declared one."""
    return {
        name: plain(value)
        for properties in (node.properties, node.custom_properties)
        for name, value in properties.items()
    }


def _artifact(session: Session, artifact_id: int) -> mlpb.Artifact:
    found = session.nodes.by_ids(ARTIFACT, [artifact_id])
    if not found:
        raise NotFound("artifact", artifact_id)
    assert isinstance(found[0], mlpb.Artifact)
    return found[0]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Takes structs apart: {"inputs": {"rate": 1}} is {"inputs.rate": 1}."""
    found = {}
    todo = list(values.items())
    while todo:
        name, value = todo.pop()
        if isinstance(value, dict):
            todo += [(f"{name}.{inner}", member) for inner, member in value.items()]
        else:
            found[name] = value
    return found


def _free(known: Iterable[str], name: str) -> str:
    """Gives the name, numbered where it is taken."""
    taken = set(known)
    number = 1
    given = name
    while given in taken:
        number += 1
        given = f"{name} ({number})"
    return given


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _differences(left: dict[str, Any], right: dict[str, Any]) -> list[Difference]:
    return [
        Difference(name, left.get(name, MISSING), right.get(name, MISSING))
        for name in sorted({*left, *right})
        if left.get(name, MISSING) != right.get(name, MISSING)
    ]


def to_value(plain_value: Any) -> struct_pb2.Value:
    """Gives a JSON value as a message."""
    value = struct_pb2.Value()
    match plain_value:
        case None:
            value.null_value = struct_pb2.NULL_VALUE
        case bool():
            value.bool_value = plain_value
        case int() | float():
            value.number_value = plain_value
        case str():
            value.string_value = plain_value
        case dict():
            value.struct_value.update(plain_value)
        case list():
            value.list_value.extend(plain_value)
    return value
