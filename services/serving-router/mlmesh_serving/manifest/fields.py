"""Values of a manifest, checked; errors name the field."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

_MAX_URL = 2048
_MAX_TEXT = 4096
_LARGEST = 2.0**53
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})(h|ms|m|s|us|µs|ns)", re.ASCII)
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def as_object(parent: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """Gives an object that has to be there, or raises InvalidArgument."""
    value = parent.get(key)
    if not isinstance(value, Mapping):
        raise InvalidArgument("must be an object", field=f"{where}.{key}")
    return value


def as_optional_object(parent: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """Gives an object, empty where there is none, or raises InvalidArgument."""
    return {} if parent.get(key) is None else as_object(parent, key, where)


def as_text(parent: Mapping[str, Any], key: str, where: str) -> str:
    """Gives a text that has to be there, or raises InvalidArgument."""
    value = parent.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidArgument("must be a non-empty string", field=f"{where}.{key}")
    if len(value) > _MAX_TEXT:
        raise InvalidArgument(f"must be at most {_MAX_TEXT} characters", field=f"{where}.{key}")
    return value


def as_optional_text(parent: Mapping[str, Any], key: str, where: str) -> str:
    """Gives a text, empty where there is none, or raises InvalidArgument."""
    return "" if parent.get(key) is None else as_text(parent, key, where)


def as_choice(parent: Mapping[str, Any], key: str, where: str, choices: Collection[str], default: str) -> str:
    """Gives one of some words, or raises InvalidArgument."""
    value = parent.get(key)
    if value is None:
        return default
    if not isinstance(value, str) or value not in choices:
        raise InvalidArgument(f"must be one of {', '.join(choices)}", field=f"{where}.{key}")
    return value


def as_integer(
    parent: Mapping[str, Any], key: str, where: str, *, default: int | None, smallest: int, largest: int
) -> int | None:
    """Gives a whole number within bounds, or raises InvalidArgument."""
    value = parent.get(key)
    if value is None:
        return default
    number = whole(value)
    if number is None or not smallest <= number <= largest:
        raise InvalidArgument(f"must be a whole number, {smallest} to {largest}", field=f"{where}.{key}")
    return number


def whole(value: Any) -> int | None:
    """Gives a whole number, which may be written as 3.0 (JSON has one kind of numbers); None: it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        return None
    return int(value) if value == int(value) else None


def as_texts(parent: Mapping[str, Any], key: str, where: str, *, most: int) -> tuple[str, ...]:
    """Gives a list of texts, empty where there is none, or raises InvalidArgument."""
    value = parent.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > most:
        raise InvalidArgument(f"must be a list of at most {most} strings", field=f"{where}.{key}")
    return tuple(as_text({f"{key}[{i}]": item}, f"{key}[{i}]", where) for i, item in enumerate(value))


def as_labels(parent: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    """Gives an object of texts (labels, annotations), empty where there is none, or raises InvalidArgument."""
    value = as_optional_object(parent, key, where)
    for name, text in value.items():
        if not isinstance(text, str):
            raise InvalidArgument("must be a string; quote numbers", field=f"{where}.{key}[{name!r}]")
    return dict(value)


def as_url(parent: Mapping[str, Any], key: str, where: str, schemes: Collection[str]) -> str:
    """Gives a URL that has to be there, with a host and without a user in it, or raises InvalidArgument."""
    value = as_text(parent, key, where)
    try:
        parts = urlsplit(value)
        well = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well = False
    if not well or len(value) > _MAX_URL or not value.isprintable() or " " in value:
        raise InvalidArgument(f"must be a URL that begins with {' or '.join(f'{s}://' for s in schemes)}",
                              field=f"{where}.{key}")  # fmt: skip
    if parts.username is not None or parts.password is not None:
        raise InvalidArgument("must not hold a user or a password", field=f"{where}.{key}")
    return value


def read_number(text: str, field: str, *, smallest: float, largest: float = math.inf) -> float:
    """Reads a number of an annotation, or raises InvalidArgument."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not smallest <= value <= largest or math.isinf(value):
        bounds = f"of at least {smallest:g}" if math.isinf(largest) else f"{smallest:g} to {largest:g}"
        raise InvalidArgument(f"must be a number {bounds}", field=field)
    return value


def read_count(text: str, field: str, *, smallest: int, largest: int) -> int:
    """Reads a whole number of an annotation, or raises InvalidArgument."""
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not smallest <= int(text) <= largest:
        raise InvalidArgument(f"must be a whole number, {smallest} to {largest}", field=field)
    return int(text)


def read_duration(text: str, field: str, *, smallest: float, largest: float) -> float:
    """Reads a duration as Go writes them (`90s`, `1m30s`), in seconds, or raises InvalidArgument."""
    parts = _DURATION.findall(text)
    whole = "".join(number + unit for number, unit in parts) == text
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if text == "0":
        whole = True
    if not text or not whole or not smallest <= seconds <= largest:
        raise InvalidArgument(f"must be a duration such as 90s, {smallest:g}s to {largest:g}s", field=field)
    return seconds


def only(parent: Mapping[str, Any], allowed: Collection[str], where: str) -> None:
    """Refuses fields that nobody knows.

    Raises:
        InvalidArgument: There is one.
    """
    for key in parent:
        if key not in allowed:
            raise InvalidArgument(f"is not known; known are {', '.join(sorted(allowed))}", field=f"{where}.{key}")


def refuse(parent: Mapping[str, Any], fields: Mapping[str, str], where: str) -> None:
    """Refuses fields that KServe knows, and that would change what answers.

    Args:
        parent: Has the fields.
        fields: What to do instead, by the name of the field.
        where: The parent.

    Raises:
        FailedPrecondition: One is set.
    """
    for key, instead in fields.items():
        if parent.get(key) is not None:
            raise FailedPrecondition(f"{where}.{key} is not served: {instead}")
