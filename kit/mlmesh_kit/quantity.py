"""Quantities as Kubernetes writes them: `500m`, `2`, `1.5Gi`, `64M`, `1e3`."""

import re
from decimal import Decimal

_QUANTITY = re.compile(r"^([0-9]{1,18}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(?:([KMGTPE]i|[mkMGTPE]?)|[eE]([+-]?[0-9]{1,2}))$")
_DECIMAL = {"": 0, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = "KMGTPE"
_LARGEST = Decimal(2) ** 63


class BadQuantity(ValueError):
    """The text is no quantity; the message says what is expected."""


def parse_quantity(text: str) -> Decimal:
    """Reads a quantity.

    Raises:
        BadQuantity: It is none, is negative, or is 2^63 or more.
    """
    match = _QUANTITY.match(text.strip())
    if match is None:
        raise BadQuantity(f"{text[:50]!r} is not a quantity such as 500m, 2, 64M or 1.5Gi")
    number, suffix, exponent = match.groups()
    if exponent:
        found = Decimal(number).scaleb(int(exponent))
    elif suffix and suffix.endswith("i"):
        found = Decimal(number) * Decimal(1024) ** (_BINARY.index(suffix[0]) + 1)
    else:
        found = Decimal(number).scaleb(_DECIMAL[suffix or ""])
    if found >= _LARGEST:
        raise BadQuantity(f"{text[:50]!r} is too large")
    return found


def parse_bytes(value: object) -> int:
    """Reads a number of bytes: a number, or a quantity as text.

    Raises:
        BadQuantity: It is none.
    """
    return int(parse_quantity(str(value)))


def format_bytes(count: int) -> str:
    """Writes a number of bytes for people."""
    for unit, size in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + unit
    return str(count)
