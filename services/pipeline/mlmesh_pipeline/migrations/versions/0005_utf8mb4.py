"""On MySQL and MariaDB: all characters, and names that differ in case alone differ, as in the other databases."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    if op.get_bind().dialect.name not in {"mysql", "mariadb"}:
        return
    found = sa.inspect(op.get_bind())
    tables = found.get_table_names()  # the service has the database to itself
    keys = [(table, key) for table in tables for key in found.get_foreign_keys(table)]
    for table, key in keys:  # MariaDB converts no column of a foreign key
        op.drop_constraint(key["name"], table, type_="foreignkey")
    for table in tables:
        op.execute(f"ALTER TABLE `{table}` CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    for table, key in keys:
        op.create_foreign_key(
            key["name"],
            table,
            key["referred_table"],
            key["constrained_columns"],
            key["referred_columns"],
            ondelete=key["options"].get("ondelete"),
        )
