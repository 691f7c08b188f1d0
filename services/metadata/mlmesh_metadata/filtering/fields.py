"""Which attributes a filter_query may speak of, for each kind of node.

Source: the documentation of `ListOperationOptions.filter_query` in ml_metadata/proto/metadata_store.proto.
"""

import re

from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.filtering.expression import Column, Neighbour, ValueType
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, Kind

_INT, _STRING, _BOOL, _DOUBLE, _ENUM = (
    ValueType.INT64,
    ValueType.STRING,
    ValueType.BOOL,
    ValueType.DOUBLE,
    ValueType.ENUM,
)
_NODE = {
    "id": _INT,
    "type_id": _INT,
    "type": _STRING,
    "name": _STRING,
    "external_id": _STRING,
    "create_time_since_epoch": _INT,
    "last_update_time_since_epoch": _INT,
}
_OWN = {
    ARTIFACT.name: {**_NODE, "uri": _STRING, "state": _ENUM},
    EXECUTION.name: {**_NODE, "last_known_state": _ENUM},
    CONTEXT.name: _NODE,
}
_VALUES = {"int_value": _INT, "double_value": _DOUBLE, "string_value": _STRING, "bool_value": _BOOL}
_CONTEXT = {
    "id": _INT,
    "name": _STRING,
    "type": _STRING,
    "create_time_since_epoch": _INT,
    "last_update_time_since_epoch": _INT,
}
_RELATIVE = {"id": _INT, "name": _STRING, "type": _STRING}
_EVENT = {"type": _ENUM, "milliseconds_since_epoch": _INT}
_RELATIONS = {
    ARTIFACT.name: {"contexts": _CONTEXT, "events": {**_EVENT, "execution_id": _INT}},
    EXECUTION.name: {"contexts": _CONTEXT, "events": {**_EVENT, "artifact_id": _INT}},
    CONTEXT.name: {"parent_contexts": _RELATIVE, "child_contexts": _RELATIVE},
}
_ALIASED = re.compile(r"(contexts|parent_contexts|child_contexts|events)_([0-9A-Za-z_]+)")


class UnknownName(ValueError):
    """There is no such attribute."""


def resolve(kind: Kind, path: list[str]) -> Column:
    """Finds the attribute that a path names.

    Args:
        kind: Of the nodes that are filtered.
        path: `["id"]`, `["properties", "accuracy", "double_value"]`, `["contexts_0", "name"]`.

    Raises:
        UnknownName: There is none; says which there are.
    """
    own, relations = _OWN[kind.name], _RELATIONS[kind.name]
    if len(path) == 1:
        name = path[0].lower()
        if name in own:
            return Column(name, own[name])
        raise UnknownName(f"Unrecognized name: {path[0]}; {kind.name}s have {', '.join(own)}")
    if path[0] in {"properties", "custom_properties"}:
        if len(path) != 3 or path[2] not in _VALUES:
            raise UnknownName(f"Unrecognized name: {'.'.join(path)}; write {path[0]}.NAME.{{{','.join(_VALUES)}}}")
        return Column(path[2], _VALUES[path[2]], Neighbour(path[0], path[1]))
    aliased = _ALIASED.fullmatch(path[0])
    if aliased is None or aliased[1] not in relations:
        known = [*own, "properties.NAME.*", "custom_properties.NAME.*", *(f"{name}_ALIAS.*" for name in relations)]
        raise UnknownName(f"Unrecognized name: {'.'.join(path)}; {kind.name}s have {', '.join(known)}")
    columns = relations[aliased[1]]
    name = path[1].lower()
    if len(path) != 2 or name not in columns:
        raise UnknownName(f"{aliased[1]} have no {'.'.join(path[1:])}, but {', '.join(columns)}")
    return Column(name, columns[name], Neighbour(aliased[1], aliased[2]))


def enumerators(kind: Kind, column: Column) -> dict[str, int]:
    """Gives the names that a state or an event's type can have."""
    if column.neighbour is not None:
        return dict(mlpb.Event.Type.items())
    return dict((mlpb.Artifact.State if kind is ARTIFACT else mlpb.Execution.State).items())
