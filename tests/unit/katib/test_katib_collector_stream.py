"""StdOut and File: reports as they are written, whatever is done to the file and whatever is in it."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlmesh_katib.collectors import CollectionError, Collector, MetricLog, Place, make, parse, stream
from mlmesh_katib.collectors.limits import MAX_BYTES, MAX_REPORTS, POLL_BYTES
from mlmesh_katib.collectors.tail import Lines
from mlmesh_katib.collectors.text import DEFAULT_FILTER, MAX_LINE
from mlmesh_katib.collectors.times import Clock, from_seconds, from_text


def stdout(log: Path, metrics: Sequence[str] = ("loss",), *filters: str) -> Collector:
    spec = parse({"source": {"filter": {"metricsFormat": list(filters)}}}, metrics)
    return make(spec, Place(log, None))


def a_file(work: Path, metrics: Sequence[str] = ("loss",), **path: Any) -> Collector:
    spec = {"collector": {"kind": "File"}, "source": {"fileSystemPath": {"path": "/m.log", **path}}}
    return make(parse(spec, metrics), Place(None, work))


def pairs(logs: Sequence[MetricLog]) -> list[tuple[str, str]]:
    return [(log.name, log.value) for log in logs]


def values(logs: Sequence[MetricLog]) -> list[str]:
    return [log.value for log in logs]


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(data)


# As they are written


def test_reports_are_there_as_soon_as_their_lines_are(tmp_path: Path) -> None:
    log = tmp_path / "log"
    collector = stdout(log)
    assert collector.poll() == []  # nothing is there yet
    append(log, b"loss=1\nlo")
    assert values(collector.poll()) == ["1"]
    assert collector.poll() == []
    append(log, b"ss=2")
    assert collector.poll() == []  # 2 may go on
    append(log, b"5\nloss=3\rloss=4\r")
    assert values(collector.poll()) == ["25", "3", "4"]
    append(log, b"loss=5")
    assert values(collector.poll(ended=True)) == ["5"]
    assert collector.poll(ended=True) == []


def test_each_report_has_a_time_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("loss=1 loss=2\nloss=3\n")
    collector = stdout(log)
    first = collector.poll()
    append(log, b"loss=4\n")
    times = [report.time for report in [*first, *collector.poll()]]
    assert times == sorted(set(times))
    assert len(times) == 4


@given(
    text=st.lists(st.sampled_from([b"loss=1", b" loss=2 ", b"\n", b"\r", b"\xff", b"3", b"loss"])).map(b"".join),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_how_it_is_written_does_not_matter(tmp_path_factory: pytest.TempPathFactory, text: bytes, data: Any) -> None:
    folder = tmp_path_factory.mktemp("stream")
    (folder / "whole").write_bytes(text)
    whole = pairs(stdout(folder / "whole").poll(ended=True))
    collector, found = stdout(folder / "pieces"), []
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        append(folder / "pieces", text[start:end])
        found += pairs(collector.poll())
    found += pairs(collector.poll(ended=True))
    collector.close()
    assert found == whole


# Whatever is done to the file


def test_a_log_that_is_replaced_is_read_to_its_end_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("loss=1\n")
    collector = stdout(log)
    assert values(collector.poll()) == ["1"]
    append(log, b"loss=2\nloss=3")
    log.rename(tmp_path / "log.1")
    log.write_text("7\nloss=4\n")  # what was left of the old one does not become "loss=37"
    found: list[str] = []
    for _ in range(4):
        found += values(collector.poll())
    assert found == ["2", "3", "4"]


def test_a_log_that_is_cut_off_is_read_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("loss=1\nloss=2\nlo")
    collector = stdout(log)
    assert values(collector.poll()) == ["1", "2"]
    log.write_text("ss=9\nloss=3\n")  # what was left of the old one does not become "loss=9"
    assert values(collector.poll()) == ["3"]


def test_a_log_that_is_removed_is_still_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb", buffering=0) as writer:
        collector = stdout(log)
        writer.write(b"loss=1\n")
        assert values(collector.poll()) == ["1"]
        log.unlink()
        writer.write(b"loss=2\n")
        assert values(collector.poll()) == ["2"]
    log.write_text("loss=3\n")
    assert values([*collector.poll(), *collector.poll()]) == ["3"]


# Nothing outside, and nothing that is no file


def test_no_link_is_followed(tmp_path: Path) -> None:
    work, secret = tmp_path / "work", tmp_path / "m.log"
    work.mkdir()
    secret.write_text("loss=1\n")
    (work / "m.log").symlink_to(secret)
    with pytest.raises(CollectionError, match="not a plain file"):
        a_file(work).poll(ended=True)
    (work / "folder").symlink_to(tmp_path)
    with pytest.raises(CollectionError, match="links are not followed"):
        a_file(work, path="folder/m.log").poll(ended=True)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.log")
    collector = a_file(tmp_path)
    assert collector.poll() == []
    with pytest.raises(CollectionError, match="not a plain file"):
        collector.poll(ended=True)


def test_what_cannot_be_read_counts_only_where_nothing_was_found(tmp_path: Path) -> None:
    (tmp_path / "m.log").write_text("loss=1\n")
    collector = a_file(tmp_path)
    assert values(collector.poll()) == ["1"]
    (tmp_path / "m.log").unlink()
    (tmp_path / "m.log").mkdir()
    assert [*collector.poll(), *collector.poll(), *collector.poll(ended=True)] == []


def test_a_trial_elsewhere_has_no_files_here() -> None:
    with pytest.raises(CollectionError, match="not on this machine"):
        make(parse({"collector": {"kind": "File"}}, ["loss"]), Place(None, None)).poll(ended=True)


# Bounded


def test_a_trial_that_prints_much_is_read_in_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"nothing at all\n" * (4 * POLL_BYTES // 15) + b"loss=1\n")
    collector = stdout(log)
    assert collector.poll() == []  # not there yet
    assert values(collector.poll(ended=True)) == ["1"]


def test_what_comes_after_the_limit_is_not_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as writer:
        writer.write(b"loss=1\n")
        writer.seek(MAX_BYTES - 6)
        writer.write(b"\nloss=2\nloss=3\n")
    # The last line is cut off in "loss=2": half a line is none.
    assert values(stdout(log).poll(ended=True)) == ["1"]


def test_reports_have_an_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"loss=1 loss=1 loss=1\n" * (MAX_REPORTS // 3 + 100))
    collector = stdout(log)
    assert len(collector.poll()) + len(collector.poll(ended=True)) == MAX_REPORTS
    append(log, b"loss=2\n")
    assert collector.poll(ended=True) == []


def test_expressions_that_take_too_long_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_SECONDS", 0.05)
    log = tmp_path / "log"
    log.write_bytes(b"loss " + b"a" * MAX_LINE)
    # Each of 4,000 matches tries 3,000 instructions on what is left of the line.
    collector = stdout(log, ["loss"], r"(a)((?:a?){999}a{999}b)?")
    with pytest.raises(CollectionError, match="took longer"):
        collector.poll(ended=True)
    assert collector.poll() == []


def test_the_end_of_a_long_line_is_not_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"loss=1 " + b" " * MAX_LINE + b" loss=2\nloss=3\n")
    assert values(stdout(log).poll(ended=True)) == ["1", "3"]


@given(pieces=st.lists(st.binary(max_size=50)), longest=st.integers(1, 20))
def test_lines_are_as_long_as_they_may(pieces: list[bytes], longest: int) -> None:
    lines = Lines(longest)
    found = [line for piece in pieces for line in lines.feed(piece)] + lines.finish()
    whole = b"".join(pieces).replace(b"\r", b"\n").split(b"\n")
    assert found == [line[:longest] for line in whole if line]


# Whatever is in it: text

NAMES = ["loss", "accuracy", "val-loss", "a|b"]
names = st.sampled_from(NAMES)
numbers = st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.integers(-(10**9), 10**9).map(str)
# Not a digit, a dot or an E next to a value, and nothing that looks like a report.
noise = st.text(st.characters(codec="utf-8", exclude_characters="=\n\r")).filter(
    lambda text: not any(name in text for name in NAMES)
)
TWO_GROUPS = [
    r"(loss)?\s*=\s*(\d+)",
    r"(\w+)|(x)",
    r"()()",
    r'\{"(\w+)": ([^,}]+)',
    r"(?P<n>\w+):(?P<v>\S*)",
    r"(loss)=((\d)+)+",
    r"((?:\w|\w)+)!=(\d)",
    r"(\S+)(.*)",
    r"^(loss) (.*)$",
]


def read(tmp_path: Path, data: bytes, metrics: Sequence[str] = ("loss",), *filters: str) -> list[MetricLog]:
    log = tmp_path / "log"
    log.write_bytes(data)
    collector = stdout(log, metrics, *filters)
    found = list(collector.poll(ended=True))
    collector.close()
    return found


@settings(max_examples=150, deadline=None)
@given(
    data=st.lists(
        st.binary(max_size=20)
        | st.sampled_from([b"loss=", b"=1", b"loss = = 2", b"loss=1 loss=2", b"\n", b"loss\xff=3"])
    ).map(b"".join),
    filters=st.lists(st.sampled_from(TWO_GROUPS), max_size=3),
)
@example(data=b"loss x =5", filters=[TWO_GROUPS[0]])
def test_nothing_in_a_log_breaks_it(tmp_path_factory: pytest.TempPathFactory, data: bytes, filters: list[str]) -> None:
    for report in read(tmp_path_factory.getbasetemp(), data, ["loss"], *filters):
        assert report.name == "loss"
        assert 0 < len(report.value) <= 255
        assert report.value.isprintable()


@settings(max_examples=100, deadline=None)
@given(reports=st.lists(st.tuples(noise, names, st.sampled_from(["=", " = ", "=  ", "\t= "]), numbers, noise)))
def test_what_is_printed_as_a_report_is_found(
    tmp_path_factory: pytest.TempPathFactory, reports: list[tuple[str, str, str, str, str]]
) -> None:
    lines = [f"{before} {name}{equals}{value} {after}\n" for before, name, equals, value, after in reports]
    found = read(tmp_path_factory.getbasetemp(), "".join(lines).encode(), NAMES)
    assert pairs(found) == [(name, value) for _, name, _, value, _ in reports]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("epoch 3: loss=0.25 accuracy=9.5e-1", [("loss", "0.25"), ("accuracy", "9.5e-1")]),
        ("loss = -.5", [("loss", "-.5")]),
        ("loss=nan", []),
        ("loss: 0.5", []),
        ("xloss=1", []),
        ("loss", []),
    ],
)
def test_katib_s_own_expression(tmp_path: Path, line: str, found: list[tuple[str, str]]) -> None:
    assert pairs(read(tmp_path, line.encode(), ["loss", "accuracy"])) == found
    assert pairs(read(tmp_path, line.encode(), ["loss", "accuracy"], DEFAULT_FILTER)) == found


def test_a_value_need_not_be_a_number(tmp_path: Path) -> None:
    found = read(tmp_path, b"loss: nan\nloss: -inf\nloss: none\n", ["loss"], r"(\w+): (\S+)")
    assert values(found) == ["nan", "-inf", "none"]


KATIB_TEXT = r"{metricName: ([\w|-]+), metricValue: ((-?\d+)(\.\d+)?)}"


def test_lines_that_begin_with_a_time(tmp_path: Path) -> None:
    text = (
        "2024-03-04T17:55:08Z INFO  {metricName: accuracy, metricValue: 0.8078};{metricName: loss, metricValue: 0.5}\n"
        "2024-03-04T17:55:08.000035161+09:00 INFO {metricName: loss, metricValue: -0.36}\n"
        "2024-03-04T17:55:08Z INFO {metricName: accuracy, metricValue: .333}\n"
        "invalid INFO {metricName: loss, metricValue: 0.7}\n"
    )
    found = read(tmp_path, text.encode(), ["accuracy", "loss"], KATIB_TEXT)
    assert pairs(found) == [("accuracy", "0.8078"), ("loss", "0.5"), ("loss", "-0.36"), ("loss", "0.7")]
    assert [report.time for report in found[:3]] == [
        "2024-03-04T17:55:08.000000Z",
        "2024-03-04T17:55:08.000000Z",
        "2024-03-04T08:55:08.000035Z",
    ]
    assert found[3].time > "2024-03-05"  # when it was read


@given(
    text=st.text(max_size=40)
    | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", fullmatch=True)
)
def test_a_time_is_one_or_none(text: str) -> None:
    found = from_text(text)
    assert found is None or (from_text(found) == found and len(found) == len("2024-03-04T17:55:08.000000Z"))


@given(seconds=st.floats())
def test_seconds_are_a_time_or_none(seconds: float) -> None:
    found = from_seconds(seconds)
    assert found is None or (math.isfinite(seconds) and from_text(found) == found)


def test_a_clock_never_gives_a_time_twice() -> None:
    clock = Clock()
    times = [clock.now() for _ in range(1000)]
    assert times == sorted(set(times))


# Whatever is in it: JSON


def read_json(work: Path, data: bytes, metrics: Sequence[str] = ("acc", "loss")) -> list[MetricLog]:
    (work / "m.log").write_bytes(data)
    collector = a_file(work, metrics, format="JSON")
    try:
        return list(collector.poll(ended=True))
    finally:
        collector.close()


def test_lines_of_json(tmp_path: Path) -> None:
    lines = [
        b'{"global_step": "0", "loss": "0.22082142531871796", "timestamp": 1638422847.28721}',
        b'{"acc": "0.93", "timestamp": 1638422847, "loss": "x"}',
        b'{"loss": "0.14", "timestamp": "2021-12-02T14:27:50.000035161Z"}',
        b'{"loss": 0.10, "acc": 1e-3, "timestamp": "invalid"}',
        b'{"loss": NaN, "acc": null}',
        b'{"loss": true, "acc": [1]}',
        b'{"loss": -Infinity}',
    ]
    found = read_json(tmp_path, b"\n".join(lines))
    assert pairs(found) == [
        ("loss", "0.22082142531871796"),
        ("acc", "0.93"),
        ("loss", "x"),
        ("loss", "0.14"),
        ("acc", "1e-3"),
        ("loss", "0.10"),
        ("loss", "NaN"),
        ("loss", "-Infinity"),
    ]
    assert [report.time for report in found[:4]] == [
        "2021-12-02T05:27:27.287210Z",
        "2021-12-02T05:27:27.000000Z",
        "2021-12-02T05:27:27.000000Z",
        "2021-12-02T14:27:50.000035Z",
    ]


@pytest.mark.parametrize(
    "line",
    [
        b'"loss": "0.2", "timestamp": 1',
        b'{"loss": "0.2", "timest',
        b'["loss", 1]',
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"loss": "' + b"1" * (64 << 10) + b'"}',
    ],
)
def test_a_line_that_is_not_json_is_left_out(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(CollectionError, match="a line is"):
        read_json(tmp_path, line + b"\n")
    assert values(read_json(tmp_path, b'{"loss": 1}\n' + line + b'\n{"loss": 2}\n')) == ["1", "2"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(
        st.binary(max_size=30)
        | st.dictionaries(st.sampled_from(["acc", "loss", "timestamp", "é"]), JSON).map(
            lambda o: json.dumps(o).encode()
        )
    )
)
def test_nothing_in_a_file_of_json_breaks_it(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    try:
        found = read_json(tmp_path_factory.getbasetemp(), b"\n".join(lines))
    except CollectionError:
        return
    for report in found:
        assert report.name in {"acc", "loss"}
        assert 0 < len(report.value) <= 255
        assert from_text(report.time) == report.time
