"""Profiles, contributors, the audit log, the access version."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None


def _text(length: int) -> sa.types.TypeEngine:
    return sa.String(length).with_variant(mysql.VARCHAR(length, collation="utf8mb4_bin"), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "profiles",
        sa.Column("name", _text(63), primary_key=True),
        sa.Column("owner", _text(254), nullable=False),
        sa.Column("uid", sa.String(36), nullable=False, unique=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("annotations", sa.Text, nullable=False),
        sa.Column("spec", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
    )
    op.create_index("profiles_by_owner", "profiles", ["owner", "created_us", "name"])
    op.create_table(
        "contributors",
        sa.Column("namespace", _text(63), sa.ForeignKey("profiles.name", ondelete="CASCADE"), nullable=False),
        sa.Column("user", _text(254), nullable=False),
        sa.Column("role", sa.SmallInteger, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "user", "role"),
    )
    op.create_index("contributors_by_user", "contributors", ["user", "namespace", "role", "created_us"])
    op.create_table(
        "audit_entries",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("actor", _text(254), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("namespace", _text(63), nullable=False),
        sa.Column("user", _text(254), nullable=False),
        sa.Column("role", sa.SmallInteger, nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_by_namespace", "audit_entries", ["namespace", "number"])
    versions = op.create_table(
        "access_version",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(versions, [{"id": 1, "version": 1}])
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit_entries "
                "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
            )


def downgrade() -> None:
    for table in ("access_version", "audit_entries", "contributors", "profiles"):
        op.drop_table(table)
