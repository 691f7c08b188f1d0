"""Full-text index: documents, passes, lease; the words in the database's own engine."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "0002"
down_revision = "0001"

_INNODB = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    words = {
        "sqlite": [],
        "postgresql": [sa.Column("words", postgresql.TSVECTOR(), nullable=False)],
    }.get(dialect, [sa.Column("words", mysql.MEDIUMTEXT(charset="ascii", collation="ascii_bin"), nullable=False)])
    op.create_table(
        "mlmesh_search_document",
        sa.Column("kind", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("node_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("type_id", sa.Integer(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        *words,
        **_INNODB,
    )
    if dialect == "sqlite":
        op.execute(
            "CREATE VIRTUAL TABLE mlmesh_search_words "
            "USING fts5(words, tokenize = \"ascii tokenchars '_'\", prefix = '2 3')"
        )
    elif dialect == "postgresql":
        op.create_index("ix_mlmesh_search_words", "mlmesh_search_document", ["words"], postgresql_using="gin")
    else:
        op.create_index("ix_mlmesh_search_words", "mlmesh_search_document", ["words"], mysql_prefix="FULLTEXT")
    passes = op.create_table(
        "mlmesh_search_pass",
        sa.Column("kind", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("checked", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("at_time", sa.BigInteger(), nullable=False),
        sa.Column("at_id", sa.Integer(), nullable=False),
        **_INNODB,
    )
    op.bulk_insert(passes, [{"kind": kind, "checked": 0, "started": 0, "at_time": 0, "at_id": 0} for kind in range(3)])
    op.create_table(
        "mlmesh_search_lease",
        sa.Column("key", sa.String(191), primary_key=True),
        sa.Column("owner", sa.String(191), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        **_INNODB,
    )
    op.create_index("ix_mlmesh_search_lease_expires_at", "mlmesh_search_lease", ["expires_at"])
