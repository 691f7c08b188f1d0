"""Metrics in what a trial printed: lines of any kind, expressions of any kind."""

import math
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlmesh_katib.collector import MAX_LOG_BYTES, CollectionTimeout, collect
from mlmesh_katib.objective import MAX_LINE, MetricSummary, Objective, parse_log, summarize

NAMES = ["loss", "accuracy", "val-loss", "a|b", "é"]
names = st.sampled_from(NAMES)
values = st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.integers(-(10**9), 10**9).map(str)
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
]


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(st.text() | st.sampled_from(["loss=", "=1", "loss = = 2", "loss=1 loss=2"]), max_size=5),
    filters=st.lists(st.sampled_from(TWO_GROUPS), max_size=3),
)
@example(lines=["loss x =5"], filters=[TWO_GROUPS[0]])
def test_no_line_and_no_expression_breaks_it(lines: list[str], filters: list[str]) -> None:
    found = parse_log(lines, ["loss"], filters)
    assert all(name == "loss" and value for name, value in found)
    summarize(found)


@given(reports=st.lists(st.tuples(noise, names, st.sampled_from(["=", " = ", "=  ", "\t= "]), values, noise)))
def test_what_is_printed_as_a_report_is_found(reports: list[tuple[str, str, str, str, str]]) -> None:
    lines = [f"{before} {name}{equals}{value} {after}" for before, name, equals, value, after in reports]
    assert parse_log(lines, NAMES, []) == [(name, value) for _, name, _, value, _ in reports]


@given(lines=st.lists(st.tuples(names, values).map("=".join), max_size=6), wanted=st.sets(names))
def test_only_what_is_asked_for_counts(lines: list[str], wanted: set[str]) -> None:
    everything = parse_log(lines, NAMES, [])
    assert parse_log(lines, sorted(wanted), []) == [pair for pair in everything if pair[0] in wanted]


@given(first=st.lists(st.text()), second=st.lists(st.text()))
def test_lines_are_read_one_by_one(first: list[str], second: list[str]) -> None:
    assert parse_log(first + second, NAMES, []) == parse_log(first, NAMES, []) + parse_log(second, NAMES, [])


def test_the_end_of_a_long_line_is_not_read() -> None:
    start, end = "loss=1 ", " loss=2"
    assert parse_log([start + " " * MAX_LINE + end], ["loss"], []) == [("loss", "1")]


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
def test_katib_s_own_expression(line: str, found: list[tuple[str, str]]) -> None:
    assert parse_log([line], ["loss", "accuracy"], []) == found


reports = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats().map(repr) | st.sampled_from(["x", "", "1e999"])))


@given(reports=reports)
def test_a_summary_is_of_what_was_reported(reports: list[tuple[str, str]]) -> None:
    found = {summary.name: summary for summary in summarize(reports)}
    assert set(found) == {name for name, _ in reports}
    for name, summary in found.items():
        texts = [value for reported, value in reports if reported == name]
        finite = [text for text in texts if text not in {"x", ""} and math.isfinite(float(text))]
        if finite:
            assert (summary.latest, {summary.min, summary.max} <= set(finite)) == (finite[-1], True)
            assert float(summary.min) <= float(summary.latest) <= float(summary.max)
        else:
            assert summary == MetricSummary(name, texts[-1], "unavailable", "unavailable")


@pytest.mark.parametrize(
    ("maximize", "strategies", "value"),
    [(False, {}, 1.0), (True, {}, 9.0), (False, {"loss": "latest"}, 4.0), (True, {"loss": "min"}, 1.0)],
)
def test_which_report_counts(maximize: bool, strategies: dict[str, str], value: float) -> None:
    objective = Objective("loss", maximize, None, (), strategies)
    assert objective.value(summarize([("loss", "9"), ("loss", "1"), ("loss", "4")])) == value


# In a process of its own


def test_a_log_is_read_alike_inside_and_outside(tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = "".join(f"epoch {n} loss={n / 7} noise \x00 \u2028\r\n" for n in range(500))
    log.write_bytes(text.encode() + b"\xff\xfe loss=3\n")
    inside = collect(log, ["loss"], [], 10)
    log.write_bytes(log.read_bytes() + b"nothing\n" * 20_000)  # now large enough for a process of its own
    assert collect(log, ["loss"], [], 10) == inside
    assert len(inside) == 501
    assert collect(log, ["loss"], [r"(loss)=([\d.e-]+)"], 10) == inside


def test_no_log_has_no_metrics(tmp_path: Path) -> None:
    assert collect(tmp_path / "log", ["loss"], [], 10) == []


def test_what_comes_after_the_limit_is_not_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stream:
        stream.write(b"loss=1\n")
        stream.seek(MAX_LOG_BYTES)
        stream.write(b"loss=2\n")
    assert collect(log, ["loss"], [], 20) == [("loss", "1")]


def test_an_expression_that_never_ends_is_given_up(tmp_path: Path) -> None:
    endless = r"((?:\w|\w)+)!=(\d)"
    log = tmp_path / "log"
    log.write_text("loss" + "s" * 60)
    assert re.compile(endless).groups == 2
    began = time.monotonic()
    with pytest.raises(CollectionTimeout, match="longer than 1 s"):
        collect(log, ["loss"], [endless], 1)
    assert time.monotonic() - began < 5
