"""Archives of models: unpacked whole, or refused; nothing is ever written outside."""

import contextlib
import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import FailedPrecondition
from mlmesh_serving.storage.archive import UnpackLimits, is_archive, only_folder, unpack

LIMITS = UnpackLimits(max_bytes=100_000, max_files=20)
FILES = {"model.json": b"{}", "inner/weights.bin": bytes(range(256)) * 10}


def tar(path: Path, files: dict[str, bytes], edit: Callable[[tarfile.TarInfo], None] = lambda info: None) -> Path:
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            edit(info)
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content, method)
    return path


def pack(path: Path, files: dict[str, bytes]) -> Path:
    return (zipped if path.suffix == ".zip" else tar)(path, files)


def unpacked(path: Path, limits: UnpackLimits = LIMITS) -> dict[str, bytes]:
    folder = path.parent / "out"
    folder.mkdir()
    unpack(path, folder, limits)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(path: Path, match: str, limits: UnpackLimits = LIMITS) -> None:
    before = {file for file in path.parent.rglob("*") if file.is_file()}
    with pytest.raises(FailedPrecondition, match=match):
        unpacked(path, limits)
    left = {file for file in path.parent.rglob("*") if file.is_file()} - before
    assert all(file.is_relative_to(path.parent / "out") for file in left)
    assert not any(file.is_symlink() for file in path.parent.rglob("*"))


@pytest.mark.parametrize("name", ["m.tar", "m.tar.gz", "m.TGZ", "m.zip"])
def test_files_and_folders(tmp_path, name):
    assert is_archive(name) and unpacked(pack(tmp_path / name, FILES)) == FILES


def test_the_one_folder_of_an_archive_is_the_model(tmp_path):
    unpacked(pack(tmp_path / "m.zip", {"iris/1/model.onnx": b"x", "iris/1/labels": b"y"}))
    assert only_folder(tmp_path / "out") == tmp_path / "out" / "iris" / "1"
    assert not is_archive("model.pt") and not is_archive("model.zip.onnx")


NAMES = ["../x", "/etc/x", "a/../../x", "a\\..\\x", "..", "a\nb", "x" * 2000]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["m.tar.gz", "m.zip"])
def test_names_that_lead_out(tmp_path, name, kind):
    refused(pack(tmp_path / kind, {name: b"x"}), "leads out|twice|no plain file")


def _link(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def edit(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = kind, "../../secret", 0

    return edit


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar(tmp_path, kind):
    refused(tar(tmp_path / "m.tar", {"x": b""}, _link(kind)), "no plain file or folder")


def test_links_in_zip(tmp_path):
    refused(zipped(tmp_path / "m.zip", {"x": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777), "no plain file or folder")


@pytest.mark.parametrize("kind", ["m.tar", "m.zip"])
def test_the_same_name_twice(tmp_path, kind):
    with pytest.warns(UserWarning, match="Duplicate") if kind == "m.zip" else contextlib.nullcontext():
        if kind == "m.zip":
            with zipfile.ZipFile(tmp_path / kind, "w") as archive:
                archive.writestr("a", "1")
                archive.writestr("a", "2")
        else:
            with tarfile.open(tmp_path / kind, "w") as found:
                for _ in range(2):
                    found.addfile(tarfile.TarInfo("a"), io.BytesIO())
    refused(tmp_path / kind, "holds 'a' twice")


@pytest.mark.parametrize("kind", ["m.tar", "m.tar.gz", "m.zip"])
def test_bombs(tmp_path, kind):
    refused(pack(tmp_path / kind, {"a": bytes(LIMITS.max_bytes + 1)}), "larger than 100000 bytes")
    (tmp_path / "out").rename(tmp_path / "out1")
    half = bytes(LIMITS.max_bytes // 2 + 1)
    refused(pack(tmp_path / kind, {"a": half, "b": half}), "larger than 100000 bytes")
    (tmp_path / "out").rename(tmp_path / "out2")
    refused(pack(tmp_path / kind, {f"f{n}": b"" for n in range(21)}), "more than 20 files")


def test_a_gzip_bomb_ends_before_it_is_unpacked(tmp_path):
    with gzip.open(tmp_path / "m.tar.gz", "wb", compresslevel=1) as file:
        for _ in range(20):
            file.write(bytes(1 << 20))
    refused(tmp_path / "m.tar.gz", "larger than")
    assert not list((tmp_path / "out").iterdir())


def test_a_zip_that_lies_about_its_sizes(tmp_path):
    data = bytearray(zipped(tmp_path / "m.zip", {"a": bytes(LIMITS.max_bytes * 2)}).read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 10)
    (tmp_path / "m.zip").write_bytes(data)
    refused(tmp_path / "m.zip", "broken|larger than")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_cannot_be_bounded(tmp_path, method):
    refused(zipped(tmp_path / "m.zip", FILES, method), "another way than by deflate")


def test_an_encrypted_zip(tmp_path):
    data = bytearray(zipped(tmp_path / "m.zip", FILES).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    (tmp_path / "m.zip").write_bytes(data)
    refused(tmp_path / "m.zip", "no plain file")


def test_a_header_of_tar_that_declares_much(tmp_path):
    """A header for a long name is read into memory at once."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    with (tmp_path / "m.tar").open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        os.truncate(file.fileno(), (1 << 30) + 2048)
    refused(tmp_path / "m.tar", "a header of more than")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["m.tar", "m.tar.gz", "m.zip"]))
def test_broken_archives_are_refused_or_give_less(tmp_path_factory, data, kind):
    folder = tmp_path_factory.mktemp("fuzz")
    path = pack(folder / kind, FILES)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = unpacked(path)
    except FailedPrecondition:
        found = {}
    assert sum(map(len, found.values())) <= LIMITS.max_bytes
    assert {file.name for file in folder.iterdir()} == {kind, "out"}
