"""TensorFlowEvent: what tensorboardX and TensorFlow write is read as it grows, and bad bytes break nothing."""

import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_katib.collectors import CollectionError, Collector, MetricLog, Place, make, parse, tensorflow_event
from mlmesh_katib.collectors.event import read_scalars
from mlmesh_katib.collectors.tfrecord import MAX_RECORD, masked_crc32c
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary


def collector_of(work: Path, metrics: Sequence[str] = ("loss",)) -> Collector:
    spec = {"collector": {"kind": "TensorFlowEvent"}, "source": {"fileSystemPath": {"path": "/runs"}}}
    return make(parse(spec, metrics), Place(None, work))


def pairs(logs: Sequence[MetricLog]) -> list[tuple[str, str]]:
    return [(log.name, log.value) for log in logs]


def poll_until(collector: Collector, count: int, *writers: SummaryWriter) -> list[MetricLog]:
    """Polls until so many reports are there: `flush` does not wait for the thread that writes."""
    found: list[MetricLog] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        for writer in writers:
            writer.flush()
        found += collector.poll()
    return found


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def scalar(tag: str, value: float, wall_time: float = 1.5) -> bytes:
    event = Event(wall_time=wall_time, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
    return record(event.SerializeToString())


def tensor(dtype: int, *, tag: str = "loss", **fields: Any) -> bytes:
    value = Summary.Value(tag=tag)
    value.tensor.dtype = dtype
    for name, elements in fields.items():
        if name == "shape":
            for size in elements:
                value.tensor.tensor_shape.dim.add(size=size)
        elif name == "tensor_content":
            value.tensor.tensor_content = elements
        else:
            getattr(value.tensor, name).extend(elements)
    return Event(wall_time=1.5, summary=Summary(value=[value])).SerializeToString()


def event_file(work: Path, folder: str = "", name: str = "events.out.tfevents.1") -> Path:
    path = work / "runs" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_the_checksum_is_castagnoli_s() -> None:
    # RFC 3720, appendix B.4: 32 bytes of zeros have the CRC32C 0x8a9136aa.
    crc = 0x8A9136AA
    assert masked_crc32c(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_what_tensorboardx_writes(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    collector = collector_of(tmp_path, ["loss", "train/accuracy", "val/accuracy"])
    assert collector.poll() == []  # there is no folder yet
    with SummaryWriter(str(runs)) as plain, SummaryWriter(str(runs / "train")) as train:
        plain.add_text("loss", "not a number", 1)
        plain.add_scalar("loss", 0.1, 1, walltime=1638422847.5)
        plain.add_scalar("val/accuracy", 0.75, 1)
        plain.add_histogram("loss_histogram", [1.0, 2.0], 1)
        train.add_scalar("accuracy", 0.9, 1)
        found = poll_until(collector, 3, plain, train)
        assert sorted(pairs(found)) == [("loss", "0.1"), ("train/accuracy", "0.9"), ("val/accuracy", "0.75")]
        assert next(log.time for log in found if log.name == "loss") == "2021-12-02T05:27:27.500000Z"
        plain.add_scalar("loss", float("nan"), 2)
        assert pairs(poll_until(collector, 1, plain)) == [("loss", "nan")]
        train.add_scalar("accuracy", 1e-20, 2)
    assert pairs(collector.poll(ended=True)) == [("train/accuracy", "1e-20")]


@pytest.mark.parametrize(
    ("dtype", "fields", "value"),
    [
        (1, {"float_val": [0.1]}, "0.1"),
        (1, {"tensor_content": struct.pack("<f", 16777217.0)}, "16777216"),
        (1, {"shape": [1, 1], "tensor_content": struct.pack("<f", -3.5)}, "-3.5"),
        (2, {"double_val": [0.1]}, "0.1"),
        (2, {"tensor_content": struct.pack("<d", 1 / 3)}, repr(1 / 3)),
        (3, {"int_val": [-7]}, "-7"),
        (9, {"int64_val": [-(2**60)]}, str(-(2**60))),
        (9, {"tensor_content": struct.pack("<q", 5)}, "5"),
        (19, {"half_val": [0x3800]}, "0.5"),
        (14, {"half_val": [0x3FC0]}, "1.5"),
        (1, {"shape": []}, "0"),  # elements that are left out are 0
        (1, {"shape": [2], "tensor_content": struct.pack("<ff", 1, 2)}, None),
        (1, {"shape": [0]}, None),
        (7, {"string_val": [b"text"]}, None),
    ],
)
def test_scalars_of_tensorflow_2(dtype: int, fields: dict[str, Any], value: str | None) -> None:
    assert [found.value for found in read_scalars(tensor(dtype, **fields))] == ([] if value is None else [value])


@given(value=st.floats(width=32))
def test_a_number_comes_back(value: float) -> None:
    event = Event(wall_time=2.0, summary=Summary(value=[Summary.Value(tag="é", simple_value=value)]))
    (found,) = read_scalars(event.SerializeToString())
    assert (found.seconds, found.tag) == (2.0, "é")
    assert struct.pack("<f", float(found.value)) == struct.pack("<f", value) or value != value


@pytest.mark.parametrize(
    ("metrics", "folder", "tag", "found"),
    [
        (["loss"], "", "loss", ["loss"]),
        (["loss"], "deep/er", "loss", ["loss"]),
        (["loss"], "", "loss_1", ["loss"]),  # as in Katib
        (["loss"], "", "xloss", []),
        (["loss", "loss_1"], "", "loss_1", ["loss_1"]),
        (["train/loss"], "train", "loss", ["train/loss"]),
        (["train/loss"], "a/train", "loss", ["train/loss"]),
        (["train/loss"], "test", "loss", []),
        (["train/loss"], "pretrain", "loss", []),
        (["train/loss", "test/loss"], "test", "loss", ["test/loss"]),
        (["train/loss"], "", "train/loss", ["train/loss"]),
        (["runs/loss"], "", "loss", ["runs/loss"]),  # the folder of the manifest counts
        (["train/"], "train", "loss", []),
    ],
)
def test_folders_are_part_of_names(tmp_path: Path, metrics: list[str], folder: str, tag: str, found: list[str]) -> None:
    event_file(tmp_path, folder).write_bytes(scalar(tag, 1.0))
    assert [name for name, _ in pairs(collector_of(tmp_path, metrics).poll(ended=True))] == found


def test_a_record_counts_once_it_is_whole(tmp_path: Path) -> None:
    path = event_file(tmp_path)
    data = scalar("loss", 1.0) + scalar("loss", 2.0)
    collector, found = collector_of(tmp_path), []
    for end in range(1, len(data) + 1):
        with path.open("ab") as stream:
            stream.write(data[end - 1 : end])
        if new := collector.poll():
            found.append((end, pairs(new)))
    assert found == [(len(data) // 2, [("loss", "1")]), (len(data), [("loss", "2")])]


def test_large_records_are_passed_over(tmp_path: Path) -> None:
    image = record(b"loss" + bytes(MAX_RECORD))
    path = event_file(tmp_path)
    path.write_bytes(scalar("loss", 1.0) + image[:1000])
    collector = collector_of(tmp_path)
    assert pairs(collector.poll()) == [("loss", "1")]
    assert collector.poll() == []  # the rest of the image is not there yet
    with path.open("ab") as stream:
        stream.write(image[1000:] + scalar("loss", 2.0))
    assert pairs(collector.poll()) == [("loss", "2")]


def test_a_file_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = event_file(tmp_path)
    path.write_bytes(scalar("loss", 1.0) * 2)
    collector = collector_of(tmp_path)
    assert len(collector.poll()) == 2
    path.write_bytes(scalar("loss", 3.0))
    assert pairs(collector.poll()) == [("loss", "3")]


def test_damage(tmp_path: Path) -> None:
    good, other = scalar("loss", 1.0), scalar("loss", 2.0)
    damaged = bytearray(good)
    damaged[20] ^= 1
    path = event_file(tmp_path)
    path.write_bytes(bytes(damaged) + other)  # the data of a record: the next one is still found
    assert pairs(collector_of(tmp_path).poll(ended=True)) == [("loss", "2")]
    path.write_bytes(bytes(damaged))
    with pytest.raises(CollectionError, match=r"events.out.tfevents.1: an event is damaged"):
        collector_of(tmp_path).poll(ended=True)
    damaged[0] ^= 1
    path.write_bytes(bytes(damaged) + other)  # its length: nobody knows where the next one is
    with pytest.raises(CollectionError, match="an event file is damaged"):
        collector_of(tmp_path).poll(ended=True)
    event_file(tmp_path, name="events.out.tfevents.2").write_bytes(other)
    assert pairs(collector_of(tmp_path).poll(ended=True)) == [("loss", "2")]


def test_only_event_files_and_no_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside.tfevents.1"
    outside.write_bytes(scalar("loss", 1.0))
    event_file(tmp_path, "a", name="checkpoint").write_bytes(scalar("loss", 1.0))
    (tmp_path / "runs/events.out.tfevents.link").symlink_to(outside)
    (tmp_path / "runs/up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "runs/events.out.tfevents.pipe")
    assert collector_of(tmp_path).poll(ended=True) == []
    (tmp_path / "runs").rename(tmp_path / "other")
    (tmp_path / "runs").symlink_to(tmp_path / "other")
    with pytest.raises(CollectionError, match="links are not followed"):
        collector_of(tmp_path).poll(ended=True)


def test_many_files_and_deep_folders_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow_event, "MAX_FILES", 3)
    for number in range(5):
        event_file(tmp_path, name=f"events.out.tfevents.{number}").write_bytes(scalar("loss", number))
    deep = "/".join("d" * 30)
    event_file(tmp_path, deep).write_bytes(scalar("loss", 9.0))
    assert [value for _, value in pairs(collector_of(tmp_path).poll(ended=True))] == ["0", "1", "2"]


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), framed=st.booleans(), cut=st.integers(0, 60))
def test_bad_bytes_break_nothing(tmp_path_factory: pytest.TempPathFactory, data: bytes, framed: bool, cut: int) -> None:
    work = tmp_path_factory.getbasetemp()
    message = scalar("loss", 1.0)[12:-4][:cut] + data
    event_file(work).write_bytes(record(message) if framed else message)
    try:
        collector_of(work).poll(ended=True)
    except CollectionError as error:
        assert "damaged" in str(error)
