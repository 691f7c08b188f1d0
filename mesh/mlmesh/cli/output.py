"""How commands speak: results on standard output, everything else on standard error."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console


_LONG_LINE = 200


def printable(text: object, keep: str = "") -> str:
    """Gives text from elsewhere so that it changes nothing on a terminal: what is no printable character (control
    characters, those that turn the direction of writing, ...) is written as Python writes it, \\x1b.

    Args:
        text: Names and values that users or services gave.
        keep: Characters that stay, such as a line feed.
    """
    given = str(text)
    if given.isprintable():
        return given
    return "".join(
        one if one.isprintable() or one in keep else one.encode("unicode_escape").decode("ascii") for one in given
    )


def emit(value: Any) -> None:
    """Prints a result as JSON."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def console(*, stderr: bool = False) -> "Console":
    """Gives a console for people; where there is no terminal, lines are long, for whatever reads them."""
    from rich.console import Console

    out = Console(stderr=stderr, highlight=False)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = _LONG_LINE
    return out


def fail(message: str, *, as_json: bool = False, code: int = 1) -> NoReturn:
    """Ends the command: the message on standard error, with `--json` also as {"error": ...} on standard output."""
    if as_json:
        emit({"error": message})
    sys.stderr.write(f"mlmesh: {printable(message, keep=chr(10))}\n")
    raise typer.Exit(code)


def human_bytes(count: float) -> str:
    """Gives a size in words: 12.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def human_seconds(seconds: float) -> str:
    """Gives a duration in words: 3 s, 2 min 5 s, 1 h 4 min."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
