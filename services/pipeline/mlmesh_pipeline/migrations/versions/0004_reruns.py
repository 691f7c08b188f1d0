"""Which run's outputs a run has taken over."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("runs", sa.Column("rerun_of", sa.String(64), nullable=False, server_default=""))
