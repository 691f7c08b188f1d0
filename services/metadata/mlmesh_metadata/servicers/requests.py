"""What all requests have in common."""

from collections.abc import Sequence
from typing import Any, TypeVar

from mlmesh_kit.errors import InvalidArgument, NotFound

T = TypeVar("T")


def check_counts(request: Any, most: int, *fields: str) -> None:
    """Refuses lists that would hold the database for too long.

    Raises:
        InvalidArgument: One of the fields has more than `most` items.
    """
    for field in fields:
        count = len(getattr(request, field))
        if count > most:
            raise InvalidArgument(f"has {count} items, and at most {most} are allowed", field=field)


def some(found: list[T], external_ids: Sequence[str], what: str) -> list[T]:
    """Gives what was found by external ids. Like MLMD: none of those asked for is NOT_FOUND, not an empty list.

    Raises:
        NotFound: There is none.
    """
    if external_ids and not found:
        raise NotFound(what, external_ids[0], message=f"No {what}s found for external_ids.")
    return found
