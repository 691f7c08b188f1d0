"""The model that a trial has made."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    columns = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("trials")}
    if "model_uri" not in columns:  # MySQL keeps it when an upgrade is killed halfway
        op.add_column("trials", sa.Column("model_uri", sa.Text))
