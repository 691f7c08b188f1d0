"""When recurring runs fire, and what their runs get."""

import datetime
import zoneinfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import InvalidArgument
from mlmesh_pipeline.recurring.cron import parse_cron
from mlmesh_pipeline.recurring.placeholders import Firing, fill, go_time
from mlmesh_pipeline.recurring.schedule import NEVER, Schedule, Trigger

NOON = int(datetime.datetime(2024, 2, 28, 12, tzinfo=datetime.UTC).timestamp())


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).timestamp())


def following(cron: str, since: str, count: int = 3) -> list[str]:
    found, moment = [], at(since)
    expression = parse_cron(cron, "cron")
    for _ in range(count):
        after = expression.after(moment)
        assert after is not None
        found.append(datetime.datetime.fromtimestamp(after, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S"))
        moment = after
    return found


@pytest.mark.parametrize(
    ("cron", "since", "expected"),
    [
        ("0 0 * * * *", "2024-02-28T23:30:00Z", ["2024-02-29T00:00:00", "2024-02-29T01:00:00", "2024-02-29T02:00:00"]),
        (
            "*/20 * * * * ?",
            "2024-01-01T00:00:00Z",
            ["2024-01-01T00:00:20", "2024-01-01T00:00:40", "2024-01-01T00:01:00"],
        ),
        (
            "0 30 9 * * MON-fri",
            "2024-03-01T09:30:00Z",
            ["2024-03-04T09:30:00", "2024-03-05T09:30:00", "2024-03-06T09:30:00"],
        ),
        (
            "0 0 0 29 feb *",
            "2024-03-01T00:00:00Z",
            ["2028-02-29T00:00:00", "2032-02-29T00:00:00", "2036-02-29T00:00:00"],
        ),
        # Day of month or day of week, where neither is a star.
        ("0 0 0 13 * 5", "2024-09-10T00:00:00Z", ["2024-09-13T00:00:00", "2024-09-20T00:00:00", "2024-09-27T00:00:00"]),
        (
            "5/20 0 0 1,15 */6 *",
            "2024-01-01T00:00:05Z",
            ["2024-01-01T00:00:25", "2024-01-01T00:00:45", "2024-01-15T00:00:05"],
        ),
        ("0 15 10 * *", "2024-01-01T00:00:00Z", ["2024-01-01T10:15:00", "2024-01-02T10:15:00", "2024-01-03T10:15:00"]),
        ("@weekly", "2024-01-01T00:00:00Z", ["2024-01-07T00:00:00", "2024-01-14T00:00:00", "2024-01-21T00:00:00"]),
        ("@every 1h30m", "2024-01-01T00:00:07Z", ["2024-01-01T01:30:07", "2024-01-01T03:00:07", "2024-01-01T04:30:07"]),
        ("@every 300ms", "2024-01-01T00:00:00Z", ["2024-01-01T00:00:01", "2024-01-01T00:00:02", "2024-01-01T00:00:03"]),
        # New York: at 2 the clocks go to 3 on 10 March; at 2 they go back to 1 on 3 November.
        (
            "TZ=America/New_York 0 30 2 * * *",
            "2024-03-09T00:00:00Z",
            ["2024-03-09T07:30:00", "2024-03-11T06:30:00", "2024-03-12T06:30:00"],
        ),
        (
            "CRON_TZ=America/New_York 0 30 1 * * *",
            "2024-11-03T00:00:00Z",
            ["2024-11-03T05:30:00", "2024-11-03T06:30:00", "2024-11-04T06:30:00"],
        ),
        (
            "TZ=Asia/Kathmandu 0 0 12 * * *",
            "2024-01-01T00:00:00Z",
            ["2024-01-01T06:15:00", "2024-01-02T06:15:00", "2024-01-03T06:15:00"],
        ),
    ],
)
def test_cron(cron: str, since: str, expected: list[str]) -> None:
    assert following(cron, since) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "* * * *", "* * * * * * *", "60 * * * * *", "* * 24 * * *", "* * * 0 * *", "* * * * 13 *", "* * * * * 7",
        "5-3 * * * * *", "*/0 * * * * *", "*/x * * * * *", "1,,2 * * * * *", "a * * * * *", "* * * * foo *",
        "-1 * * * * *", "@never", "@every", "@every x", "@every 1", "@every -5s", "@every 9999999h",
        "TZ=Nowhere/City * * * * * *",
        "TZ=../../etc/passwd * * * * * *", "TZ=", "٣ * * * * *", "1" * 501, "\0 * * * * *", "1-2-3 * * * * *",
    ],
)  # fmt: skip
def test_what_is_no_cron_expression_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_cron(text, "here")
    assert caught.value.violations[0][0] == "here"


def test_of_five_fields_it_is_said_which_is_the_first() -> None:
    with pytest.raises(
        InvalidArgument, match=r"here: month is not understood: 'mon-fri'; of 5 fields the first is the"
    ):
        parse_cron("30 9 * * mon-fri", "here")


def test_what_never_comes() -> None:
    assert parse_cron("0 0 0 30 2 *", "cron").after(NOON) is None
    assert parse_cron("0 0 0 1 1 *", "cron").after(at("9998-12-31T23:00:00Z")) == at("9999-01-01T00:00:00Z")
    assert parse_cron("0 0 0 1 1 *", "cron").after(at("9999-12-31T23:00:00Z")) is None


def _field(least: int, most: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """A field as text, and the values that it stands for."""
    every = st.just(("*", frozenset(range(least, most + 1))))
    number = st.integers(least, most)
    one = number.map(lambda n: (str(n), frozenset({n})))
    pair = st.tuples(number, number).map(sorted)
    span = pair.map(lambda p: (f"{p[0]}-{p[1]}", frozenset(range(p[0], p[1] + 1))))
    step = st.tuples(pair, st.integers(1, 70)).map(
        lambda p: (f"{p[0][0]}-{p[0][1]}/{p[1]}", frozenset(range(p[0][0], p[0][1] + 1, p[1])))
    )
    single = st.one_of(one, span, step)
    several = st.lists(single, min_size=1, max_size=3).map(
        lambda parts: (",".join(text for text, _ in parts), frozenset().union(*(values for _, values in parts)))
    )
    return st.one_of(every, every, several)


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"]


@given(
    fields=st.tuples(_field(0, 59), _field(0, 59), _field(0, 23), _field(1, 31), _field(1, 12), _field(0, 6)),
    zone=st.sampled_from(ZONES),
    since=st.integers(at("2023-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z")),
)
@settings(max_examples=150, deadline=None)
def test_as_looking_at_each_second(fields: tuple[tuple[str, frozenset[int]], ...], zone: str, since: int) -> None:
    """An oracle that knows no shortcuts: the next three hours, second by second."""
    text = " ".join(word for word, _ in fields)
    seconds, minutes, hours, days, months, weekdays = (values for _, values in fields)
    clock = zoneinfo.ZoneInfo(zone)
    star = fields[3][0] == "*" or fields[5][0] == "*"
    expected = None
    for moment in range(since + 1, since + 3 * 3600):
        local = datetime.datetime.fromtimestamp(moment, clock)
        day, weekday = local.day in days, local.isoweekday() % 7 in weekdays
        clock_matches = local.second in seconds and local.minute in minutes and local.hour in hours
        day_matches = (day and weekday) if star else (day or weekday)
        if clock_matches and day_matches and local.month in months:
            expected = moment
            break
    found = parse_cron(f"TZ={zone} {text}", "cron").after(since)
    if expected is None:
        assert found is None or found >= since + 3 * 3600
    else:
        assert found == expected


@given(st.text(max_size=40) | st.text("0123456789*/,-? @TZ=", max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        expression = parse_cron(text, "cron")
    except InvalidArgument:
        return
    found = expression.after(NOON)
    assert found is None or found > NOON


def test_an_interval_counts_from_the_start() -> None:
    schedule = Schedule(Trigger(interval=60, start=NOON + 100, end=NOON + 200), "UTC")
    assert schedule.next(0, NOON) == NOON + 160
    assert schedule.next(NOON + 160, NOON) == NEVER
    assert Schedule(Trigger(interval=60), "UTC").next(0, NOON) == NOON + 60


def test_cron_begins_after_the_start() -> None:
    schedule = Schedule(Trigger(cron="0 * * * * *", start=NOON + 120, end=NOON + 200), "UTC")
    assert schedule.next(0, NOON) == NOON + 180
    assert schedule.next(NOON + 180, NOON) == NEVER


def test_catching_up_makes_up_for_each_time_and_else_the_latest_stands_for_all() -> None:
    cron, later = Schedule(Trigger(cron="0 * * * * *"), "UTC"), NOON + 605
    assert cron.due(0, NOON, NOON + 59, catch_up=True) is None
    assert cron.due(0, NOON, later, catch_up=True) == NOON + 60
    assert cron.due(NOON + 60, NOON, later, catch_up=True) == NOON + 120
    assert cron.due(0, NOON, later, catch_up=False) == NOON + 600
    interval = Schedule(Trigger(interval=60), "UTC")
    assert interval.due(0, NOON, later, catch_up=True) == NOON + 60
    assert interval.due(0, NOON, NOON + 119, catch_up=False) == NOON + 60
    assert interval.due(0, NOON, later, catch_up=False) == later  # as KFP: the count begins anew
    every = Schedule(Trigger(cron="@every 7s", end=NOON + 30), "UTC")
    assert every.due(0, NOON, later, catch_up=False) == NOON + 28


@given(
    cron=st.sampled_from(["* * * * * *", "0 * * * * *", "*/7 */3 * * * *", "0 0 0 1 * *", "30 59 23 31 12 *"]),
    gap=st.integers(0, 400 * 86_400),
)
@settings(max_examples=60, deadline=None)
def test_the_latest_has_none_after_it(cron: str, gap: int) -> None:
    now = NOON + gap
    schedule = Schedule(Trigger(cron=cron), "UTC")
    found = schedule.due(0, NOON, now, catch_up=False)
    assume(found is not None)
    assert found is not None and found <= now < schedule.next(found, NOON)


def test_placeholders() -> None:
    firing = Firing(at("2024-02-05T03:04:05Z"), at("2024-12-31T23:59:58Z"), 7, "the-run")
    assert fill("[[ScheduledTime]] [[CurrentTime]] [[Index]] [[RunUUID]]", firing) == (
        "20240205030405 20241231235958 7 the-run"
    )
    assert fill("a/[[ScheduledTime.2006-01-02]]/[[CurrentTime.15-04-05]]", firing) == "a/2024-02-05/23-59-58"
    assert fill({"x": ["[[Index]]", 3, None, True], "[[Index]]": 1.5}, firing) == {
        "x": ["7", 3, None, True],
        "[[Index]]": 1.5,
    }
    for left in ("[[Other]]", "[[Index.x]]", "[[ ]]", "[[]]", "[Index]", "[[Index]", ""):
        assert fill(left, firing) == left
    assert fill("[[Index]]" + "[[" * 200_000 + "\n[[Index]]", firing).endswith("[[\n" + fill("[[Index]]", firing))


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("Mon Jan 2 15:04:05 MST 2006", "Mon Feb 5 13:04:09 UTC 2024"),
        ("Monday, 02-Jan-06 03:04:05PM", "Monday, 05-Feb-24 01:04:09PM"),
        ("January _2 3:4:5 pm", "February  5 1:4:9 pm"),
        ("2006-01-02T15:04:05Z07:00", "2024-02-05T13:04:09Z"),
        ("20060102 -0700 002 __2", "20240205 +0000 036  36"),
        ("15h", "13h"),
        ("05.000", "09.000"),
        ("nothing", "nothing"),
    ],
)
def test_layouts_of_go(layout: str, expected: str) -> None:
    assert go_time(at("2024-02-05T13:04:09Z"), layout) == expected
