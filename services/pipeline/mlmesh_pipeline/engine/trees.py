"""Folders in an object store: their files below a URI, and beside it a record, written last, that names them."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

MAX_FILES = 100_000
MAX_RECORD_BYTES = 64 << 20
MAX_DEPTH = 200
"""Folders in each other: what walks through them may recurse."""
_SUFFIX = ".mlmesh-tree.json"


class BadTree(ValueError):
    """It is no folder that can be stored, or no record of one; the message says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a folder.

    Attributes:
        path: In the folder, with `/`.
        size: Bytes.
        sha256: Of its content; empty where it is not known.
        etag: What the object store calls this content.
    """

    path: str
    size: int
    sha256: str = ""
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder: its files, and those of its folders that are empty."""

    files: tuple[Member, ...]
    folders: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(member.size for member in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 over names and contents."""
        return tree_digest((member.path, member.sha256) for member in self.files)

    @property
    def etag(self) -> str:
        """Changes when a file is changed, added or removed in the store."""
        lines = sorted(f"{member.path}\0{member.size}\0{member.etag}\0" for member in self.files)
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def record_uri(uri: str) -> str:
    """Gives where the record of the folder at a URI is."""
    return uri.rstrip("/") + _SUFFIX


def tree_digest(files: Iterator[tuple[str, str]]) -> str:
    """Gives the digest of a folder from names and digests of its files, in the order of `walk`."""
    whole = hashlib.sha256()
    for name, digest in files:
        whole.update(f"{name}\0{digest}\0".encode(errors="surrogateescape"))
    return whole.hexdigest()


def walk(root: Path) -> Iterator[tuple[Path, str]]:
    """Gives the regular files of a folder and their names in it, always in the same order; no symbolic links."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = Path(folder) / name
            if stat.S_ISREG(path.lstat().st_mode):
                yield path, path.relative_to(root).as_posix()


def empty_folders(root: Path) -> tuple[str, ...]:
    """Gives the names of the folders below one that have nothing in them."""
    found = [Path(folder) for folder, folders, files in os.walk(root) if not folders and not files]
    return tuple(path.relative_to(root).as_posix() for path in found if path != root)


def dump_record(tree: Tree) -> bytes:
    """Gives the record of a folder."""
    content = {"version": 1, "files": [asdict(member) for member in tree.files], "folders": list(tree.folders)}
    return json.dumps(content, separators=(",", ":")).encode()


def load_record(data: bytes) -> Tree:
    """Reads what `dump_record` wrote, or somebody else.

    Raises:
        BadTree: It is no record, or a name in it leads out of the folder.
    """
    try:
        content: Any = json.loads(data)
        files = tuple(
            Member(str(one["path"]), int(one["size"]), str(one["sha256"]), str(one["etag"])) for one in content["files"]
        )
        folders = tuple(str(one) for one in content["folders"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadTree("the record of the folder cannot be read") from error
    if any(member.size < 0 for member in files):
        raise BadTree("a file of the folder has a size below zero")
    check_names([*(member.path for member in files), *folders])
    return Tree(files, folders)


def check_names(names: Sequence[str]) -> None:
    """Checks that names stay in their folder, and do not get in each other's way.

    Raises:
        BadTree: One does not.
    """
    if len(names) > MAX_FILES:
        raise BadTree(f"the folder has more than {MAX_FILES} files")
    for name in names:
        if not is_inside(name):
            raise BadTree(f"{name[:200]!r} is no name of a file in a folder")
        if name.count("/") > MAX_DEPTH:
            raise BadTree(f"the folder has folders more than {MAX_DEPTH} deep")
    # What is in a folder follows it at once when "/" comes before all other characters.
    ordered = sorted(name.replace("/", "\0") for name in names)
    for name, follower in pairwise(ordered):
        if name == follower:
            raise BadTree("a name is there twice")
        if follower.startswith(f"{name}\0"):
            shown = name.replace("\0", "/")[:200]
            raise BadTree(f"{shown!r} is a file and a folder")


def is_inside(name: str) -> bool:
    """Tells whether a name is that of a file in a folder, and leads nowhere else."""
    parts = name.split("/")
    return "\0" not in name and not any(part in {"", ".", ".."} for part in parts) and len(name) <= 4096
