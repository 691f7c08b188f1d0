"""Tables of ours beside MLMD's: marks, the search index, tombstones, retention. MLMD does not mind them.

They are made by migrations/versions.
"""

import sqlalchemy as sa
from mlmesh_kit.lease import lease_table

metadata = sa.MetaData()

marks = sa.Table(
    "mlmesh_mark",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("artifact_id", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("creator", sa.String(255), nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("undo_time", sa.BigInteger),
)
"""Times are in milliseconds since the epoch; undo_time is NULL while the mark stands."""

marked = sa.Table(
    "mlmesh_marked",
    metadata,
    sa.Column("mark_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("node_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("origin", sa.Boolean, nullable=False),
    sa.Index("mlmesh_marked_node", "kind", "node_id"),
)
"""Which nodes a mark is on; `kind` is MLMD's number of the kind."""

search_documents = sa.Table(
    "mlmesh_search_document",
    metadata,
    sa.Column("kind", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("node_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("type_id", sa.Integer, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
)
"""One row a node that is indexed, as it was at `updated`, its last_update_time_since_epoch. The words are in one more
column, or, on SQLite, in the table `mlmesh_search_words`: see store/search_engines.py."""

search_passes = sa.Table(
    "mlmesh_search_pass",
    metadata,
    sa.Column("kind", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("checked", sa.BigInteger, nullable=False),
    sa.Column("started", sa.BigInteger, nullable=False),
    sa.Column("at_time", sa.BigInteger, nullable=False),
    sa.Column("at_id", sa.Integer, nullable=False),
)
"""How far the index is: `checked`, when the last complete pass began; and where the open one is (`started` > 0)."""

search_leases = lease_table(metadata, "mlmesh_search_lease")

store = sa.Table("mlmesh_store", metadata, sa.Column("id", sa.String(36), primary_key=True))
"""One row: a UUID, made with the table, that tells this store from others."""

tombstones = sa.Table(
    "mlmesh_tombstone",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("node_id", sa.Integer, nullable=False),
    sa.Column("node_name", sa.String(255), nullable=False),
    sa.Column("deleter", sa.String(255), nullable=False),
    sa.Column("delete_time", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.UniqueConstraint("kind", "node_id"),
)
"""What was deleted; times are in milliseconds since the epoch, here and below."""

retention_policies = sa.Table(
    "mlmesh_retention_policy",
    metadata,
    sa.Column("id", sa.String(63), primary_key=True),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("type", sa.String(255), nullable=False),
    sa.Column("filter", sa.Text, nullable=False),
    sa.Column("older_than_ms", sa.BigInteger, nullable=False),
    sa.Column("keep_latest", sa.Integer, nullable=False),
    sa.Column("latest_in", sa.String(255), nullable=False),
    sa.Column("include_used", sa.Boolean, nullable=False),
    sa.Column("creator", sa.String(255), nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("update_time", sa.BigInteger, nullable=False),
)
"""Rules; 0 and "" are what is not said."""

retention_plans = sa.Table(
    "mlmesh_retention_plan",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("creator", sa.String(255), nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("expire_time", sa.BigInteger, nullable=False),
    sa.Column("apply_time", sa.BigInteger),
    sa.Column("truncated", sa.Boolean, nullable=False),
    sqlite_autoincrement=True,
)
"""Dry runs, whose numbers are never given again; apply_time is NULL until the last item has its outcome."""

retention_items = sa.Table(
    "mlmesh_retention_item",
    metadata,
    sa.Column("plan_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("node_id", sa.Integer, nullable=False),
    sa.Column("type", sa.String(255), nullable=False),
    sa.Column("node_name", sa.String(255), nullable=False),
    sa.Column("policy", sa.String(63), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("include_used", sa.Boolean, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sa.Column("outcome", sa.SmallInteger, nullable=False),
)
"""Nodes of dry runs: `updated` is the node's last_update_time_since_epoch, `outcome` a number of RetentionOutcome."""
