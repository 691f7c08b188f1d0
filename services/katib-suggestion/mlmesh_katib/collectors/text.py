"""Reports in lines of text, found by expressions."""

import time
from collections.abc import Iterator, Sequence
from functools import cache

import re2
from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.collectors.times import from_text

# Katib's: `name=value`, with a float as the value.
DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
MAX_FILTERS = 20
MAX_FILTER_LENGTH = 500
MAX_LINE = 4096
MAX_VALUE = 255
# RE2's own limit is 8 MiB; a line is matched in time proportional to the instructions of the expression.
_MAX_MEMORY = 1 << 20
_MAX_INSTRUCTIONS = 10_000


class TooSlow(Exception):
    """The expressions took longer than they may."""


def check_filter(expression: str, field: str) -> str:
    """Checks an expression of a user.

    Raises:
        InvalidArgument: It is no expression as RE2 has them, is too large, or has not the two groups.
    """
    if len(expression) > MAX_FILTER_LENGTH:
        raise InvalidArgument(f"must have at most {MAX_FILTER_LENGTH} characters", field=field)
    try:
        pattern = _compile(expression)
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        raise InvalidArgument(f"must be a regular expression as RE2 has them: {reason}", field=field) from error
    except UnicodeEncodeError as error:
        raise InvalidArgument("must be valid Unicode", field=field) from error
    if pattern.groups < 2:
        raise InvalidArgument("must have two groups, name and value", field=field)
    if pattern.programsize > _MAX_INSTRUCTIONS:
        raise InvalidArgument("is too large once its repetitions are written out", field=field)
    return expression


class TextLines:
    """Finds reports in lines, one after the other.

    Args:
        metrics: The names that count.
        filters: Expressions whose first group is the name and the second the value; empty: Katib's default. RE2 needs
            a time linear in the line for each match, and lets other threads run meanwhile.
    """

    longest = MAX_LINE

    def __init__(self, metrics: Sequence[str], filters: Sequence[str]) -> None:
        self._patterns = [_compile(expression) for expression in filters or (DEFAULT_FILTER,)]
        self._names = {name.encode("utf-8", "replace"): name for name in metrics}

    def parse(self, line: bytes, stop: float) -> Iterator[tuple[str | None, str, str]]:
        """Finds the reports in a line.

        Args:
            line: Without its end.
            stop: When to give up, on the monotonic clock.

        Returns:
            (time that the line begins with or None, name, value), in the order of the expressions and then of the line.

        Raises:
            TooSlow: The expressions took longer.
        """
        if not any(name in line for name in self._names):
            return
        at = from_text(line[:40].split(b" ", 1)[0].decode("utf-8", "replace")) if line[:1].isdigit() else None
        for pattern in self._patterns:
            for match in pattern.finditer(line):
                if time.monotonic() > stop:
                    raise TooSlow
                name = self._names.get((match.group(1) or b"").strip())
                if name is not None:
                    value = (match.group(2) or b"").decode("utf-8", "replace").strip()
                    if is_value(value):
                        yield at, name, value


def is_value(text: str) -> bool:
    """Tells whether a text may be a metric's value: it need not be a number."""
    return 0 < len(text) <= MAX_VALUE and text.isprintable()


@cache
def _options() -> "re2.Options":
    options = re2.Options()
    options.max_mem = _MAX_MEMORY
    options.log_errors = False
    return options


def _compile(expression: str) -> "re2._Regexp":
    return re2.compile(expression, _options())
