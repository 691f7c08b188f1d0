"""Whose trial an observation log is of: trials of one name in two namespaces no longer share theirs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


_INDEX = "observation_logs_by_trial"
_COLUMNS = ["namespace", "trial_name", "metric_name"]


def upgrade() -> None:
    # What changes the table comes first and is done once: MySQL keeps it when an upgrade is killed halfway.
    connection = op.get_bind()
    found = sa.inspect(connection)
    if "namespace" not in {column["name"] for column in found.get_columns("observation_logs")}:
        op.add_column("observation_logs", sa.Column("namespace", sa.String(63), nullable=False, server_default=""))
    indices = {index["name"]: index["column_names"] for index in found.get_indexes("observation_logs")}
    if indices.get(_INDEX) != _COLUMNS:
        if _INDEX in indices:
            op.drop_index(_INDEX, "observation_logs")
        op.create_index(_INDEX, "observation_logs", _COLUMNS)
    connection.execute(_COPY)
    connection.execute(_ASSIGN)


_EXPERIMENTS = sa.table("experiments", sa.column("id"), sa.column("namespace"))
_TRIALS = sa.table("trials", sa.column("experiment_id"), sa.column("name"))
_LOGS = sa.table(
    "observation_logs", *(sa.column(name) for name in ("id", "namespace", "trial_name", "time", "metric_name", "value"))
)
_OWNERS = sa.join(_TRIALS, _EXPERIMENTS, _EXPERIMENTS.c.id == _TRIALS.c.experiment_id)


def _first_owner(trial_name: sa.ColumnElement[str]) -> sa.ScalarSelect[str]:
    query = sa.select(sa.func.min(_EXPERIMENTS.c.namespace)).select_from(_OWNERS).where(_TRIALS.c.name == trial_name)
    return query.scalar_subquery()


# What trials of several namespaces shared cannot be told apart any more: each keeps all of it, as it had.
_NAMES = _TRIALS.alias("named")
_HOLDERS = _EXPERIMENTS.alias("holders")
_COPY = sa.insert(_LOGS).from_select(
    ["namespace", "trial_name", "time", "metric_name", "value"],
    sa.select(_HOLDERS.c.namespace, _LOGS.c.trial_name, _LOGS.c.time, _LOGS.c.metric_name, _LOGS.c.value)
    .select_from(
        sa.join(_LOGS, _NAMES, _NAMES.c.name == _LOGS.c.trial_name).join(
            _HOLDERS, _HOLDERS.c.id == _NAMES.c.experiment_id
        )
    )
    .where(_HOLDERS.c.namespace > _first_owner(_LOGS.c.trial_name))
    .order_by(_LOGS.c.id),
)
_ASSIGN = (
    sa.update(_LOGS)
    .where(_LOGS.c.namespace == "", _LOGS.c.trial_name.in_(sa.select(_TRIALS.c.name)))
    .values(namespace=_first_owner(_LOGS.c.trial_name))
)
