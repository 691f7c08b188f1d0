"""What a list request asks for: a filter, an order, a page."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from mlmesh_kit.errors import InvalidArgument

T = TypeVar("T")
DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 200
MAX_PREDICATES = 50


class Operation(StrEnum):
    """How a field is compared with a value (`Predicate.Operation` of the API)."""

    EQUALS = "EQUALS"
    NOT_EQUALS = "NOT_EQUALS"
    GREATER_THAN = "GREATER_THAN"
    GREATER_THAN_EQUALS = "GREATER_THAN_EQUALS"
    LESS_THAN = "LESS_THAN"
    LESS_THAN_EQUALS = "LESS_THAN_EQUALS"
    IN = "IN"
    IS_SUBSTRING = "IS_SUBSTRING"


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition on a field.

    Attributes:
        key: The field.
        operation: How it is compared.
        value: A string, a number or a list of either.
        whole_seconds: Whether numbers are seconds since 1970, and not microseconds.
    """

    key: str
    operation: Operation
    value: Any
    whole_seconds: bool = False


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A list request.

    Attributes:
        predicates: All must hold.
        sort_by: `field`, `field asc` or `field desc`; empty: by creation.
        page_size: 1 to 200.
        page_token: Where the page begins; empty: at the beginning.
    """

    predicates: tuple[Predicate, ...] = ()
    sort_by: str = ""
    page_size: int = DEFAULT_PAGE_SIZE
    page_token: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list."""

    items: list[T] = field(default_factory=list)
    total_size: int = 0
    next_page_token: str = ""


def page_size_of(asked: int) -> int:
    """Gives the size of a page: 20 where none is asked for, never more than 200.

    Raises:
        InvalidArgument: It is negative.
    """
    if asked < 0:
        raise InvalidArgument("must not be negative", field="page_size")
    return min(asked or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
