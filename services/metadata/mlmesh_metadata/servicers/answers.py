"""Nodes and properties as the lineage service shows them."""

import math
from typing import Any

from google.protobuf import struct_pb2
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import graph_pb2

from mlmesh_metadata.kinds import Kind, Node


def node_message(kind: Kind, node: Node, depth: int = 0) -> graph_pb2.Node:
    """Gives a node as the lineage service shows it."""
    made = graph_pb2.Node(
        kind=kind.name,
        id=node.id,
        type=node.type,
        name=node.name,
        create_time_since_epoch=node.create_time_since_epoch,
        depth=depth,
    )
    if isinstance(node, mlpb.Artifact):
        made.uri = node.uri
        made.state = mlpb.Artifact.State.Name(node.state) if node.HasField("state") else ""
    elif isinstance(node, mlpb.Execution):
        made.state = mlpb.Execution.State.Name(node.last_known_state) if node.HasField("last_known_state") else ""
    for properties in (node.properties, node.custom_properties):
        for name, value in properties.items():
            made.properties[name] = _plain(value)
    return made


def _plain(value: mlpb.Value) -> Any:
    """Gives a value as JSON has it; what JSON has not (packed messages, infinities) as text."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "struct_value":
        return {name: _plain_member(member) for name, member in value.struct_value.fields.items()}
    if kind == "proto_value":
        return value.proto_value.type_url
    return _finite(getattr(value, kind))


def _plain_member(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {name: _plain_member(member) for name, member in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain_member(member) for member in value.list_value.values]
    return None if kind in {None, "null_value"} else _finite(getattr(value, str(kind)))


def _finite(plain: Any) -> Any:
    return str(plain) if isinstance(plain, float) and not math.isfinite(plain) else plain
