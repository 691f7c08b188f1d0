"""Reference data: what was usual when the model was trained."""

import csv
import itertools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition
from numpy.typing import NDArray

MAX_BYTES = 512 << 20
SUFFIXES = (".npy", ".npz", ".csv")


def read_table(path: Path, tensor: str, field: str) -> NDArray[Any]:
    """Reads rows from a file, or from the only one that a folder has.

    Args:
        path: `.npy`; `.npz` with one array, or one of the tensor's name; `.csv` of numbers, with or without a header.
        tensor: Name of the tensor that is compared with it.
        field: Where the manifest says so, for messages.

    Returns:
        Shape (rows, features).

    Raises:
        FailedPrecondition: There is no such file, or it holds something else.
    """
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
        if len(found) != 1:
            raise FailedPrecondition(f"{field}: the folder must hold exactly one of {', '.join(SUFFIXES)}")
        if not found[0].resolve().is_relative_to(path.resolve()):
            raise FailedPrecondition(f"{field}: {found[0].name} is a link that leads out of its folder")
        path = found[0]
    if path.suffix not in SUFFIXES:
        raise FailedPrecondition(f"{field}: must be one of {', '.join(SUFFIXES)}, got {path.name}")
    if path.stat().st_size > MAX_BYTES:
        raise FailedPrecondition(f"{field}: {path.name} is larger than {MAX_BYTES} bytes")
    try:
        rows = _READERS[path.suffix](path, tensor)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise FailedPrecondition(f"{field}: {path.name} cannot be read: {error}") from error
    if rows.ndim == 0 or len(rows) < 2 or rows.dtype.kind not in "biufSU":
        raise FailedPrecondition(f"{field}: {path.name} must hold at least two rows of numbers or texts")
    return rows.reshape(len(rows), -1)


def _npy(path: Path, _: str) -> NDArray[Any]:
    rows: NDArray[Any] = np.load(path, allow_pickle=False)
    return rows


def _npz(path: Path, tensor: str) -> NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
            raise ValueError(f"holds more than {MAX_BYTES} bytes")
    with np.load(path, allow_pickle=False) as arrays:
        names = list(arrays)
        if tensor in names:
            name = tensor
        elif len(names) == 1:
            name = names[0]
        else:
            raise ValueError(f"must hold one array, or one named {tensor!r}; holds {', '.join(names[:16])}")
        rows: NDArray[Any] = arrays[name]
        return rows


def _csv(path: Path, _: str) -> NDArray[Any]:
    with path.open(newline="") as file:
        lines = csv.reader(file)
        first = next(lines, [])
        header = not all(_is_number(cell) for cell in first)
        kept = lines if header else itertools.chain([first], lines)
        return np.array([[float(cell) if cell else float("nan") for cell in line] for line in kept if line])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return not cell
    return True


_READERS = {".npy": _npy, ".npz": _npz, ".csv": _csv}
