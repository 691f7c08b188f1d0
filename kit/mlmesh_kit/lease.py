"""Leases: work that one replica at a time holds, for as long as it says it is alive.

The clock is the database's, so replicas on machines with other clocks agree.
"""

from collections.abc import Iterable

import sqlalchemy as sa

from mlmesh_kit.database import run_transaction


def lease_table(metadata: sa.MetaData, name: str = "leases") -> sa.Table:
    """Declares the table of a LeaseStore in a service's metadata."""
    return sa.Table(
        name,
        metadata,
        sa.Column("key", sa.String(191), primary_key=True),
        sa.Column("owner", sa.String(191), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False, index=True),
    )


def _now(dialect: str) -> sa.ColumnElement[float]:
    text = {
        "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
        "postgresql": "extract(epoch from clock_timestamp())",
    }.get(dialect, "unix_timestamp(sysdate(6))")
    return sa.literal_column(text, sa.Float(53))


class LeaseStore:
    """Claims, renews and releases leases.

    Args:
        engine: Of the service's database.
        table: Made by `lease_table`.
    """

    def __init__(self, engine: sa.Engine, table: sa.Table) -> None:
        self._engine = engine
        self._table = table
        self._now = _now(engine.dialect.name)

    def claim(self, key: str, owner: str, ttl_seconds: float) -> bool:
        """Takes the lease if it is free, expired or ours already; tells whether we hold it now.

        Args:
            key: What is worked on.
            owner: Who asks; unique to a process's life.
            ttl_seconds: How long it holds without a renewal.
        """
        table = self._table

        def attempt(connection: sa.Connection) -> bool:
            free = sa.or_(table.c.owner == owner, table.c.expires_at <= self._now)
            taken = connection.execute(
                sa.update(table).where(table.c.key == key, free).values(owner=owner, expires_at=self._now + ttl_seconds)
            )
            if taken.rowcount:
                return True
            if connection.execute(sa.select(table.c.key).where(table.c.key == key)).first():
                return False
            connection.execute(sa.insert(table).values(key=key, owner=owner, expires_at=self._now + ttl_seconds))
            return True

        try:
            return run_transaction(self._engine, attempt)
        except sa.exc.IntegrityError:  # another replica inserted it between our two statements
            return False

    def renew(self, keys: Iterable[str], owner: str, ttl_seconds: float) -> set[str]:
        """Extends the leases that are still ours; gives those. A lease that is missing from the answer is lost."""
        table = self._table
        wanted = list(keys)
        if not wanted:
            return set()

        def attempt(connection: sa.Connection) -> set[str]:
            mine = sa.and_(table.c.key.in_(wanted), table.c.owner == owner)
            connection.execute(sa.update(table).where(mine).values(expires_at=self._now + ttl_seconds))
            return set(connection.scalars(sa.select(table.c.key).where(mine)))

        return run_transaction(self._engine, attempt)

    def release(self, key: str, owner: str) -> None:
        """Gives the lease up, if it is ours."""
        table = self._table
        run_transaction(
            self._engine, lambda c: c.execute(sa.delete(table).where(table.c.key == key, table.c.owner == owner))
        )

    def release_all(self, owner: str) -> None:
        """Gives all leases of an owner up (on shutdown)."""
        table = self._table
        run_transaction(self._engine, lambda c: c.execute(sa.delete(table).where(table.c.owner == owner)))

    def expired(self, prefix: str = "") -> list[str]:
        """Lists the keys whose holder has not renewed in time."""
        table = self._table
        query = sa.select(table.c.key).where(
            table.c.expires_at <= self._now, table.c.key.startswith(prefix, autoescape=True)
        )
        with self._engine.connect() as connection:
            return list(connection.scalars(query))
