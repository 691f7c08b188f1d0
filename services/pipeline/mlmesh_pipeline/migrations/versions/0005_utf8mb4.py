"""On MySQL and MariaDB: all characters, and names that differ in case alone differ, as in the other databases."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_KEYS = [
    ("pipeline_versions", "pipeline_id", "pipelines", "pipeline_id", "CASCADE"),
    ("pipeline_versions", "spec_digest", "specs", "digest", None),
    ("runs", "spec_digest", "specs", "digest", None),
    ("tasks", "run_id", "runs", "run_id", "CASCADE"),
    ("attempts", "task_id", "tasks", "task_id", "CASCADE"),
    ("events", "run_id", "runs", "run_id", "CASCADE"),
]
"""Of this revision. Written down: a service that is killed here has taken them away, and nothing is undone."""


def upgrade() -> None:
    if op.get_bind().dialect.name not in {"mysql", "mariadb"}:
        return
    found = sa.inspect(op.get_bind())
    tables = found.get_table_names()  # the service has the database to itself
    for table in tables:
        for key in found.get_foreign_keys(table):  # MariaDB converts no column of a foreign key
            op.drop_constraint(key["name"], table, type_="foreignkey")
    for table in tables:
        op.execute(f"ALTER TABLE `{table}` CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    for table, column, other, referred, ondelete in _KEYS:
        op.create_foreign_key(None, table, other, [column], [referred], ondelete=ondelete)
