"""The tables of ML Metadata, schema version 10: a database that MLMD wrote opens as it is, and the other way round.

Names, columns and indexes are the ones of MLMD 1.17.1 on SQLite; nothing of ours is in these tables.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.sql import quoted_name

SCHEMA_VERSION = 10

metadata = sa.MetaData()

_NAME = sa.String(255)
_LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
_BYTES = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def _unquoted(name: str) -> quoted_name:
    """MLMD does not quote names: PostgreSQL then has them in lower case."""
    return quoted_name(name, quote=False)


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.Integer, primary_key=True, autoincrement=True)


def _times() -> list[sa.Column[int]]:
    return [
        sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
        for name in ("create_time_since_epoch", "last_update_time_since_epoch")
    ]


env = sa.Table(
    _unquoted("MLMDEnv"), metadata, sa.Column("schema_version", sa.Integer, primary_key=True, autoincrement=False)
)

types = sa.Table(
    _unquoted("Type"),
    metadata,
    _id(),
    sa.Column("name", _NAME, nullable=False),
    sa.Column("version", _NAME),
    sa.Column("type_kind", sa.SmallInteger, nullable=False),
    sa.Column("description", _LONG),
    sa.Column("input_type", _LONG),
    sa.Column("output_type", _LONG),
    sa.Column("external_id", _NAME, unique=True),
    sa.Index("idx_type_name", "name"),
    sa.Index("idx_type_external_id", "external_id"),
    sqlite_autoincrement=True,
)
type_properties = sa.Table(
    _unquoted("TypeProperty"),
    metadata,
    sa.Column("type_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", _NAME, primary_key=True),
    sa.Column("data_type", sa.Integer),
)
parent_types = sa.Table(
    _unquoted("ParentType"),
    metadata,
    sa.Column("type_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("parent_type_id", sa.Integer, primary_key=True, autoincrement=False),
)


def _node(name: str, *columns: sa.Column[object], name_required: bool = False) -> sa.Table:
    lower = name.lower()
    return sa.Table(
        _unquoted(name),
        metadata,
        _id(),
        sa.Column("type_id", sa.Integer, nullable=False),
        *columns,
        sa.Column("name", _NAME, nullable=not name_required),
        sa.Column("external_id", _NAME, unique=True),
        *_times(),
        sa.UniqueConstraint("type_id", "name"),
        sa.Index(f"idx_{lower}_create_time_since_epoch", "create_time_since_epoch"),
        sa.Index(f"idx_{lower}_last_update_time_since_epoch", "last_update_time_since_epoch"),
        sa.Index(f"idx_{lower}_external_id", "external_id"),
        sqlite_autoincrement=True,
    )


def _properties(name: str, key: str) -> sa.Table:
    values: list[sa.Column[object]] = [
        sa.Column("int_value", sa.BigInteger),
        sa.Column("double_value", sa.Double),
        sa.Column("string_value", _LONG),
        sa.Column("byte_value", _BYTES),
        sa.Column("proto_value", _BYTES),
        sa.Column("bool_value", sa.Boolean),
    ]
    table = sa.Table(
        _unquoted(f"{name}Property"),
        metadata,
        sa.Column(key, sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", _NAME, primary_key=True),
        sa.Column("is_custom_property", sa.Boolean, primary_key=True),
        *values,
    )
    for column in values[:3]:
        sa.Index(
            f"idx_{name.lower()}_property_{column.name.removesuffix('_value')}",
            table.c.name,
            table.c.is_custom_property,
            column,
            sqlite_where=column.is_not(None),
            mysql_length={"string_value": 255} if column.name == "string_value" else None,
        )
    return table


artifacts = _node("Artifact", sa.Column("uri", _LONG), sa.Column("state", sa.Integer))
sa.Index("idx_artifact_uri", artifacts.c.uri, mysql_length=255)
artifact_properties = _properties("Artifact", "artifact_id")
executions = _node("Execution", sa.Column("last_known_state", sa.Integer))
execution_properties = _properties("Execution", "execution_id")
contexts = _node("Context", name_required=True)
context_properties = _properties("Context", "context_id")

events = sa.Table(
    _unquoted("Event"),
    metadata,
    _id(),
    sa.Column("artifact_id", sa.Integer, nullable=False),
    sa.Column("execution_id", sa.Integer, nullable=False),
    sa.Column("type", sa.Integer, nullable=False),
    sa.Column("milliseconds_since_epoch", sa.BigInteger),
    sa.UniqueConstraint("artifact_id", "execution_id", "type"),
    sa.Index("idx_event_execution_id", "execution_id"),
    sqlite_autoincrement=True,
)
event_paths = sa.Table(
    _unquoted("EventPath"),
    metadata,
    sa.Column("event_id", sa.Integer, nullable=False),
    sa.Column("is_index_step", sa.Boolean, nullable=False),
    sa.Column("step_index", sa.Integer),
    sa.Column("step_key", _LONG),
    sa.Index("idx_eventpath_event_id", "event_id"),
)
associations = sa.Table(
    _unquoted("Association"),
    metadata,
    _id(),
    sa.Column("context_id", sa.Integer, nullable=False),
    sa.Column("execution_id", sa.Integer, nullable=False),
    sa.UniqueConstraint("context_id", "execution_id"),
    sqlite_autoincrement=True,
)
attributions = sa.Table(
    _unquoted("Attribution"),
    metadata,
    _id(),
    sa.Column("context_id", sa.Integer, nullable=False),
    sa.Column("artifact_id", sa.Integer, nullable=False),
    sa.UniqueConstraint("context_id", "artifact_id"),
    sqlite_autoincrement=True,
)
parent_contexts = sa.Table(
    _unquoted("ParentContext"),
    metadata,
    sa.Column("context_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("parent_context_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Index("idx_parentcontext_parent_context_id", "parent_context_id"),
)

# Indexes of ours, beside MLMD's; it does not mind them. The first two are for members that are looked up the other way
# round, the others for pages of a type: without them each page sorts all that there is of it.
added_indexes = [
    sa.Index("mlmesh_association_execution_id", associations.c.execution_id),
    sa.Index("mlmesh_attribution_artifact_id", attributions.c.artifact_id),
    *(
        sa.Index(f"mlmesh_{table.name.lower()}_type_{name}", table.c.type_id, *columns)
        for table in (artifacts, executions, contexts)
        for name, columns in (
            ("id", [table.c.id]),
            ("create_time", [table.c.create_time_since_epoch, table.c.id]),
            ("update_time", [table.c.last_update_time_since_epoch, table.c.id]),
        )
    ),
]

for _table in metadata.tables.values():
    # All characters, and names that differ in case alone differ, as in the other databases. MariaDB reads these, too.
    _table.dialect_kwargs.update(mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin")
