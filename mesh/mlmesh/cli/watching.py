"""Shows something that changes until it has ended."""

import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import typer

from mlmesh.cli.output import console, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""How long a service that restarts is waited for, while something is watched."""
_POLL_SECONDS = 0.25
_LONGEST_POLL_SECONDS = 5.0


def watch(
    read: Callable[[], T],
    ended: Callable[[T], bool],
    draw: "Callable[[T], RenderableType]",
    tell: Callable[[T], Iterable[str]],
    *,
    goes_on: str,
    quiet: bool = False,
    timeout_seconds: float | None = None,
    rest: float = 0,
) -> T:
    """Reads again and again until it has ended; shows it on standard error.

    On a terminal the picture is drawn anew each time; elsewhere each line is printed when it first becomes true.

    Args:
        read: Reads it.
        ended: Tells whether that is the end.
        draw: Makes the picture.
        tell: Makes lines of what is true now.
        goes_on: Said when the user interrupts: what is watched goes on, and how to come back to it.
        quiet: Show nothing.
        timeout_seconds: Give back what there is after this time, ended or not; None: wait for the end.
        rest: Wait at least so many times as long as reading took before reading again (but 5 s at most), so that
            watching what is slow to read costs the services little.
    """
    errors = console(stderr=True)
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds

    def loop(show: Callable[[T], None]) -> T:
        while True:
            begun = time.monotonic()
            found = read()
            took = time.monotonic() - begun
            show(found)
            if ended(found) or (deadline is not None and time.monotonic() > deadline):
                return found
            time.sleep(max(_POLL_SECONDS, min(rest * took, _LONGEST_POLL_SECONDS)))

    try:
        if quiet:
            return loop(lambda _: None)
        if not errors.is_terminal:
            return loop(_Teller(tell))
        from rich.live import Live

        with Live(console=errors, transient=True, refresh_per_second=8) as live:
            return loop(lambda found: live.update(draw(found)))
    except KeyboardInterrupt:
        sys.stderr.write(f"\nmlmesh: {goes_on}\n")
        raise typer.Exit(130) from None


class _Teller:
    """Prints each line once."""

    def __init__(self, tell: "Callable[[T], Iterable[str]]") -> None:
        self._tell: Callable[..., Iterable[str]] = tell
        self._told: set[str] = set()

    def __call__(self, found: object) -> None:
        for line in self._tell(found):
            if line not in self._told:
                self._told.add(line)
                sys.stderr.write(f"{printable(line)}\n")
                sys.stderr.flush()
