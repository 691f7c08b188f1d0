"""The databases' full-text engines behind one interface: FTS5, tsvector and InnoDB's FULLTEXT.

All get words of `[a-z0-9_]` (words.py) and conditions as bound parameters.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from mlmesh_metadata.own_tables import search_documents as documents

BREAK = "_"
"""Between two fields of a document: a word that nobody can ask for, so that no phrase goes from one into the other."""


_WORDS: sa.ColumnElement[Any] = sa.literal_column("mlmesh_search_document.words")


class Term(NamedTuple):
    """What a document must have.

    Args:
        words: One, or several that must follow one another.
        prefix: Whether the last need only begin so.
    """

    words: tuple[str, ...]
    prefix: bool = False


class SearchEngine(ABC):
    """Keeps the words of documents and finds them."""

    @abstractmethod
    def insert(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Stores documents: the columns of `search_documents`, and `words`, a list."""

    def delete(self, connection: sa.Connection, kind: int, ids: Sequence[int]) -> None:
        """Removes the documents of nodes, if they are there."""
        connection.execute(sa.delete(documents).where(documents.c.kind == kind, documents.c.node_id.in_(ids)))

    @abstractmethod
    def query(self, terms: Sequence[Term]) -> tuple[sa.FromClause, sa.ColumnElement[bool], sa.ColumnElement[Any]]:
        """Gives where to look, the condition, and how well a document matches (more is better)."""


class _Sqlite(SearchEngine):
    _words = sa.table("mlmesh_search_words", sa.column("rowid", sa.BigInteger), sa.column("words", sa.Text))

    def insert(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        columns = [column.name for column in documents.c]
        connection.execute(sa.insert(documents), [{name: row[name] for name in columns} for row in rows])
        words = [{"rowid": _rowid(row["kind"], row["node_id"]), "words": " ".join(row["words"])} for row in rows]
        connection.execute(sa.insert(self._words), words)

    def delete(self, connection: sa.Connection, kind: int, ids: Sequence[int]) -> None:
        super().delete(connection, kind, ids)
        rowids = [_rowid(kind, node_id) for node_id in ids]
        connection.execute(sa.delete(self._words).where(self._words.c.rowid.in_(rowids)))

    def query(self, terms: Sequence[Term]) -> tuple[sa.FromClause, sa.ColumnElement[bool], sa.ColumnElement[Any]]:
        c = self._words.c
        joined = self._words.join(
            documents,
            sa.and_(documents.c.kind == c.rowid.op("&")(3), documents.c.node_id == c.rowid.op(">>")(2)),
        )
        text = " AND ".join(f'"{" ".join(term.words)}"' + (" *" if term.prefix else "") for term in terms)
        table: sa.ColumnElement[Any] = sa.literal_column("mlmesh_search_words")
        return joined, table.op("MATCH", is_comparison=True)(sa.literal(text)), -sa.func.bm25(table)


def _rowid(kind: int, node_id: int) -> int:
    return node_id << 2 | kind


class _Postgresql(SearchEngine):
    _insert = sa.text(
        "INSERT INTO mlmesh_search_document (kind, node_id, type_id, updated, words) "
        "VALUES (:kind, :node_id, :type_id, :updated, CAST(:words AS tsvector))"
    )

    def insert(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        connection.execute(self._insert, [{**row, "words": self._vector(row["words"])} for row in rows])

    @staticmethod
    def _vector(words: Sequence[str]) -> str:
        """Writes a tsvector: not by `to_tsvector`, whose parser sees numbers, hosts and files where we see words."""
        # 16,383 is the last position that there is. Documents are shorter (searching.py).
        return " ".join(f"'{word}':{number}" for number, word in enumerate(words, 1) if word != BREAK)

    def query(self, terms: Sequence[Term]) -> tuple[sa.FromClause, sa.ColumnElement[bool], sa.ColumnElement[Any]]:
        phrases = [" <-> ".join(f"'{word}'" for word in term.words) + (":*" if term.prefix else "") for term in terms]
        query = sa.cast(sa.literal(" & ".join(f"({phrase})" for phrase in phrases)), postgresql.TSQUERY)
        return documents, _WORDS.op("@@", is_comparison=True)(query), sa.func.ts_rank(_WORDS, query)


class _Mariadb(SearchEngine):
    """InnoDB leaves out words of less than three letters and stop words. Each of ours begins with `zq`, so it has none.

    It decides which documents have all words and how well they match; that words follow one another is looked up in
    the text.
    """

    _mark = "zq"
    _insert = sa.text(
        "INSERT INTO mlmesh_search_document (kind, node_id, type_id, updated, words) "
        "VALUES (:kind, :node_id, :type_id, :updated, :words)"
    )

    def insert(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        connection.execute(self._insert, [{**row, "words": f" {self._marked(row['words'])} "} for row in rows])

    def _marked(self, words: Sequence[str]) -> str:
        return " ".join(self._mark + word for word in words)

    def query(self, terms: Sequence[Term]) -> tuple[sa.FromClause, sa.ColumnElement[bool], sa.ColumnElement[Any]]:
        wanted, phrases = [], []
        for term in terms:
            wanted += [f"+{self._mark}{word}" for word in term.words]
            if term.prefix:
                wanted[-1] += "*"
            if len(term.words) > 1:
                phrases.append(f" {self._marked(term.words)}" + ("" if term.prefix else " "))
        match = mysql.match(_WORDS, against=sa.literal(" ".join(wanted)), in_boolean_mode=True)
        adjacent = (sa.func.locate(phrase, _WORDS) > 0 for phrase in phrases)
        return documents, sa.and_(match, *adjacent), match


ENGINES: dict[str, SearchEngine] = {"sqlite": _Sqlite(), "postgresql": _Postgresql(), "mysql": _Mariadb()}
ENGINES["mariadb"] = ENGINES["mysql"]
