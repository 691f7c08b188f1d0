"""Katib's collector TensorFlowEvent: scalars in the event files of TensorFlow, Keras and PyTorch."""

import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.collectors.base import CollectionError, Collector, CollectorSpec, MetricLog, Place
from mlmesh_katib.collectors.event import read_scalars
from mlmesh_katib.collectors.files import open_file, open_folder
from mlmesh_katib.collectors.limits import MAX_BYTES, MAX_REPORTS, MAX_SECONDS, POLL_BYTES, POLL_SECONDS
from mlmesh_katib.collectors.source import read_filters, read_path
from mlmesh_katib.collectors.text import is_value
from mlmesh_katib.collectors.tfrecord import RecordFile, split
from mlmesh_katib.collectors.times import Clock, from_seconds

DEFAULT_PATH = "/var/log/katib/tfevent/"
MAX_ENTRIES = 10_000
MAX_FILES = 1000
MAX_DEPTH = 16
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TagNames:
    """Which metrics a tag counts for.

    As in Katib, the metric `train/loss` is the tag `loss` of files in a folder `train`, and a tag that only begins with
    the name counts as well (TensorFlow makes names unique by `_1`). Unlike there, a tag that is just a metric's name
    counts for no other metric, and `train/loss` may also be the whole tag.

    Args:
        metrics: Their names.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        self._metrics = []
        for name in metrics:
            folder, _, tag = name.rpartition("/")
            self._metrics.append((name, tuple(folder.split("/")) if folder else (), tag))
        self.needles = {(tag or name).encode("utf-8", "replace") for name, _, tag in self._metrics}

    def of(self, tag: str, folder: PurePosixPath) -> list[str]:
        """Gives the metrics of a tag in a file in a folder."""
        if whole := [name for name, _, _ in self._metrics if name == tag]:
            return whole
        here = [
            (name, wanted)
            for name, parents, wanted in self._metrics
            if wanted and (not parents or folder.parts[-len(parents) :] == parents)
        ]
        return [name for name, wanted in here if tag == wanted] or [
            name for name, wanted in here if tag.startswith(wanted)
        ]


class TensorFlowEventCollector(Collector):
    """Reads event files below a folder as they are written; files in folders of their own included.

    Args:
        metrics: The names that count, see `TagNames`.
        root: The trial's working directory; None: it is not on this machine.
        inner: The folder in it.
    """

    interval_seconds = 0.25

    def __init__(self, metrics: Sequence[str], root: Path | None, inner: PurePosixPath) -> None:
        self._names = TagNames(metrics)
        self._root = root
        self._inner = inner
        self._readers: dict[PurePosixPath, tuple[int, RecordFile]] = {}  # path → inode, reader
        self._clock = Clock()
        self._bytes = 0
        self._seconds = 0.0
        self._reports = 0
        self._problem = "" if root is not None else "what the trial writes is not on this machine"

    def poll(self, *, ended: bool = False) -> Sequence[MetricLog]:
        """See `Collector.poll`. A file that cannot be read is left out, and said where nothing was ever found."""
        found: list[MetricLog] = []
        if self._root is not None:
            try:
                with open_folder(self._root, self._inner) as folder:
                    if folder is not None:
                        self._read_all(folder, found, ended=ended)
            except CollectionError as error:
                self._problem = str(error)
        self._reports += len(found)
        if ended and self._reports == 0 and self._problem:
            raise CollectionError(self._problem)
        return found

    def _read_all(self, folder: int, found: list[MetricLog], *, ended: bool) -> None:
        most = MAX_BYTES if ended else self._bytes + POLL_BYTES
        longest = MAX_SECONDS if ended else self._seconds + POLL_SECONDS
        for outer, path, status in event_files(folder):
            reader = self._reader(path, status)
            if reader is None or reader.broken or reader.offset >= status.st_size:
                continue
            try:
                descriptor = open_file(outer, path.name)
            except FileNotFoundError:
                continue
            except CollectionError as error:
                self._problem = str(error)
                continue
            begun = time.monotonic()
            try:
                for record in reader.read(descriptor, status.st_size):
                    self._bytes += len(record)
                    self._take(record, path, found)
                    spent = self._seconds + time.monotonic() - begun
                    if self._reports + len(found) >= MAX_REPORTS or self._bytes >= MAX_BYTES or spent >= MAX_SECONDS:
                        self._root = None  # no more is read
                        return
                    if self._bytes >= most or spent >= longest:
                        return
            except CollectionError as error:
                self._problem = f"{path}: {error}"
            finally:
                os.close(descriptor)
                self._seconds += time.monotonic() - begun

    def _reader(self, path: PurePosixPath, status: os.stat_result) -> RecordFile | None:
        inode, reader = self._readers.get(path, (0, None))
        if reader is None and len(self._readers) >= MAX_FILES:
            self._problem = f"there are more than {MAX_FILES} event files"
            return None
        if reader is None or inode != status.st_ino or status.st_size < reader.offset:  # new, or written anew
            reader = RecordFile()
            self._readers[path] = (status.st_ino, reader)
        return reader

    def _take(self, record: bytes, path: PurePosixPath, found: list[MetricLog]) -> None:
        """Adds the reports of a record; most records are of other things, which is seen quickly."""
        if not any(needle in record for needle in self._names.needles):
            return
        try:
            scalars = read_scalars(split(record))
        except ValueError:
            self._problem = f"{path}: an event is damaged"
            return
        for scalar in scalars:
            if is_value(scalar.value):
                for name in self._names.of(scalar.tag, self._inner / path.parent):
                    found.append(MetricLog(from_seconds(scalar.seconds) or self._clock.now(), name, scalar.value))


def event_files(folder: int) -> Iterator[tuple[int, PurePosixPath, os.stat_result]]:
    """Finds event files (those with `tfevents` in their names) below a folder, following no links.

    Args:
        folder: Its descriptor.

    Returns:
        Of each: the descriptor of the folder that it is in, open until the next is asked for; its path below the first
        folder; what `stat` says. By name. What is deeper than MAX_DEPTH, and all after MAX_ENTRIES names, is left out.
    """
    yield from _event_files(folder, PurePosixPath(), [MAX_ENTRIES])


def _event_files(
    folder: int, path: PurePosixPath, left: list[int]
) -> Iterator[tuple[int, PurePosixPath, os.stat_result]]:
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if left[0] <= 0:
                break
            left[0] -= 1
            if "tfevents" in entry.name or entry.is_dir(follow_symlinks=False):
                names.append(entry.name)
    for name in sorted(names):
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and len(path.parts) < MAX_DEPTH:
                inner = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    yield from _event_files(inner, path / name, left)
                finally:
                    os.close(inner)
            elif stat.S_ISREG(status.st_mode):
                yield folder, path / name, status
        except OSError:  # removed meanwhile, or not to be read
            continue


def parse_source(source: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks a `source`: the folder, and that no format is given.

    Raises:
        InvalidArgument: A field is wrong.
    """
    path, form = read_path(source, where, kind="Directory", default=DEFAULT_PATH)
    if form:
        raise InvalidArgument("must be left out", field=f"{where}.fileSystemPath.format")
    read_filters(source, where)  # not used; Katib looks at those of all kinds
    return {"path": path}


def make(spec: CollectorSpec, place: Place) -> Collector:
    """Makes the collector of one start of a trial."""
    return TensorFlowEventCollector(spec.metrics, place.work_dir, spec.source["path"])
