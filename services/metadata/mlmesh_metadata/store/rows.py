"""Which tables a kind of node lives in, and lists of ids in SQL."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa

from mlmesh_metadata import tables
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, Kind

T = TypeVar("T")

CHUNK = 500
"""Values in one IN (...): far below every database's limit on parameters."""


@dataclass(frozen=True)
class KindTables:
    """Tables of a kind.

    Args:
        nodes: One row a node.
        properties: One row a property.
        key: Column of `properties` with the node's id.
        members: Where its memberships in contexts are; None for contexts.
    """

    nodes: sa.Table
    properties: sa.Table
    key: sa.Column[int]
    members: sa.Table | None


_TABLES = {
    ARTIFACT.name: KindTables(
        tables.artifacts, tables.artifact_properties, tables.artifact_properties.c.artifact_id, tables.attributions
    ),
    EXECUTION.name: KindTables(
        tables.executions, tables.execution_properties, tables.execution_properties.c.execution_id, tables.associations
    ),
    CONTEXT.name: KindTables(tables.contexts, tables.context_properties, tables.context_properties.c.context_id, None),
}


def tables_of(kind: Kind) -> KindTables:
    """Gives the tables of a kind."""
    return _TABLES[kind.name]


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cuts a list into pieces for IN (...)."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]
