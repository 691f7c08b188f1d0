"""Strings and numbers as GoogleSQL writes them."""

import re

_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_SELF = set("\\?\"'`")
_ESCAPE = re.compile(
    r"\\(?:x(?P<x>[0-9a-fA-F]{2})|X(?P<X>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})"
    r"|(?P<octal>[0-3][0-7]{2})|(?P<one>.))",
    re.DOTALL,
)
MAX_INT = 2**63


class BadLiteral(ValueError):
    """A literal that means nothing."""


def unquote(written: str) -> str:
    """Reads a string literal ('x', "x", triple-quoted, raw) or a name in backticks.

    Raises:
        BadLiteral: An escape that is none.
    """
    raw = written[0] in "rR"
    body = written[1:] if raw else written
    width = 3 if len(body) >= 6 and body[:3] in {"'''", '"""'} else 1
    body = body[width:-width]
    return body if raw else _ESCAPE.sub(_unescape, body)


def _unescape(found: re.Match[str]) -> str:
    for base, group in ((16, "x"), (16, "X"), (16, "u"), (16, "U"), (8, "octal")):
        digits = found[group]
        if digits is not None:
            code = int(digits, base)
            if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                raise BadLiteral(f"{found[0]} is no character")
            return chr(code)
    one = found["one"]
    if one in _SIMPLE:
        return _SIMPLE[one]
    if one in _SELF:
        return str(one)
    raise BadLiteral(f"{found[0]} is no escape sequence")


def integer(written: str) -> int:
    """Reads an integer literal.

    Raises:
        BadLiteral: Past 64 bits.
    """
    value = int(written, 16) if written[:2].lower() == "0x" else int(written)
    if value > MAX_INT:  # one more than the largest: -9223372036854775808 is a minus and this
        raise BadLiteral(f"Invalid integer literal: {written}")
    return value
