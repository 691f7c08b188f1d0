"""The best trial of an experiment, so that lists need not read all trials."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    columns = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("experiments")}
    if "best_trial" not in columns:  # MySQL keeps it when an upgrade is killed halfway
        op.add_column("experiments", sa.Column("best_trial", sa.Integer))
