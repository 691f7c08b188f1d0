"""Numbers in queries."""

from mlmesh_kit.errors import InvalidArgument
from starlette.requests import Request

_MOST_DIGITS = 9


def number_of(request: Request, name: str) -> int | None:
    """Gives the number that a query has under a name; None: it has none.

    Raises:
        InvalidArgument: It is no number, or one that nothing has.
    """
    asked = request.query_params.get(name, "")
    if not asked:
        return None
    if not (asked.isascii() and asked.isdecimal()) or len(asked) > _MOST_DIGITS:
        raise InvalidArgument(f"must be a number of at most {_MOST_DIGITS} digits", field=name)
    return int(asked)
