"""Pipeline specifications by the hash of their content."""

import contextlib
import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from mlmesh_pipeline.store.codec import dump, load
from mlmesh_pipeline.tables import specs


def put_spec(connection: Connection, content: dict[str, Any]) -> str:
    """Keeps a specification, once; gives its digest."""
    text = dump(content)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if connection.execute(select(specs.c.digest).where(specs.c.digest == digest)).first() is None:
        with contextlib.suppress(IntegrityError), connection.begin_nested():  # another was first
            connection.execute(insert(specs).values(digest=digest, content=text))
    return digest


def get_spec(connection: Connection, digest: str) -> dict[str, Any]:
    """Gives a specification."""
    found: dict[str, Any] = load(
        connection.execute(select(specs.c.content).where(specs.c.digest == digest)).scalar_one()
    )
    return found


def get_specs(connection: Connection, digests: set[str]) -> dict[str, dict[str, Any]]:
    """Gives specifications by digest."""
    rows = connection.execute(select(specs.c.digest, specs.c.content).where(specs.c.digest.in_(digests)))
    return {digest: load(content) for digest, content in rows}


def sizes_of(connection: Connection, digests: Sequence[str]) -> list[int]:
    """Gives the sizes of specifications; 0 for an empty digest."""
    wanted = {digest for digest in digests if digest}
    rows = connection.execute(select(specs.c.digest, func.length(specs.c.content)).where(specs.c.digest.in_(wanted)))
    found = {digest: int(size) for digest, size in rows}
    return [found.get(digest, 0) for digest in digests]
