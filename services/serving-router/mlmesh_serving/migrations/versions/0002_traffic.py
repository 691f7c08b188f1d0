"""How requests are spread over revisions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("inference_services", sa.Column("traffic", sa.Text))
    op.add_column("inference_services", sa.Column("rolled_out", sa.Integer, nullable=False, server_default="0"))
    op.add_column("inference_services", sa.Column("previous", sa.Integer, nullable=False, server_default="0"))
    op.add_column("inference_services", sa.Column("buckets", sa.Text))
