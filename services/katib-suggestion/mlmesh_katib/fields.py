"""Values of a manifest, checked; errors name the field."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlmesh_kit.errors import InvalidArgument

MAX_METRIC_NAME = 200


def as_object(value: Any, field: str) -> Mapping[str, Any]:
    """Gives an object, or raises InvalidArgument."""
    if not isinstance(value, Mapping):
        raise InvalidArgument("must be an object", field=field)
    return value


def as_list(value: Any, field: str) -> Sequence[Any]:
    """Gives a list, or raises InvalidArgument."""
    if not isinstance(value, list):
        raise InvalidArgument("must be a list", field=field)
    return value


def as_text(value: Any, field: str) -> str:
    """Gives a non-empty text, or raises InvalidArgument."""
    if not isinstance(value, str) or not value:
        raise InvalidArgument("must be a non-empty string", field=field)
    return value


def as_count(value: Any, field: str, *, default: int, smallest: int) -> int:
    """Gives a whole number, or raises InvalidArgument."""
    if value is None:
        return default
    if not is_number(value) or value != int(value) or value < smallest:
        raise InvalidArgument(f"must be a whole number of at least {smallest}", field=field)
    return int(value)


def as_metric(value: Any, field: str) -> str:
    """Gives the name of a metric, or raises InvalidArgument."""
    name = as_text(value, field)
    if len(name) > MAX_METRIC_NAME:
        raise InvalidArgument(f"must be at most {MAX_METRIC_NAME} characters", field=field)
    return name


def is_number(value: Any) -> bool:
    """Tells whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def as_scalar(value: Any, field: str) -> str:
    """Gives a text: Katib's manifests quote numbers; those that do not are understood as well."""
    if isinstance(value, str):
        return value
    if not is_number(value):
        raise InvalidArgument("must be a string", field=field)
    return str(int(value)) if float(value).is_integer() else str(value)
