"""The tables of the Katib service."""

import sqlalchemy as sa
from mlmesh_kit.lease import lease_table

METADATA = sa.MetaData()
_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")

EXPERIMENTS = sa.Table(
    "experiments",
    METADATA,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("namespace", sa.String(63), nullable=False),
    sa.Column("name", sa.String(63), nullable=False),
    sa.Column("manifest", sa.Text, nullable=False),
    sa.Column("conditions", sa.Text, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("completed_ms", sa.BigInteger),
    sa.Column("state", sa.Text),
    sa.Column("paused", sa.Boolean),
    sa.Column("best_trial", sa.Integer),  # its number; none, or an experiment that ended before this column was there
    sa.UniqueConstraint("namespace", "name"),
    sa.Index("experiments_active", "active"),
)

TRIALS = sa.Table(
    "trials",
    METADATA,
    sa.Column("experiment_id", _ID, sa.ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(80), nullable=False, index=True),
    sa.Column("assignments", sa.Text, nullable=False),
    sa.Column("conditions", sa.Text, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("observation", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("started_ms", sa.BigInteger),
    sa.Column("completed_ms", sa.BigInteger),
    sa.Column("reference", sa.Text),
    sa.Column("labels", sa.Text),
    sa.Column("ended_order", sa.Integer),
    sa.Column("model_uri", sa.Text),
)

EARLIER_TRIALS = sa.Table(
    "earlier_trials",
    METADATA,
    sa.Column("experiment_id", _ID, sa.ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("trial", sa.Text, nullable=False),
)

OBSERVATION_LOGS = sa.Table(
    "observation_logs",
    METADATA,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("namespace", sa.String(63), nullable=False, server_default=""),  # empty: of no experiment here
    sa.Column("trial_name", sa.String(255), nullable=False),
    sa.Column("time", sa.String(40), nullable=False),
    sa.Column("metric_name", sa.String(255), nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Index("observation_logs_by_trial", "namespace", "trial_name", "metric_name"),
)

OUTBOX = sa.Table(
    "outbox",
    METADATA,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("experiment_id", _ID, nullable=False),
    sa.Column("trial_number", sa.Integer, nullable=False),
)

LEASES = lease_table(METADATA)
