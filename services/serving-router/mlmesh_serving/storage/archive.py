"""Archives from elsewhere: unpacked into a folder, never beyond it, never more than was allowed."""

import gzip
import io
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from mlmesh_kit.errors import FailedPrecondition

_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
_CHUNK = 1 << 20
_MAX_HEADER = 16 << 20
_MAX_NAME = 1024
# Of the others the reader unpacks all that it has read at once, however much that becomes.
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """How much an archive may hold.

    Args:
        max_bytes: Of all files, unpacked.
        max_files: Files and folders.
    """

    max_bytes: int
    max_files: int


def is_archive(name: str) -> bool:
    """Tells by a file's name whether it is unpacked."""
    return name.lower().endswith(_SUFFIXES)


def unpack(archive: Path, folder: Path, limits: UnpackLimits) -> None:
    """Unpacks an archive: files and folders alone; links and devices are refused.

    Args:
        archive: Its name says what it is.
        folder: Empty.
        limits: How much it may hold.

    Raises:
        FailedPrecondition: It is broken, holds too much, or a name that leads out of the folder.
    """
    target = _Target(folder, limits)
    try:
        if archive.name.lower().endswith(".zip"):
            _unpack_zip(archive, target)
        else:
            with _plain_tar(archive, limits.max_bytes) as stream:
                _unpack_tar(stream, target)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        OSError,
        zlib.error,
        NotImplementedError,
        ValueError,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of this machine: a full disk
            raise
        raise FailedPrecondition(f"{archive.name} is broken: {type(error).__name__}: {str(error)[:200]}") from error


class _Target:
    """The folder that is filled.

    Args:
        folder: Empty.
        limits: How much it may hold.
    """

    def __init__(self, folder: Path, limits: UnpackLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._bytes = 0
        self._entries = 0

    def make_folder(self, name: str) -> None:
        """Makes a folder."""
        self._path(name).mkdir(parents=True, exist_ok=True)

    def write(self, name: str, source: IO[bytes]) -> None:
        """Writes a file."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            sink = path.open("xb")
        except (FileExistsError, IsADirectoryError) as error:
            raise FailedPrecondition(f"the archive holds {name!r} twice") from error
        with sink:
            while chunk := source.read(_CHUNK):
                self._bytes += len(chunk)
                if self._bytes > self._limits.max_bytes:
                    raise too_large(self._limits.max_bytes)
                sink.write(chunk)

    def _path(self, name: str) -> Path:
        self._entries += 1
        if self._entries > self._limits.max_files:
            raise FailedPrecondition(f"the archive holds more than {self._limits.max_files} files")
        parts = [part for part in name.split("/") if part not in {"", "."}]
        bad = name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable() or len(name) > _MAX_NAME
        if bad:
            raise FailedPrecondition(f"the archive holds a name that leads out of its folder: {name[:100]!r}")
        return self._folder.joinpath(*parts)


class _Bounded(io.BufferedReader):
    """A file of which nobody reads much at once: what reads a header believes the size that it declares."""

    def read(self, size: int | None = -1) -> bytes:
        is_open = size is None or size < 0
        data = super().read(_MAX_HEADER + 1 if is_open else min(size or 0, _MAX_HEADER + 1))
        if len(data) > _MAX_HEADER:
            raise FailedPrecondition(f"the archive has a header of more than {_MAX_HEADER} bytes")
        return data


def _bounded(path: Path) -> BinaryIO:
    return _Bounded(io.FileIO(path))


@contextmanager
def _plain_tar(archive: Path, max_bytes: int) -> Iterator[BinaryIO]:
    """Gives the archive without its compression, in a file: tar's reader goes back and forth."""
    with archive.open("rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
    if not is_compressed:
        with _bounded(archive) as stream:
            yield stream
        return
    with tempfile.NamedTemporaryFile(dir=archive.parent, suffix=".tar") as plain:
        count = 0
        with gzip.open(archive) as source:
            while chunk := source.read(_CHUNK):
                count += len(chunk)
                if count > max_bytes + _MAX_HEADER:  # tar's own headers are more than the files
                    raise too_large(max_bytes)
                plain.write(chunk)
        plain.flush()
        with _bounded(Path(plain.name)) as stream:
            yield stream


def _unpack_tar(stream: BinaryIO, target: _Target) -> None:
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            if member.isdir():
                target.make_folder(member.name)
            elif member.isreg() and not member.issparse():
                source = tar.extractfile(member)
                assert source is not None
                with source:
                    target.write(member.name, source)
            else:
                raise FailedPrecondition(f"the archive holds {member.name[:100]!r}, which is no plain file or folder")


def _unpack_zip(archive: Path, target: _Target) -> None:
    with _bounded(archive) as stream, zipfile.ZipFile(stream) as found:
        for info in found.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                target.make_folder(info.filename)
            elif info.flag_bits & 1 or kind not in {0, stat.S_IFREG}:
                raise FailedPrecondition(f"the archive holds {info.filename[:100]!r}, which is no plain file or folder")
            elif info.compress_type not in _COMPRESSIONS:
                raise FailedPrecondition("the archive is compressed in another way than by deflate")
            else:
                with found.open(info) as source:
                    target.write(info.filename, source)


def too_large(max_bytes: int) -> FailedPrecondition:
    """Gives the error for a model that is too large."""
    return FailedPrecondition(f"the model is larger than {max_bytes} bytes (MLMESH_SERVING_MAX_MODEL_BYTES)")


def only_folder(folder: Path) -> Path:
    """Gives the folder in which an archive's files are: many archives hold one folder, and that the files."""
    inner = folder
    while len(entries := list(inner.iterdir())) == 1 and entries[0].is_dir():
        inner = entries[0]
    return inner
