"""Statements that fail leave nothing open."""

import gc
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from mlmesh_kit.database import create_engine
from mlmesh_metadata.store.prepared import Prepared, insert_of

TABLE = sa.Table(
    "t", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text, unique=True)
)


@pytest.fixture
def connection(tmp_path: Path) -> sa.Connection:
    engine = create_engine(f"sqlite:///{tmp_path}/t.db")
    TABLE.metadata.create_all(engine)
    return engine.connect()


def open_cursors() -> list[sqlite3.Cursor]:
    found = []
    for thing in gc.get_objects():
        if issubclass(type(thing), sqlite3.Cursor):  # isinstance asks things themselves, and some raise
            try:
                thing.fetchone()
            except sqlite3.ProgrammingError:  # closed
                continue
            found.append(thing)
    return found


def test_an_error_keeps_no_cursor_open(connection: sa.Connection) -> None:
    """Were it collected later, it would wait for its connection with the interpreter held (see prepared.py)."""
    one, other = insert_of(TABLE, "name"), Prepared(sa.insert(TABLE).values(name=sa.bindparam("name")))
    one.insert(connection, {"name": "a"})
    gc.collect()
    before = len(open_cursors())
    errors = []  # kept, as a traceback in a cycle is
    for statement in (
        lambda: one.insert(connection, {"name": "a"}),
        lambda: other.run_each(connection, [{"name": "b"}, {"name": "a"}]),
        lambda: Prepared(sa.select(sa.column("nothing")).select_from(TABLE)).rows(connection, {}),
    ):
        with pytest.raises(sa.exc.DBAPIError) as caught:
            statement()
        errors.append(caught.value)
    assert len(errors) == 3
    assert len(open_cursors()) == before
