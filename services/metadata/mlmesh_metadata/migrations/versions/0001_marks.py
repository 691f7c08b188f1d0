"""Marks: what was built on bad data."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "mlmesh_mark",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("artifact_id", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("creator", sa.String(255), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("undo_time", sa.BigInteger),
        mysql_charset="utf8mb4",
    )
    op.create_table(
        "mlmesh_marked",
        sa.Column("mark_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("node_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("origin", sa.Boolean, nullable=False),
    )
    op.create_index("mlmesh_marked_node", "mlmesh_marked", ["kind", "node_id"])
