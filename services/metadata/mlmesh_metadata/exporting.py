"""Everything that is stored, as lines; page by page, and as it was at one moment."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import Message
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.clock import now_ms
from mlmesh_metadata.jsonlines import END, HEADER, VERSION, encode, to_line
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, INPUTS, Kind
from mlmesh_metadata.openlineage import Crossed, run_event
from mlmesh_metadata.store import Session, Store
from mlmesh_metadata.store.exchange import ExchangeRows
from mlmesh_metadata.tombstones import tombstone_message, tombstones_of


def export_jsonl(store: Store) -> Iterator[bytes]:
    """Gives all types, nodes and links, in an order in which each line comes after what it names.

    The transaction lasts until the last page is taken or the generator is closed.
    """
    with store.read() as session:
        rows = ExchangeRows(session.connection)
        rows.freeze()
        yield encode({"kind": HEADER, "version": VERSION, "store": rows.store_id(), "time_since_epoch": now_ms()})
        counts: Counter[str] = Counter()
        for kind, found in _messages(session, rows):
            counts[kind] += len(found)
            yield b"".join(to_line(kind, message) for message in found)
        yield encode({"kind": END, "counts": dict(counts)})


def _messages(session: Session, rows: ExchangeRows) -> Iterator[tuple[str, list[Message]]]:
    for kind in (ARTIFACT, EXECUTION, CONTEXT):
        yield f"{kind.name}_type", [*session.types.all(kind)]
    for kind in (CONTEXT, ARTIFACT, EXECUTION):
        for ids in rows.node_ids(kind):
            nodes = session.nodes.by_ids(kind, ids)
            yield kind.name, [*nodes]
            found = tombstones_of(session, kind, nodes).values()
            types = session.tombstones.type_names(found)
            yield "tombstone", [tombstone_message(row, types[row.kind, row.node_id]) for row in found]
    for ids in rows.node_ids(CONTEXT):
        pairs = session.links.parents_of(ids)
        yield "parent_context", [mlpb.ParentContext(child_id=child, parent_id=parent) for child, parent in pairs]
    for ids in rows.event_ids():
        yield "event", [*session.links.events_by_ids(ids)]
    for pairs in rows.memberships(ARTIFACT):
        yield "attribution", [mlpb.Attribution(context_id=context, artifact_id=node) for context, node in pairs]
    for pairs in rows.memberships(EXECUTION):
        yield "association", [mlpb.Association(context_id=context, execution_id=node) for context, node in pairs]


def export_openlineage(store: Store) -> Iterator[bytes]:
    """Gives all executions as OpenLineage's RunEvents. What no execution used or made is not in them."""
    with store.read() as session:
        rows = ExchangeRows(session.connection)
        rows.freeze()
        store_id = rows.store_id()
        for ids in rows.node_ids(EXECUTION):
            yield b"".join(encode(event) for event in _run_events(session, store_id, ids))


def _run_events(session: Session, store_id: str, ids: list[int]) -> Iterator[dict[str, Any]]:
    executions = session.nodes.by_ids(EXECUTION, ids)
    events: dict[int, list[mlpb.Event]] = {}
    for event in session.links.events_of(EXECUTION, ids):
        events.setdefault(event.execution_id, []).append(event)
    memberships: dict[int, list[int]] = {}
    for node_id, context_id in session.links.memberships(EXECUTION, ids):
        memberships.setdefault(node_id, []).append(context_id)
    artifacts = _by_id(session, ARTIFACT, {event.artifact_id for some in events.values() for event in some})
    contexts = _by_id(session, CONTEXT, {context_id for some in memberships.values() for context_id in some})
    for execution in executions:
        assert isinstance(execution, mlpb.Execution)
        crossed = [
            Crossed(event.type in INPUTS, artifacts[event.artifact_id])
            for event in events.get(execution.id, [])
            if event.artifact_id in artifacts
        ]
        within = [contexts[one] for one in memberships.get(execution.id, []) if one in contexts]
        yield run_event(store_id, execution, crossed, within)


def _by_id(session: Session, kind: Kind, ids: Iterable[int]) -> dict[int, Any]:
    return {node.id: node for node in session.nodes.by_ids(kind, ids)}
