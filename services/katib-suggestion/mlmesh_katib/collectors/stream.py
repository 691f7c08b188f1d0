"""A collector of reports that a trial writes line by line."""

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from mlmesh_katib.collectors.base import CollectionError, Collector, MetricLog
from mlmesh_katib.collectors.limits import MAX_BYTES, MAX_REPORTS, MAX_SECONDS, POLL_BYTES, POLL_SECONDS
from mlmesh_katib.collectors.tail import Lines, Tail
from mlmesh_katib.collectors.text import TooSlow
from mlmesh_katib.collectors.times import Clock

_PIECE = 128 << 10
_PAUSE_SECONDS = 0.0005


class LineParser(Protocol):
    """Finds reports in a line: `TextLines`, `JsonLines`."""

    longest: int

    def parse(self, line: bytes, stop: float) -> Iterator[tuple[str | None, str, str]]:
        """Gives (time or None, name, value) of each report; see `TextLines.parse`."""


class StreamCollector(Collector):
    """Reads the lines of a file as they are written.

    While the trial runs, a poll reads a bounded piece; the last one reads what is left, within the limits of `limits`.

    Args:
        tail: The file; None: it is not on this machine.
        parser: Of its lines.
    """

    def __init__(self, tail: Tail | None, parser: LineParser) -> None:
        self._tail = tail
        self._parser = parser
        self._lines = Lines(parser.longest)
        self._clock = Clock()
        self._bytes = 0
        self._seconds = 0.0
        self._reports = 0
        self._problem = "" if tail is not None else "what the trial writes is not on this machine"

    def poll(self, *, ended: bool = False) -> Sequence[MetricLog]:
        """See `Collector.poll`. A line that cannot be read is left out, and said where nothing was ever found."""
        begun = time.monotonic()
        found: list[MetricLog] = []
        try:
            self._read(found, begun, ended=ended)
        except CollectionError as error:
            self._problem = str(error)
        except TooSlow:
            self._problem = f"finding its reports took longer than {MAX_SECONDS:g} s"
            self.close()
        self._reports += len(found)
        if ended and self._reports == 0 and self._problem:
            raise CollectionError(self._problem)
        return found

    def close(self) -> None:
        """Gives back the file; nothing is read any more."""
        if self._tail is not None:
            self._tail.close()
        self._tail = None

    def _read(self, found: list[MetricLog], begun: float, *, ended: bool) -> None:
        budget = MAX_BYTES if ended else POLL_BYTES
        while self._tail is not None and budget > 0 and (ended or time.monotonic() - begun < POLL_SECONDS):
            data = self._tail.read(min(_PIECE, budget, MAX_BYTES - self._bytes))
            if not data:
                break
            budget -= len(data)
            self._bytes += len(data)
            self._parse(self._lines.feed(data), found)
            if self._bytes >= MAX_BYTES:
                self.close()
            # Reading gives up the interpreter's lock for a moment, and takes it back before another thread has woken,
            # which begins to wait anew: without a pause, the service would stand still for a second at a time.
            time.sleep(_PAUSE_SECONDS)
        if ended and self._tail is not None:  # not a line that a limit has cut off
            self._parse(self._lines.finish(), found)

    def _parse(self, lines: Sequence[bytes], found: list[MetricLog]) -> None:
        begun = time.monotonic()
        stop = begun + MAX_SECONDS - self._seconds
        for line in lines:
            try:
                for at, name, value in self._parser.parse(line, stop):
                    if self._reports + len(found) >= MAX_REPORTS:
                        self.close()
                        return
                    found.append(MetricLog(at or self._clock.now(), name, value))
            except CollectionError as error:
                self._problem = str(error)
        self._seconds += time.monotonic() - begun
