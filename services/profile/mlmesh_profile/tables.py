"""The tables; migrations/ makes them."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import mysql

metadata = MetaData()


def _text(length: int) -> String:
    """Names are compared byte by byte, on MySQL too, whose default is to ignore case."""
    return String(length).with_variant(mysql.VARCHAR(length, collation="utf8mb4_bin"), "mysql", "mariadb")


_Document = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")  # TEXT ends at 64 KiB there
_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up in INTEGER columns only

profiles = Table(
    "profiles",
    metadata,
    Column("name", _text(63), primary_key=True),
    Column("owner", _text(254), nullable=False),
    Column("uid", String(36), nullable=False, unique=True),
    Column("created_us", BigInteger, nullable=False),
    Column("labels", Text, nullable=False),
    Column("annotations", Text, nullable=False),
    Column("spec", _Document, nullable=False),
    Index("profiles_by_owner", "owner", "created_us", "name"),
)

contributors = Table(
    "contributors",
    metadata,
    Column("namespace", _text(63), ForeignKey("profiles.name", ondelete="CASCADE"), nullable=False),
    Column("user", _text(254), nullable=False),
    Column("role", SmallInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("namespace", "user", "role"),
    Index("contributors_by_user", "user", "namespace", "role", "created_us"),
)

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", _text(254), nullable=False),
    Column("action", String(32), nullable=False),
    Column("namespace", _text(63), nullable=False),
    Column("user", _text(254), nullable=False),
    Column("role", SmallInteger, nullable=True),
    Index("audit_by_namespace", "namespace", "number"),
)

versions = Table(
    "access_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)
