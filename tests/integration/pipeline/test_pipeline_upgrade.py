"""An upgrade that is killed halfway, where changes of tables cannot be undone."""

import pytest
import sqlalchemy as sa
from alembic import op
from mlmesh_kit.database import create_engine, migrate
from support.databases import Server


def keys_of(engine: sa.Engine) -> set[tuple[str, ...]]:
    found = sa.inspect(engine)
    return {
        (table, *key["constrained_columns"], key["referred_table"], key["options"].get("ondelete", ""))
        for table in found.get_table_names()
        for key in found.get_foreign_keys(table)
    }


def test_an_upgrade_that_was_killed_is_ended_by_the_next(
    mariadb_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halfway = (create_engine(mariadb_server.make_database()) for _ in range(2))
    migrate(whole, "mlmesh_pipeline")
    execute, converted = op.execute, []

    def killed(statement: str) -> None:
        converted.append(statement)
        if len(converted) == 3:
            raise KeyboardInterrupt
        execute(statement)

    monkeypatch.setattr(op, "execute", killed)
    with pytest.raises(KeyboardInterrupt):
        migrate(halfway, "mlmesh_pipeline")
    monkeypatch.undo()
    migrate(halfway, "mlmesh_pipeline")
    assert len(keys_of(whole)) == 6
    assert keys_of(halfway) == keys_of(whole)
    for engine in (whole, halfway):
        engine.dispose()
