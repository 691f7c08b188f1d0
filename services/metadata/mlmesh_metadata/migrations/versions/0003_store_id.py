"""What tells this store from others: nodes that are imported elsewhere are known by it again."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    table = op.create_table(
        "mlmesh_store",
        sa.Column("id", sa.String(36), primary_key=True),
        mysql_charset="utf8mb4",
    )
    op.bulk_insert(table, [{"id": str(uuid.uuid4())}])
