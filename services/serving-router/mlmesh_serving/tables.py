"""The tables of the serving router."""

import sqlalchemy as sa

METADATA = sa.MetaData()

INFERENCE_SERVICES = sa.Table(
    "inference_services",
    METADATA,
    sa.Column("namespace", sa.String(63), primary_key=True),
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("manifest", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("unloaded", sa.Boolean, nullable=False),
    sa.Column("traffic", sa.Text),
    sa.Column("rolled_out", sa.Integer, nullable=False, server_default="0"),
    sa.Column("previous", sa.Integer, nullable=False, server_default="0"),
    sa.Column("buckets", sa.Text),
)

REVISIONS = sa.Table(
    "revisions",
    METADATA,
    sa.Column("namespace", sa.String(63), primary_key=True),
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("manifest", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
)
