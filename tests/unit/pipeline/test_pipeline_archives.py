"""Packages that were made to do harm: archives, and YAML."""

import io
import tarfile
import zipfile
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_kit.errors import InvalidArgument
from mlmesh_pipeline.pipelines import read_package

LIMIT = 200_000
PIPELINE = b"pipelineInfo: {name: x}\n"


def tar(members: Iterable[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, link
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def packed(members: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("p.yaml", PIPELINE),
        ("p.tar.gz", tar([("pipeline.yaml", PIPELINE)])),
        ("p.tgz", tar([("other.yml", PIPELINE), ("README.md", b"x")])),
        ("p.tar.gz", tar([("../../etc/pipeline.yaml", PIPELINE)])),
        ("P.ZIP", packed([("pipeline.yaml", PIPELINE), ("other.yaml", b"x")])),
        ("p.zip", packed([("/etc/pipeline.yaml", PIPELINE)])),
    ],
)
def test_packages_are_read_and_nothing_is_written(name: str, data: bytes) -> None:
    """A path in an archive is a name to choose by; nothing is unpacked to it."""
    assert read_package(name, data, LIMIT) == {"pipelineInfo": {"name": "x"}}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.tar.gz", tar([("pipeline.yaml", b"")], tarfile.SYMTYPE, "/etc/passwd"), "must hold pipeline.yaml"),
        ("p.tar.gz", tar([("pipeline.yaml", b"")], tarfile.LNKTYPE, "../x"), "must hold pipeline.yaml"),
        ("p.tar.gz", tar([("pipeline.yaml", b"")], tarfile.CHRTYPE), "must hold pipeline.yaml"),
        ("p.tar.gz", tar((f"{number}.yaml", b"x") for number in range(1100)), "too many entries"),
        ("p.tar.gz", tar([("a", b"\0" * LIMIT * 20), ("pipeline.yaml", PIPELINE)]), "too large"),
        ("p.tar.gz", tar([("pipeline.yaml", b" " * LIMIT * 2)]), "larger than"),
        ("p.tar.gz", tar([("pipeline.yaml", PIPELINE)])[:-30], "not a readable tar.gz"),
        ("p.tar.gz", PIPELINE, "not a readable tar.gz"),
        ("p.zip", packed((f"{number}.yaml", b"x") for number in range(1100)), "more than 1000 entries"),
        ("p.zip", packed([("pipeline.yaml", b" " * LIMIT * 50)]), "larger than"),
        ("p.zip", packed([("pipeline.yaml", PIPELINE)])[:-30], "not a readable zip"),
        ("p.zip", packed([("pipeline.yaml", PIPELINE)]).replace(b"PK\x01\x02", b"PK\x09\x02"), "not a readable zip"),
        ("p.zip", packed([("a.yaml", PIPELINE), ("b.yaml", PIPELINE)]), "must hold pipeline.yaml"),
        ("p.exe", PIPELINE, "must end in"),
        ("p.yaml", b"x" * (LIMIT + 1), "larger than"),
        ("p.yaml", b"", "must be a pipeline"),
        ("p.yaml", b"- a\n- b", "must be a pipeline"),
        ("p.yaml", b"a: 1\n---\nb: 1\n---\nc: 1", "must be a pipeline"),
        ("p.yaml", b"a: &a [*a]", "nodes"),
        ("p.yaml", b"a: {b: 1, b: 2}", "twice"),
        ("p.yaml", b"a: !!python/object/apply:os.system [true]", "not valid YAML"),
        ("p.yaml", b"a: !!binary x", "not valid YAML"),
        ("p.yaml", b'a: "\\ud800"', "not valid YAML"),
        ("p.yaml", b"\x80", "UTF-8"),
        ("p.yaml", b"a: " + b"9" * 5000, "not valid YAML"),
        ("p.yaml", b"[" * 5000, "deep"),
    ],
)
def test_packages_that_are_refused(name: str, data: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        read_package(name, data, LIMIT)


def test_the_platform_may_come_first() -> None:
    expected = {"pipeline_spec": {"pipelineInfo": {"name": "x"}}, "platform_spec": {"platforms": {}}}
    for text in (b"pipelineInfo: {name: x}\n---\nplatforms: {}", b"platforms: {}\n---\n---\npipelineInfo: {name: x}"):
        assert read_package("p.yaml", text, LIMIT) == expected


@given(st.integers(0, 200), st.integers(0, 255))
def test_an_archive_with_a_wrong_byte(position: int, byte: int) -> None:
    for name, whole in (
        ("p.zip", packed([("pipeline.yaml", PIPELINE)])),
        ("p.tar.gz", tar([("pipeline.yaml", PIPELINE)])),
    ):
        data = bytearray(whole)
        data[position % len(data)] = byte
        try:
            read_package(name, bytes(data), LIMIT)
        except InvalidArgument as error:
            assert str(error)
