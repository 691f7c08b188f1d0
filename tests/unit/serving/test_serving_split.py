"""Which revision a request goes to: shares, header rules, sticky keys, shadows."""

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import InvalidArgument
from mlmesh_serving.traffic.buckets import assign, bucket_of
from mlmesh_serving.traffic.rules import check_patterns
from mlmesh_serving.traffic.sequence import GOLDEN, ROOT_OF_TWO, Sequence32
from mlmesh_serving.traffic.settings import (
    HeaderRule,
    Match,
    Shadow,
    Sticky,
    Target,
    Traffic,
    check_traffic,
    traffic_from_json,
    traffic_to_json,
)
from mlmesh_serving.traffic.split import Shares, Split

REQUESTS = 10_000


@st.composite
def percents(draw: st.DrawFn) -> dict[int, int]:
    """Shares of one to five revisions."""
    cuts = sorted(draw(st.lists(st.integers(1, 99), max_size=4, unique=True)))
    numbers = draw(st.lists(st.integers(1, 99), min_size=len(cuts) + 1, max_size=len(cuts) + 1, unique=True))
    return dict(zip(numbers, (b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)), strict=True))


@settings(max_examples=25, deadline=None)
@given(shares=percents(), start=st.integers(0, 2**32 - 1))
def test_shares_are_exact_over_10_000_requests(shares: dict[int, int], start: int) -> None:
    """Within 5; chance would be off by sqrt(10,000 * p * (1 - p)), up to 50, and more in one case of three."""
    split = Split(Shares(shares), start=start)
    got = Counter(split.choose({}) for _ in range(REQUESTS))
    for revision, percent in shares.items():
        assert abs(got[revision] - REQUESTS * percent / 100) <= 5, (shares, got)


@pytest.mark.parametrize("step", [GOLDEN, ROOT_OF_TWO])
@pytest.mark.parametrize("every", [1, 2, 3, 4, 5, 10, 100])
def test_clients_that_take_turns_each_get_their_share(step: int, every: int) -> None:
    """Where revisions took turns in a fixed order, one client of two might never see the canary."""
    sequence = Sequence32([1] * 90 + [2] * 10, step=step)
    canary = [sequence.choose() == 2 for _ in range(2000 * every)]
    for turn in range(every):
        assert abs(sum(canary[turn::every]) - 200) <= 20


def test_any_short_run_has_its_share() -> None:
    sequence = Sequence32([1] * 90 + [2] * 10)
    canary = [sequence.choose() == 2 for _ in range(5000)]
    for begin in range(0, 4900, 7):
        assert abs(sum(canary[begin : begin + 100]) - 10) <= 3


RULES = (
    HeaderRule("x-canary", Match.EXACT, "always", 3),
    HeaderRule("x-user", Match.PREFIX, "test-", 2),
    HeaderRule("x-user", Match.REGEX, r"(ada|grace)@.*\.org", 3),
)


@pytest.mark.parametrize(
    ("headers", "revision"),
    [
        ({"x-canary": "always"}, 3),
        ({"x-canary": "always", "x-user": "test-7"}, 3),
        ({"x-canary": "alway"}, 1),
        ({"x-user": "test-7"}, 2),
        ({"x-user": "a test-7"}, 1),
        ({"x-user": "ada@example.org"}, 3),
        ({"x-user": "not-ada@example.org"}, 1),
        ({"x-user": "ada@example.org.evil"}, 1),
        ({"x-user": "ada@" + "x" * 2000 + ".org"}, 1),
        ({}, 1),
    ],
)
def test_the_first_rule_that_matches_decides(headers: dict[str, str], revision: int) -> None:
    assert Split(Shares({1: 100}, rules=RULES)).choose(headers) == revision


def test_a_pattern_is_linear_in_what_it_is_asked() -> None:
    """This one takes a backtracking matcher longer than the age of the universe."""
    rule = HeaderRule("x", Match.REGEX, "(a+)+$", 2)
    assert Split(Shares({1: 100}, rules=(rule,))).choose({"x": "a" * 1000 + "b"}) == 1


@pytest.mark.parametrize("pattern", ["(", "a{2000}{2000}", r"(a)\1", "[z-a]"])
def test_a_bad_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_patterns([HeaderRule("x", Match.EXACT, "(", 1), HeaderRule("x", Match.REGEX, pattern, 1)])
    assert refused.value.violations[0][0] == "rules[1].regex"


@given(key=st.text(min_size=1))
def test_a_key_stays_where_it_is(key: str) -> None:
    one, two = (Split(Shares({1: 70, 2: 30}, sticky_header="x-user"), b"iris") for _ in range(2))
    assert len({split.choose({"x-user": key}) for split in (one, two) for _ in range(3)}) == 1


def test_keys_are_spread_by_the_shares() -> None:
    split = Split(Shares({1: 70, 2: 30}, sticky_header="x-user"), b"iris")
    got = Counter(split.choose({"x-user": f"user-{number}"}) for number in range(REQUESTS))
    assert abs(got[2] - 3000) < 4 * (REQUESTS * 0.3 * 0.7) ** 0.5
    assert abs(Counter(split.choose({}) for _ in range(REQUESTS))[2] - 3000) <= 5, "without a key: the shares"


@settings(max_examples=50, deadline=None)
@given(chain=st.lists(percents(), min_size=2, max_size=5))
def test_a_change_of_shares_moves_as_few_keys_as_it_must(chain: list[dict[int, int]]) -> None:
    buckets = assign((), chain[0])
    for before, after in itertools.pairwise(chain):
        moved = assign(buckets, after)
        assert Counter(moved) == after
        must = sum(max(0, percent - after.get(revision, 0)) for revision, percent in before.items())
        assert sum(old != new for old, new in zip(buckets, moved, strict=True)) == must
        buckets = moved


def test_models_have_different_keys_together() -> None:
    """Else the same users would try every canary."""
    first, second = ([bucket_of(f"user-{n}", salt) < 10 for n in range(2000)] for salt in (b"one", b"two"))
    assert 2 <= sum(a and b for a, b in zip(first, second, strict=True)) <= 60


def test_a_shadow_gets_its_share_of_each_revision() -> None:
    split = Split(Shares({1: 80, 2: 20}, shadow=(3, 25)), start=0)
    copies: Counter[tuple[int, bool]] = Counter()
    for _ in range(REQUESTS):
        revision = split.choose({})
        copies[revision, split.mirrors()] += 1
    assert abs(copies[1, True] - 2000) <= 40 and abs(copies[2, True] - 500) <= 40


TRAFFIC = Traffic(
    (Target(1, 90, "stable"), Target(0, 10)), RULES, Sticky("x-user"), Shadow(3, 5)
)  # fmt: skip


def test_settings_are_kept_as_they_are() -> None:
    assert traffic_from_json(traffic_to_json(TRAFFIC)) == check_traffic(TRAFFIC)
    assert traffic_from_json({}) == Traffic()
    assert TRAFFIC.revisions() == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("traffic", "field"),
    [
        (Traffic((Target(1, 90),)), "targets"),
        (Traffic((Target(1, 101), Target(2, -1))), "targets[0].percent"),
        (Traffic((Target(1, 50, "a"), Target(2, 50, "a"))), "targets[1].tag"),
        (Traffic((Target(1, 100, "1"),)), "targets[0].tag"),
        (Traffic((Target(1, 100, "a-"),)), "targets[0].tag"),
        (Traffic((Target(1, 100),) + (Target(2, 0),) * 40), "targets"),
        (Traffic(rules=(HeaderRule("X-Upper", Match.EXACT, "a", 1),)), "rules[0].header"),
        (Traffic(rules=(HeaderRule("x", Match.EXACT, "", 1),)), "rules[0].exact"),
        (Traffic(rules=(HeaderRule("x", Match.REGEX, "a" * 257, 1),)), "rules[0].regex"),
        (Traffic(rules=(HeaderRule("x", Match.EXACT, "a", 1),) * 33), "rules"),
        (Traffic(sticky=Sticky("no header")), "sticky.header"),
        (Traffic(shadow=Shadow(1, 0)), "shadow.percent"),
    ],
)
def test_bad_settings_are_refused_by_name(traffic: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_traffic(traffic)
    assert refused.value.violations[0][0] == field
