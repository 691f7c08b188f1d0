"""A file that grows, read as it grows."""

import os
import stat
from pathlib import Path, PurePosixPath

from mlmesh_katib.collectors.files import open_file, open_folder


class Tail:
    """Reads what is new in a file, whatever is done to the file meanwhile.

    A file that was replaced is read to its end, then its successor from the start; one that was cut off is read from
    the start again; one that was removed is still read, since its writer may have it open. (A file that is cut off and
    has grown beyond where it was before anybody looks cannot be told from one that has only grown.)

    Args:
        root: A folder that is trusted.
        inner: The file below it; no symbolic link is followed from `root` on.
    """

    def __init__(self, root: Path, inner: PurePosixPath) -> None:
        self._root = root
        self._inner = inner
        self._path = root / inner
        self._descriptor: int | None = None
        self._offset = 0

    def read(self, most: int) -> bytes:
        """Reads at most so many bytes; where there is nothing new, that costs one or two `stat`.

        Raises:
            CollectionError: The path leads to something that is not read.
        """
        try:
            found: os.stat_result | None = os.stat(self._path, follow_symlinks=False)
        except OSError:
            found = None
        if self._descriptor is not None:
            held = os.fstat(self._descriptor)
            if data := self._more(self._descriptor, held.st_size, most):
                return data
            if found is None or os.path.samestat(held, found):
                return b""
            self.close()
            return b"\n"  # a last line without an end is complete now
        if found is None or (stat.S_ISREG(found.st_mode) and found.st_size == 0):
            return b""
        with open_folder(self._root, self._inner.parent) as folder:
            if folder is None:
                return b""
            try:
                self._descriptor = open_file(folder, self._inner.name)
            except FileNotFoundError:
                return b""
        return self._more(self._descriptor, os.fstat(self._descriptor).st_size, most)

    def close(self) -> None:
        """Gives back the file; the next `read` starts at the beginning of what is there then."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None
        self._offset = 0

    def _more(self, descriptor: int, size: int, most: int) -> bytes:
        if size < self._offset:
            self._offset = 0
            return b"\n"
        if size == self._offset:
            return b""
        data = os.pread(descriptor, min(most, size - self._offset), self._offset)
        self._offset += len(data)
        return data


class Lines:
    """Puts pieces together to lines, which end with LF, CR or both (a progress bar's are lines, too).

    Args:
        longest: Bytes of a line that are kept; what follows in it is left out.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Takes a piece and gives the lines that are complete with it, without their ends, none empty."""
        *complete, rest = data.replace(b"\r", b"\n").split(b"\n")
        if complete:
            complete[0] = self._rest + complete[0]
            self._rest = b""
        self._rest = (self._rest + rest)[: self._longest]
        return [line[: self._longest] for line in complete if line]

    def finish(self) -> list[bytes]:
        """Gives the last line, if it has no end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []
