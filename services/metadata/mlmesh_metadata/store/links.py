"""Events, attributions, associations and parent contexts."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from mlmesh_kit.errors import AlreadyExists
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.kinds import ARTIFACT, EXECUTION, Kind
from mlmesh_metadata.store.prepared import PreparedIn, insert_of
from mlmesh_metadata.store.rows import chunks, tables_of
from mlmesh_metadata.tables import event_paths, events, parent_contexts


class Crossing(NamedTuple):
    """An event, bare."""

    event_id: int
    artifact_id: int
    execution_id: int
    type: int


def _events_where(column: sa.Column[int]) -> PreparedIn:
    c = events.c
    return PreparedIn(
        lambda values: sa.select(c.id, c.artifact_id, c.execution_id, c.type, c.milliseconds_since_epoch).where(
            column.in_(values)
        )
    )


_EVENTS_BY_ID = _events_where(events.c.id)
_EVENTS_OF = {
    ARTIFACT.name: _events_where(events.c.artifact_id),
    EXECUTION.name: _events_where(events.c.execution_id),
}
_CROSSINGS: dict[tuple[str, frozenset[int]], PreparedIn] = {}


def _crossings_of(kind: Kind, wanted: frozenset[int]) -> PreparedIn:
    """All that it reads is in the table's unique index."""
    c = events.c
    column = c.artifact_id if kind is ARTIFACT else c.execution_id
    types: list[sa.ColumnElement[int]] = [sa.literal_column(str(number)) for number in sorted(wanted)]
    return PreparedIn(
        lambda values: sa.select(c.id, c.artifact_id, c.execution_id, c.type).where(
            column.in_(values), c.type.in_(types)
        )
    )


_STEPS_OF = PreparedIn(
    lambda values: sa.select(
        event_paths.c.event_id, event_paths.c.is_index_step, event_paths.c.step_index, event_paths.c.step_key
    ).where(event_paths.c.event_id.in_(values))
)
_INSERT_EVENT = insert_of(events, "artifact_id", "execution_id", "type", "milliseconds_since_epoch")
_INSERT_STEP = insert_of(event_paths, "event_id", "is_index_step", "step_index", "step_key")


class LinkRows:
    """Links between nodes, in one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def insert_event(self, event: mlpb.Event, now: int) -> None:
        """Stores an event.

        Args:
            event: Valid.
            now: Milliseconds since the epoch; taken when the event says no time.

        Raises:
            AlreadyExists: There is one of this artifact, execution and type.
        """
        values = {
            "artifact_id": event.artifact_id,
            "execution_id": event.execution_id,
            "type": event.type,
            "milliseconds_since_epoch": event.milliseconds_since_epoch
            if event.HasField("milliseconds_since_epoch")
            else now,
        }
        try:
            event_id = _INSERT_EVENT.insert(self._connection, values)
        except sa.exc.IntegrityError as error:
            said = f"artifact_id {event.artifact_id}, execution_id {event.execution_id}, type {event.type}"
            raise AlreadyExists("event", said, message=f"Given event already exists: {said}") from error
        steps = [
            {
                "event_id": event_id,
                "is_index_step": step.HasField("index"),
                "step_index": step.index if step.HasField("index") else None,
                "step_key": step.key if step.HasField("key") else None,
            }
            for step in event.path.steps
        ]
        _INSERT_STEP.run_each(self._connection, steps)

    def events_of(self, kind: Kind, ids: Iterable[int]) -> list[mlpb.Event]:
        """Gives the events of artifacts or of executions, in the order in which they were put."""
        return self._events(_EVENTS_OF[kind.name], ids)

    def events_by_ids(self, ids: Iterable[int]) -> list[mlpb.Event]:
        """Gives events in the order in which they were put."""
        return self._events(_EVENTS_BY_ID, ids)

    def crossings(self, kind: Kind, ids: Iterable[int], wanted: frozenset[int]) -> list[Crossing]:
        """Gives the events of artifacts or of executions, bare: the step of a walk, of which there may be hundreds.

        Args:
            kind: Artifacts or executions.
            ids: Theirs.
            wanted: Types of events. One artifact may be the input of thousands of executions that nobody asked for.
        """
        query = _CROSSINGS.get((kind.name, wanted))
        if query is None:
            query = _CROSSINGS[kind.name, wanted] = _crossings_of(kind, wanted)
        return [Crossing._make(row) for row in query.rows(self._connection, ids)]

    def _events(self, query: PreparedIn, ids: Iterable[int]) -> list[mlpb.Event]:
        found = {
            row[0]: mlpb.Event(artifact_id=row[1], execution_id=row[2], type=row[3], milliseconds_since_epoch=row[4])
            for row in sorted(query.rows(self._connection, set(ids)))
        }
        # A path's steps have no number: like MLMD, we rely on rows coming back in the order they were put.
        for event_id, by_index, index, key in _STEPS_OF.rows(self._connection, found):
            step = found[event_id].path.steps.add()
            if by_index:
                step.index = index
            else:
                step.key = key
        return list(found.values())

    def join(self, kind: Kind, pairs: Iterable[tuple[int, int]]) -> None:
        """Puts artifacts or executions into contexts; those that are there already stay.

        Args:
            kind: Of the members.
            pairs: (context id, node id).
        """
        owned = tables_of(kind)
        column = owned.member_column.name
        rows = [{"context_id": context_id, column: node_id} for context_id, node_id in pairs]
        owned.join.run_each(self._connection, rows)

    def memberships(self, kind: Kind, ids: Iterable[int]) -> list[tuple[int, int]]:
        """Gives (node id, context id) for artifacts or executions."""
        return [(row[0], row[1]) for row in tables_of(kind).memberships.rows(self._connection, sorted(set(ids)))]

    def insert_parent(self, child_id: int, parent_id: int) -> None:
        """Makes one context the parent of another.

        Raises:
            AlreadyExists: It is already.
        """
        try:
            self._connection.execute(
                sa.insert(parent_contexts).values(context_id=child_id, parent_context_id=parent_id)
            )
        except sa.exc.IntegrityError as error:
            said = f"child_id {child_id}, parent_id {parent_id}"
            message = f"Given parent_context already exists: {said}"
            raise AlreadyExists("parent_context", said, message=message) from error

    def parents_of(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Gives (child, parent) for contexts and their parents."""
        return self._relatives(parent_contexts.c.context_id, ids)

    def children_of(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Gives (child, parent) for contexts and their children."""
        return self._relatives(parent_contexts.c.parent_context_id, ids)

    def _relatives(self, column: sa.Column[int], ids: Sequence[int]) -> list[tuple[int, int]]:
        query = sa.select(parent_contexts.c.context_id, parent_contexts.c.parent_context_id)
        return [
            (row[0], row[1])
            for some in chunks(sorted(set(ids)))
            for row in self._connection.execute(query.where(column.in_(some)))
        ]
