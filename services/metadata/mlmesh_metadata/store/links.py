"""Events, attributions, associations and parent contexts."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from mlmesh_kit.errors import AlreadyExists
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.kinds import ARTIFACT, Kind
from mlmesh_metadata.store.rows import chunks, tables_of
from mlmesh_metadata.tables import event_paths, events, parent_contexts


class Crossing(NamedTuple):
    """An event, bare."""

    event_id: int
    artifact_id: int
    execution_id: int
    type: int


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
            result = self._connection.execute(sa.insert(events).values(values))
        except sa.exc.IntegrityError as error:
            said = f"artifact_id {event.artifact_id}, execution_id {event.execution_id}, type {event.type}"
            raise AlreadyExists("event", said, message=f"Given event already exists: {said}") from error
        assert result.inserted_primary_key is not None
        event_id = int(result.inserted_primary_key[0])
        steps = [
            {
                "event_id": event_id,
                "is_index_step": int(step.HasField("index")),
                "step_index": step.index if step.HasField("index") else None,
                "step_key": step.key if step.HasField("key") else None,
            }
            for step in event.path.steps
        ]
        if steps:
            self._connection.execute(sa.insert(event_paths), steps)

    def events_of(self, kind: Kind, ids: Iterable[int]) -> list[mlpb.Event]:
        """Gives the events of artifacts or of executions, in the order in which they were put."""
        return self._events(events.c.artifact_id if kind is ARTIFACT else events.c.execution_id, ids)

    def _events(self, column: sa.Column[int], ids: Iterable[int]) -> list[mlpb.Event]:
        found: dict[int, mlpb.Event] = {}
        for some in chunks(sorted(set(ids))):
            for row in self._connection.execute(sa.select(events).where(column.in_(some))):
                found[row.id] = mlpb.Event(
                    artifact_id=row.artifact_id,
                    execution_id=row.execution_id,
                    type=row.type,
                    milliseconds_since_epoch=row.milliseconds_since_epoch,
                )
        ordered = dict(sorted(found.items()))
        for some in chunks(list(ordered)):
            # A path's steps have no number: like MLMD, we rely on rows coming back in the order they were put.
            for row in self._connection.execute(sa.select(event_paths).where(event_paths.c.event_id.in_(some))):
                step = ordered[row.event_id].path.steps.add()
                if row.is_index_step:
                    step.index = row.step_index
                else:
                    step.key = row.step_key
        return list(ordered.values())

    def crossings(self, kind: Kind, ids: Iterable[int]) -> list[Crossing]:
        """Gives the events of artifacts or of executions, bare: the step of a walk, of which there may be hundreds."""
        column = events.c.artifact_id if kind is ARTIFACT else events.c.execution_id
        found: list[Crossing] = []
        for some in chunks(sorted(ids)):
            if self._connection.dialect.name == "sqlite":
                marks = ",".join("?" * len(some))
                query = f"SELECT id, artifact_id, execution_id, type FROM Event WHERE {column.name} IN ({marks})"  # noqa: S608
                cursor = self._connection.connection.cursor()
                found += map(Crossing._make, cursor.execute(query, tuple(some)))
                cursor.close()
            else:
                rows = sa.select(events.c.id, events.c.artifact_id, events.c.execution_id, events.c.type)
                found += [Crossing(*row) for row in self._connection.execute(rows.where(column.in_(some)))]
        return found

    def events_by_ids(self, ids: Iterable[int]) -> list[mlpb.Event]:
        """Gives events in the order in which they were put."""
        return self._events(events.c.id, ids)

    def join(self, kind: Kind, context_id: int, node_id: int) -> None:
        """Puts an artifact or execution into a context; nothing happens if it is there already."""
        member = tables_of(kind).members
        assert member is not None
        column = member.c[f"{kind.name}_id"]
        there = sa.select(member.c.id).where(member.c.context_id == context_id, column == node_id)
        if self._connection.scalar(there) is None:
            self._connection.execute(sa.insert(member).values({"context_id": context_id, column.name: node_id}))

    def memberships(self, kind: Kind, ids: Iterable[int]) -> list[tuple[int, int]]:
        """Gives (node id, context id) for artifacts or executions."""
        member = tables_of(kind).members
        assert member is not None
        column = member.c[f"{kind.name}_id"]
        found: list[tuple[int, int]] = []
        for some in chunks(sorted(set(ids))):
            query = sa.select(column, member.c.context_id).where(column.in_(some)).order_by(member.c.id)
            found += [(row[0], row[1]) for row in self._connection.execute(query)]
        return found

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
