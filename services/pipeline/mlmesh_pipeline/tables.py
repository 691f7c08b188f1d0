"""The tables. JSON is kept as text, so that every database keeps it alike; times are microseconds."""

from mlmesh_kit.lease import lease_table
from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql

metadata = MetaData()
_Id = String(64)
_Name = String(255)
_Long = Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def _time(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


experiments = Table(
    "experiments",
    metadata,
    Column("experiment_id", _Id, primary_key=True),
    Column("namespace", _Name, nullable=False),
    Column("display_name", _Name, nullable=False),
    Column("description", _Long, nullable=False),
    _time("created_at"),
    Column("storage_state", String(16), nullable=False),
    _time("last_run_created_at"),
    UniqueConstraint("namespace", "display_name", name="uq_experiment_name"),
)

pipelines = Table(
    "pipelines",
    metadata,
    Column("pipeline_id", _Id, primary_key=True),
    Column("namespace", _Name, nullable=False),
    Column("name", _Name, nullable=False),
    Column("display_name", _Name, nullable=False),
    Column("description", _Long, nullable=False),
    _time("created_at"),
    Column("tags", _Long, nullable=False),
    UniqueConstraint("namespace", "name", name="uq_pipeline_name"),
)

specs = Table(
    "specs",
    metadata,
    Column("digest", _Id, primary_key=True),
    Column("content", _Long, nullable=False),
)
"""Pipeline specifications by the hash of their content: runs and versions of one pipeline share one."""

pipeline_versions = Table(
    "pipeline_versions",
    metadata,
    Column("version_id", _Id, primary_key=True),
    Column("pipeline_id", _Id, ForeignKey("pipelines.pipeline_id", ondelete="CASCADE"), nullable=False),
    Column("name", _Name, nullable=False),
    Column("display_name", _Name, nullable=False),
    Column("description", _Long, nullable=False),
    _time("created_at"),
    Column("spec_digest", _Id, ForeignKey("specs.digest"), nullable=False),
    Column("package_url", Text, nullable=False),
    Column("code_source_url", Text, nullable=False),
    Column("tags", _Long, nullable=False),
    UniqueConstraint("pipeline_id", "name", name="uq_version_name"),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", _Id, primary_key=True),
    Column("namespace", _Name, nullable=False),
    Column("experiment_id", _Id, nullable=False),
    Column("display_name", _Name, nullable=False),
    Column("description", _Long, nullable=False),
    Column("storage_state", String(16), nullable=False),
    Column("pipeline_id", _Id, nullable=False),
    Column("version_id", _Id, nullable=False),
    Column("pipeline_name", _Name, nullable=False),
    Column("spec_digest", _Id, ForeignKey("specs.digest"), nullable=False),
    Column("parameters", _Long, nullable=False),
    Column("pipeline_root", Text, nullable=False),
    Column("service_account", _Name, nullable=False),
    Column("creator", _Name, nullable=False),
    _time("created_at"),
    _time("finished_at"),
    Column("state", String(16), nullable=False),
    Column("problem", _Long, nullable=False),
    Column("plugins_input", _Long, nullable=False),
    Column("pipeline_context_id", BigInteger, nullable=False, server_default="0"),
    Column("run_context_id", BigInteger, nullable=False, server_default="0"),
    Column("recurring_run_id", _Id, nullable=False, server_default=""),
    _time("scheduled_at"),
    Column("rerun_of", _Id, nullable=False, server_default=""),
    Index("ix_runs_recurring", "recurring_run_id", "state"),
    Index("ix_runs_created", "namespace", "created_at", "run_id"),
    Index("ix_runs_experiment", "experiment_id", "created_at", "run_id"),
    Index("ix_runs_state", "state"),
)

recurring_runs = Table(
    "recurring_runs",
    metadata,
    Column("recurring_run_id", _Id, primary_key=True),
    Column("namespace", _Name, nullable=False),
    Column("experiment_id", _Id, nullable=False),
    Column("display_name", _Name, nullable=False),
    Column("description", _Long, nullable=False),
    Column("pipeline_id", _Id, nullable=False),
    Column("version_id", _Id, nullable=False),
    Column("spec_digest", _Id, nullable=False),
    Column("parameters", _Long, nullable=False),
    Column("pipeline_root", Text, nullable=False),
    Column("service_account", _Name, nullable=False),
    Column("creator", _Name, nullable=False),
    Column("plugins_input", _Long, nullable=False),
    Column("max_concurrency", Integer, nullable=False),
    Column("no_catchup", Integer, nullable=False),
    Column("cron", Text, nullable=False),
    Column("interval_seconds", BigInteger, nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("enabled", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("last_scheduled", BigInteger, nullable=False),
    Column("last_index", BigInteger, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("problem", _Long, nullable=False),
    Index("ix_recurring_runs_due", "enabled", "next_at"),
    Index("ix_recurring_runs_created", "namespace", "created_at", "recurring_run_id"),
)
"""`starts_at`, `ends_at`, `last_scheduled` and `next_at` are whole seconds."""

tasks = Table(
    "tasks",
    metadata,
    Column("task_id", _Id, primary_key=True),
    Column("run_id", _Id, ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False),
    Column("path", String(2000), nullable=False),
    Column("path_digest", _Id, nullable=False),
    Column("name", _Name, nullable=False),
    Column("display_name", _Name, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("parent_id", _Id, nullable=False),
    Column("iteration", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    _time("created_at"),
    _time("started_at"),
    _time("finished_at"),
    Column("inputs", _Long, nullable=False),
    Column("outputs", _Long, nullable=False),
    Column("problem", _Long, nullable=False),
    Column("fingerprint", _Id, nullable=False),
    Column("cached_from", _Id, nullable=False),
    Column("upstream", _Long, nullable=False),
    Column("execution_id", BigInteger, nullable=False, server_default="0"),
    Column("position", Integer, nullable=False),
    UniqueConstraint("run_id", "path_digest", name="uq_task_path"),
    Index("ix_tasks_run", "run_id", "position"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("attempt_id", _Id, primary_key=True),
    Column("task_id", _Id, ForeignKey("tasks.task_id", ondelete="CASCADE"), nullable=False),
    Column("run_id", _Id, nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("owner", _Id, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Float(53), nullable=False),
    _time("started_at"),
    _time("finished_at"),
    Column("exit_code", Integer, nullable=True),
    Column("message", _Long, nullable=False),
    Column("pod", _Name, nullable=False, server_default=""),
    UniqueConstraint("task_id", "number", name="uq_attempt_number"),
    Index("ix_attempts_run", "run_id", "state"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("artifact_id", _Id, primary_key=True),
    Column("run_id", _Id, nullable=False),
    Column("task_id", _Id, nullable=False),
    Column("metadata_id", BigInteger, nullable=False, server_default="0"),
    Index("ix_artifacts_run", "run_id"),
)
"""Only what changes after an artifact was written; the rest is in its task's outputs."""

events = Table(
    "events",
    metadata,
    Column("event_id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("run_id", _Id, ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False),
    Column("task_id", _Id, nullable=False),
    _time("at"),
    Column("state", String(16), nullable=False),
    Column("problem", _Long, nullable=False),
    Index("ix_events_run", "run_id", "event_id"),
)

cache = Table(
    "cache",
    metadata,
    Column("fingerprint", _Id, primary_key=True),
    Column("namespace", _Name, nullable=False),
    Column("run_id", _Id, nullable=False),
    Column("task_id", _Id, nullable=False),
    Column("outputs", _Long, nullable=False),
    _time("created_at"),
    Index("ix_cache_run", "run_id"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("outbox_id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("run_id", _Id, nullable=False),
    Column("task_id", _Id, nullable=False),
    _time("created_at"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("last_error", _Long, nullable=False),
)
"""What the metadata store has yet to be told: a run (`task_id` empty) or a task whose state has changed."""

leases = lease_table(metadata)

for _table in metadata.tables.values():
    # All characters, and names that differ in case alone differ, as in the other databases. MariaDB reads these, too.
    _table.dialect_kwargs.update(mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin")
