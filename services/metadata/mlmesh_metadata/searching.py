"""Full-text search over nodes, and how its index follows what is stored.

Nothing tells the index of a change: MLMD writes the same database, so there is nobody to tell it. But every change
moves a node's last_update_time_since_epoch, and that has an index. See docs/decisions/0028.
"""

import re
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from google.protobuf import struct_pb2
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.paging import decode_page_token, encode_page_token
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.clock import now_ms
from mlmesh_metadata.kinds import KINDS, Kind, Node
from mlmesh_metadata.reserved import is_deleted
from mlmesh_metadata.store import Session, Store
from mlmesh_metadata.store.search_engines import BREAK, Term
from mlmesh_metadata.store.search_index import Document, Hit, Progress, SearchIndex
from mlmesh_metadata.words import words_of

MAX_QUERY = 1000
MAX_TERMS = 20
MAX_OFFSET = 10_000
MAX_CHARACTERS = 10_000
"""Of a node that are indexed."""
BATCH = 500
"""Nodes indexed in one transaction: writers wait for it on SQLite."""
NODES_PER_SEARCH = 20_000
SECONDS_PER_SEARCH = 5.0
OVERLAP_MS = 60_000
"""How long before it is visible a change may have got its time: what a transaction lasts, and clocks that differ."""
_SAVE_MS = 60_000
_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')


class Found(NamedTuple):
    """A page of nodes.

    Args:
        nodes: With their kinds, the best first.
        next_page_token: "" at the end.
        complete: Whether the index had everything that is stored.
    """

    nodes: list[tuple[Kind, Node]]
    next_page_token: str
    complete: bool


def parse_query(query: str) -> list[Term]:
    """Reads a query: words, `word*`, "phrases"; all of them must be there.

    A word that punctuation divides (`system.Model`) is a phrase.

    Raises:
        InvalidArgument: Too long, no word in it, a quotation mark or a star where there can be none.
    """
    if len(query) > MAX_QUERY:
        raise InvalidArgument(f"must be at most {MAX_QUERY} characters, not {len(query)}", field="query")
    if query.count('"') % 2:
        raise InvalidArgument('has a phrase without an end: its quotation marks (") must be pairs', field="query")
    terms = []
    for phrase, word in _TERM.findall(query):
        prefix = word.endswith("*")
        if "*" in (word[:-1] if prefix else word):
            raise InvalidArgument(f"has a * within {word!r}: it may only end a word", field="query")
        if prefix and not word[:-1][-1:].isalnum():
            if words_of(word):
                raise InvalidArgument(f"has a * after no word in {word!r}", field="query")
            continue
        words = words_of(phrase or word)
        if words:
            terms.append(Term(tuple(words), prefix))
    if not terms:
        raise InvalidArgument("must have a word: letters or digits", field="query")
    if len(terms) > MAX_TERMS:
        message = f"must have at most {MAX_TERMS} words and phrases, not {len(terms)}"
        raise InvalidArgument(message, field="query")
    return terms


def document_of(node: Node) -> Document:
    """Gives what is indexed of a node: its first `MAX_CHARACTERS` of names, uri, type and properties."""
    words: list[str] = []
    left = 0 if is_deleted(node) else MAX_CHARACTERS
    for text in _texts(node):
        if left <= 0:
            break
        found = words_of(text[:left])
        left -= len(text)
        if found:
            words += [*found, BREAK]
    return Document(node.id, node.type_id, node.last_update_time_since_epoch, words)


def _texts(node: Node) -> Iterator[str]:
    yield node.name
    yield node.external_id
    yield node.type
    if isinstance(node, mlpb.Artifact):
        yield node.uri
    for properties in (node.properties, node.custom_properties):
        for name in sorted(properties):
            yield name
            yield _text(properties[name])


def _text(value: mlpb.Value) -> str:
    field = value.WhichOneof("value")
    if field == "struct_value":
        return " ".join(_leaves(value.struct_value))
    if field == "proto_value":
        return value.proto_value.type_url
    return "" if field is None else str(getattr(value, field))


def _leaves(struct: struct_pb2.Struct) -> Iterator[str]:
    for name, member in struct.fields.items():
        yield name
        yield from _values(member)


def _values(value: struct_pb2.Value) -> Iterator[str]:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        yield from _leaves(value.struct_value)
    elif kind == "list_value":
        for member in value.list_value.values:
            yield from _values(member)
    elif kind not in {None, "null_value"}:
        plain = getattr(value, str(kind))
        yield str(int(plain)) if isinstance(plain, float) and plain.is_integer() else str(plain)


class Search:
    """Searches, and brings the index up to date before.

    Args:
        store: Where everything is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._checked = {kind.name: 0 for kind in KINDS}
        """For each kind: everything that was stored then is indexed."""

    def search(self, query: str, kind: Kind | None, type_name: str, *, size: int, page_token: str) -> Found:
        """Gives a page of the nodes that a query matches.

        Args:
            query: See `parse_query`.
            kind: Only such nodes.
            type_name: Only nodes of types of this name; "" is all.
            size: Nodes on a page.
            page_token: From an earlier answer to the same question.

        Raises:
            InvalidArgument: The query or the token is none.
        """
        terms = parse_query(query)
        if "\0" in type_name:
            raise InvalidArgument("must not have NUL characters", field="type")
        asked = [query, kind.name if kind else "", type_name]
        offset = _offset(page_token, asked)
        complete = self.refresh(NODES_PER_SEARCH)
        while True:
            with self._store.read() as session:
                hits = SearchIndex(session.connection).search(
                    terms, kind=kind, type_name=type_name, offset=offset, limit=size + 1
                )
                found = _load(session, hits)
            missing = [hit for hit in hits if hit not in found]
            if not missing:
                break
            # Deleted since. Without them the pages fit together again.
            self._forget(missing)
        nodes = [found[hit] for hit in hits[:size]]
        end = offset + size
        token = encode_page_token(end, asked) if len(hits) > size and end <= MAX_OFFSET else ""
        return Found(nodes, token, complete)

    def refresh(self, limit: int) -> bool:
        """Indexes what has changed; tells whether the index now has all that was stored when it was called.

        Args:
            limit: Nodes at most.
        """
        began = now_ms()
        deadline = time.monotonic() + SECONDS_PER_SEARCH
        for kind in KINDS:
            while self._checked[kind.name] < began:
                if limit <= 0 or time.monotonic() > deadline:
                    return False
                limit -= self._index_some(kind, min(BATCH, limit))
        return True

    def _index_some(self, kind: Kind, limit: int) -> int:
        """Indexes a part of what has changed; gives how many nodes. After the last part `_checked` moves."""
        now = now_ms()
        checked = self._checked[kind.name]
        with self._store.read() as session:  # most often there is nothing to do: then nobody is kept from writing
            index = SearchIndex(session.connection)
            known = index.progress(kind)
            if not known.started and not index.outdated(kind, _position(known, checked), 1):
                self._checked[kind.name] = max(checked, now)
                if now - known.checked < _SAVE_MS:
                    return 0

        def change(session: Session) -> tuple[int, Progress]:
            index = SearchIndex(session.connection)
            known = index.progress(kind, lock=True)
            found = index.outdated(kind, _position(known, checked), limit)
            nodes = session.nodes.by_ids(kind, [node_id for _, node_id in found])
            index.put(kind, [document_of(node) for node in nodes])
            started = known.started or now
            progress = Progress(started) if len(found) < limit else Progress(known.checked, started, *found[-1])
            index.set_progress(kind, progress)
            return len(found), progress

        count, progress = self._store.write(change)
        self._checked[kind.name] = max(self._checked[kind.name], progress.checked)
        return count

    def _forget(self, hits: Iterable[Hit]) -> None:
        def change(session: Session) -> None:
            index = SearchIndex(session.connection)
            for kind in KINDS:
                # The lock: who indexes a node at this moment would put it back.
                index.progress(kind, lock=True)
                ids = [hit.node_id for hit in hits if hit.kind == kind.number]
                alive = {node.id for node in session.nodes.by_ids(kind, ids) if not is_deleted(node)}
                index.delete(kind, sorted(set(ids) - alive))

        self._store.write(change)


def _position(known: Progress, checked: int) -> tuple[int, int]:
    """Says where a pass goes on or begins: a change gets its time before others can see it."""
    if known.started:
        return known.at_time, known.at_id
    return max(max(known.checked, checked) - OVERLAP_MS, 0), -1


def _load(session: Session, hits: Iterable[Hit]) -> dict[Hit, tuple[Kind, Node]]:
    found = {}
    for kind in KINDS:
        ids = [hit.node_id for hit in hits if hit.kind == kind.number]
        alive = [node for node in session.nodes.by_ids(kind, ids) if not is_deleted(node)]
        found.update({Hit(kind.number, node.id): (kind, node) for node in alive})
    return found


def _offset(token: str, asked: list[str]) -> int:
    position = decode_page_token(token, asked)
    match position:
        case None if not token:
            return 0
        case int(offset) if 0 < offset <= MAX_OFFSET and not isinstance(position, bool):
            return offset
    raise InvalidArgument("must be a token from an earlier answer to the same list request", field="page_token")
