"""Requests to end trials early, for the replica that runs them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    if sa.inspect(op.get_bind()).has_table("stop_requests"):  # MySQL keeps it when an upgrade is killed halfway
        return
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "stop_requests",
        sa.Column("experiment_id", big, sa.ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("trial_name", sa.String(80), primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
    )
