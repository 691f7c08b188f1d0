"""Lines that an export wrote, put into this store: twice is once. See docs/decisions/0029."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlmesh_kit.errors import InvalidArgument, ServiceError, Unavailable
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import tombstone_pb2

from mlmesh_metadata.checks import check_name
from mlmesh_metadata.clock import now_ms
from mlmesh_metadata.jsonlines import END, HEADER, VERSION, Line, parse_line
from mlmesh_metadata.kinds import ARTIFACT, EXECUTION, KINDS, SIMPLE_TYPES, Kind, Node, NodeType
from mlmesh_metadata.links import put_event, put_membership, put_parent
from mlmesh_metadata.marks import MAX_REASON_CHARACTERS
from mlmesh_metadata.nodes import put_node
from mlmesh_metadata.reserved import is_deleted
from mlmesh_metadata.store import Session, Store
from mlmesh_metadata.store.exchange import ExchangeRows
from mlmesh_metadata.store.tombstones import IMPORTED_PREFIX, TombstoneRow
from mlmesh_metadata.typing_rules import put_type

CREATED, UPDATED, UNCHANGED = "created", "updated", "unchanged"
_MAX_STORE_ID = 100
_KINDS = {kind.name: kind for kind in KINDS}
_TYPES = {f"{kind.name}_type": kind for kind in KINDS}


@dataclass
class Summary:
    """What an import did.

    Args:
        lines: Read.
        counts: By what was done and the kind of line.
        complete: Whether the file's last line was its end.
    """

    lines: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    complete: bool = False

    def add(self, other: "Summary") -> None:
        """Takes in what a batch did."""
        self.lines += other.lines
        self.counts.update(other.counts)
        self.complete = other.complete

    def plain(self) -> dict[str, Any]:
        """Gives it as JSON."""
        done: dict[str, dict[str, int]] = {CREATED: {}, UPDATED: {}, UNCHANGED: {}}
        for (what, kind), count in self.counts.items():
            done.setdefault(what, {})[kind] = count
        return {"lines": self.lines, "complete": self.complete, **done}


class Batches(Protocol):
    """Takes a file in batches of lines."""

    def put(self, lines: list[tuple[int, bytes]]) -> Summary:
        """Stores a batch in one transaction.

        Args:
            lines: With their numbers, from 1.

        Raises:
            InvalidArgument: A line is none; its number and field are named, and nothing of the batch is stored.
        """
        ...


def at_line(number: int, error: ServiceError) -> ServiceError:
    """Says of an error in which line it is: that the line is bad, unless the database is just busy."""
    if isinstance(error, Unavailable):
        return error
    field, text = "", error.message
    if isinstance(error, InvalidArgument) and error.violations:
        field, text = error.violations[0]
        field = field.lstrip(".")
    return InvalidArgument(text, field=f"line {number}" + (f", {field}" if field else ""))


class JsonLinesImport:
    """One file of `export_jsonl`.

    A node is the one here that has its external id; else its type and name; a node with neither gets an external id
    that is made of its store and its id there, and is known by that again. What is here is made as the file has it.

    Args:
        store: Where to.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._origin = ""
        self._is_own = False
        self._ids: dict[tuple[str, int], int] = {}

    def put(self, lines: list[tuple[int, bytes]]) -> Summary:
        """See `Batches`."""
        parsed = []
        for number, line in lines:
            try:
                parsed.append((number, self._checked(parse_line(line))))
            except ServiceError as error:
                raise at_line(number, error) from error

        def change(session: Session) -> _Batch:
            batch = _Batch(session, self._origin, self._is_own, self._ids)
            for number, line in parsed:
                try:
                    batch.put(line)
                except ServiceError as error:
                    raise at_line(number, error) from error
            return batch

        batch = self._store.write(change)
        self._ids.update(batch.new_ids)
        return batch.summary

    def _checked(self, line: Line) -> Line:
        if (line.kind == HEADER) == bool(self._origin):
            raise InvalidArgument("the first line, and no other, must be the header", field="kind")
        if line.kind == HEADER:
            origin = line.content.get("store")
            if line.content.get("version") != VERSION:
                raise InvalidArgument(f"must be {VERSION}", field="version")
            if not isinstance(origin, str) or not 0 < len(origin) <= _MAX_STORE_ID or not origin.isprintable():
                raise InvalidArgument("must say which store the file is of", field="store")
            self._origin = origin
            with self._store.read() as session:
                self._is_own = ExchangeRows(session.connection).store_id() == origin
        return line


class _Batch:
    """The lines of one transaction."""

    def __init__(self, session: Session, origin: str, is_own: bool, ids: Mapping[tuple[str, int], int]) -> None:
        self._session = session
        self._rows = ExchangeRows(session.connection)
        self._origin = origin
        self._is_own = is_own
        self._ids = ids
        self._own_prefix = f"{IMPORTED_PREFIX}{self._rows.store_id()}:"
        self._now = now_ms()
        self.new_ids: dict[tuple[str, int], int] = {}
        self.summary = Summary()

    def put(self, line: Line) -> None:
        """Stores what a line has."""
        self.summary.lines += 1
        self.summary.complete = line.kind == END
        if line.kind in {HEADER, END}:
            return
        message = line.content
        if line.kind in _TYPES:
            done = self._put_type(_TYPES[line.kind], message)
        elif line.kind in _KINDS:
            done = self._put_node(_KINDS[line.kind], message)
        elif line.kind == "event":
            done = self._put_event(message)
        elif line.kind == "tombstone":
            done = self._put_tombstone(message)
        elif line.kind == "parent_context":
            done = self._put_parent(message)
        else:
            done = self._put_membership(message)
        self.summary.counts[done, line.kind] += 1

    def _put_type(self, kind: Kind, given: NodeType) -> str:
        name = f"{kind.name}_type"
        if not given.HasField("id"):
            raise InvalidArgument("is required", field="id")
        if given.name in SIMPLE_TYPES:
            raise InvalidArgument("is a type that every store has", field="name")
        wanted = type(given)()
        wanted.CopyFrom(given)  # type: ignore[arg-type]
        stored = self._session.types.find(kind, given.name, given.version)
        wanted.ClearField("id")
        if stored is not None and stored.external_id:
            wanted.external_id = stored.external_id  # each store may have its own
        type_id = put_type(self._session, kind, wanted, can_add_fields=True, can_omit_fields=True, field="")
        self.new_ids[name, given.id] = type_id
        if stored is None:
            return CREATED
        return UPDATED if set(given.properties) - set(stored.properties) else UNCHANGED

    def _put_node(self, kind: Kind, given: Node) -> str:
        if not given.HasField("id"):
            raise InvalidArgument("is required", field="id")
        node = type(given)()
        node.CopyFrom(given)  # type: ignore[arg-type]
        node.type_id = self._type_id(kind, given)
        node.ClearField("type")
        stored = self._stored(kind, node)
        node.ClearField("id")
        if stored is not None:
            node.id = stored.id
            if stored.external_id:
                node.external_id = stored.external_id
            elif node.external_id.startswith(self._own_prefix):
                node.ClearField("external_id")
            if stored.HasField("name") and not node.HasField("name"):
                node.name = stored.name
        for time in ("create_time_since_epoch", "last_update_time_since_epoch"):
            node.ClearField(time)
        if stored is not None:
            node.type = stored.type
        if isinstance(node, mlpb.Artifact) and not node.HasField("uri"):
            node.uri = ""  # which a stored one always has
        if stored is not None and is_deleted(stored):  # an import brings nothing back
            self.new_ids[kind.name, given.id] = stored.id
            return UNCHANGED
        node_id = put_node(self._session, kind, node, now=self._now, field="")
        self.new_ids[kind.name, given.id] = node_id
        if stored is None:
            if 0 < given.create_time_since_epoch < self._now:
                self._rows.set_create_time(kind, node_id, given.create_time_since_epoch)
            return CREATED
        updated = self._session.nodes.stamps(kind, [node_id])[0].updated
        return UNCHANGED if updated == stored.last_update_time_since_epoch else UPDATED

    def _stored(self, kind: Kind, node: Node) -> Node | None:
        """Gives the node here that a line is about; one with nothing to be known by gets an external id."""
        nodes = self._session.nodes
        own = f"{self._own_prefix}{kind.name}:"
        own_id = node.external_id.removeprefix(own) if node.external_id.startswith(own) else ""
        if self._is_own or own_id.isdecimal():  # it is from here, or was here before it was there
            same = nodes.by_ids(kind, [int(own_id[:18]) if own_id.isdecimal() else node.id])
            if same and same[0].type_id == node.type_id and (same[0].name == node.name or is_deleted(same[0])):
                return same[0]
        if not node.external_id and not node.name:
            node.external_id = f"{IMPORTED_PREFIX}{self._origin}:{kind.name}:{node.id}"
        found = nodes.by_external_ids(kind, [node.external_id]) if node.external_id else []
        if found or not node.name:
            return next(iter(found), None)
        return nodes.by_name(kind, node.type_id, node.name)

    def _type_id(self, kind: Kind, given: Node) -> int:
        known = self._id(f"{kind.name}_type", given.type_id)
        if known is not None:
            return known
        if given.type in {name for _, name in kind.bases}:
            found = self._session.types.find(kind, given.type)
            if found is not None:
                return found.id
        raise InvalidArgument(f"is no {kind.name}_type of an earlier line", field="type_id")

    def _id(self, kind: str, old: int) -> int | None:
        return self.new_ids.get((kind, old), self._ids.get((kind, old)))

    def _end(self, kind: str, old: int, field: str) -> int:
        known = self._id(kind, old)
        if known is None:
            raise InvalidArgument(f"is no {kind} of an earlier line: {old}", field=field)
        return known

    def _put_tombstone(self, given: tombstone_pb2.Tombstone) -> str:
        if given.node_kind not in _KINDS:
            raise InvalidArgument(f"must be one of {', '.join(_KINDS)}", field="node_kind")
        check_name(given.node_name, "node_name")
        check_name(given.deleter, "deleter")
        kind = _KINDS[given.node_kind]
        (stored,) = self._session.nodes.by_ids(kind, [self._end(kind.name, given.node_id, "node_id")])
        if is_deleted(stored):
            return UNCHANGED
        at = given.delete_time.ToMilliseconds() if given.HasField("delete_time") else 0
        if not 0 <= at <= self._now:
            raise InvalidArgument("must be a time since 1970 that has been", field="delete_time")
        if len(given.reason) > MAX_REASON_CHARACTERS:
            raise InvalidArgument(f"must be at most {MAX_REASON_CHARACTERS} characters", field="reason")
        row = TombstoneRow(kind.number, stored.id, given.node_name, given.deleter, at or self._now, given.reason)
        self._session.tombstones.bury(kind, [stored], [row], self._now)
        return CREATED

    def _put_event(self, given: mlpb.Event) -> str:
        event = mlpb.Event()
        event.CopyFrom(given)
        event.artifact_id = self._end("artifact", given.artifact_id, "artifact_id")
        event.execution_id = self._end("execution", given.execution_id, "execution_id")
        if self._rows.has_event(event):
            return UNCHANGED
        put_event(self._session, event, self._now, "")
        return CREATED

    def _put_parent(self, given: mlpb.ParentContext) -> str:
        child = self._end("context", given.child_id, "child_id")
        parent = self._end("context", given.parent_id, "parent_id")
        if (child, parent) in self._session.links.parents_of([child]):
            return UNCHANGED
        put_parent(self._session, mlpb.ParentContext(child_id=child, parent_id=parent), "")
        return CREATED

    def _put_membership(self, given: mlpb.Attribution | mlpb.Association) -> str:
        link = type(given)(context_id=self._end("context", given.context_id, "context_id"))
        if isinstance(given, mlpb.Attribution) and isinstance(link, mlpb.Attribution):
            node_id = link.artifact_id = self._end("artifact", given.artifact_id, "artifact_id")
        elif isinstance(given, mlpb.Association) and isinstance(link, mlpb.Association):
            node_id = link.execution_id = self._end("execution", given.execution_id, "execution_id")
        kind = ARTIFACT if isinstance(given, mlpb.Attribution) else EXECUTION
        if self._rows.is_member(kind, link.context_id, node_id):
            return UNCHANGED
        put_membership(self._session, link, "")
        return CREATED
