"""The hash of a model.

Of a file (an archive, too, as it was downloaded) it is the SHA-256 of its bytes. Of a folder it is the SHA-256 of what
`sha256sum` prints for its files, by their paths below the folder, in the order of the paths' bytes:
`find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum`.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from mlmesh_kit.errors import FailedPrecondition

_CHUNK = 1 << 20


def digest_of(path: Path, max_files: int) -> str:
    """Gives the hash of a file or a folder, in hexadecimal. Links in it count as what they lead to.

    Raises:
        FailedPrecondition: There are too many files, or what is neither file nor folder.
    """
    if path.is_file():
        return _of_file(path)
    found: dict[str, str] = {}
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder) / name
            if not file.is_file():
                raise FailedPrecondition(f"{file.relative_to(path)} is no file")
            if len(found) == max_files:
                raise FailedPrecondition(f"the folder holds more than {max_files} files")
            found[file.relative_to(path).as_posix()] = _of_file(file)
    return digest_of_tree(found)


def digest_of_tree(files: Mapping[str, str]) -> str:
    """Gives the hash of a folder.

    Args:
        files: The hash of each file by its path below the folder, with `/`.
    """
    lines = (f"{files[name]}  {name}\n" for name in sorted(files, key=os.fsencode))
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
