"""Knative's autoscaler: examples worked out by hand from its formulas, and what holds whatever comes."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_serving.manifest import ScaleMetric, ScalingSpec
from mlmesh_serving.scaling.activity import Activity, State
from mlmesh_serving.scaling.autoscaler import Autoscaler, Decision, Sample
from mlmesh_serving.scaling.buckets import TimedBuckets, WeightedBuckets
from mlmesh_serving.scaling.delay import DelayWindow
from mlmesh_serving.scaling.share import share
from mlmesh_serving.scaling.spec import Aggregation, AutoscalerSettings, AutoscalerSpec


def spec(*, concurrency: int = 0, shared: AutoscalerSettings | None = None, **scaling: object) -> AutoscalerSpec:
    return AutoscalerSpec(ScalingSpec(**scaling), concurrency, shared or AutoscalerSettings())


def decide(autoscaler: Autoscaler, now: float, ready: int, *, reachable: bool = True) -> Decision:
    decision = autoscaler.decide(now, ready, reachable=reachable)
    assert decision is not None
    return decision


def feed(autoscaler: Autoscaler, first: int, last: int, concurrency: float, rps: float = 0.0) -> None:
    for second in range(first, last + 1):
        autoscaler.record(second, Sample(concurrency, rps))


class TestTarget:
    @pytest.mark.parametrize(
        ("given_spec", "total", "target"),
        [
            (spec(), 100, 70),  # 100 in flight by default, 70 % of it
            (spec(concurrency=10), 10, 7),
            (spec(target=50.0), 50, 35),
            (spec(target=50.0, concurrency=10), 10, 7),  # more than a replica takes is never aimed at
            (spec(target=5.0, concurrency=10), 5, 3.5),
            (spec(metric=ScaleMetric.RPS), 200, 140),
            (spec(metric=ScaleMetric.RPS, target=30.0, concurrency=10), 30, 21),  # the limit is of concurrency
            (spec(target=80.0, target_utilization=1.0), 80, 80),
            (spec(concurrency=1, target_utilization=0.001), 1, 0.01),  # the least target
        ],
    )
    def test_of_a_replica(self, given_spec: AutoscalerSpec, total: float, target: float) -> None:
        assert given_spec.total == pytest.approx(total)
        assert given_spec.target_value == pytest.approx(target)

    @pytest.mark.parametrize(
        ("window", "percentage", "seconds"), [(60.0, 10.0, 6), (65.0, 10.0, 7), (6.0, 1.0, 1), (60.0, 100.0, 60)]
    )
    def test_panic_window(self, window: float, percentage: float, seconds: int) -> None:
        assert spec(window_seconds=window, panic_window_percentage=percentage).panic_window_seconds == seconds


class TestBuckets:
    def test_a_window_that_is_not_full_is_averaged_over_what_there_is(self) -> None:
        buckets = TimedBuckets(60)
        for second, value in enumerate([10, 20, 30]):
            buckets.record(100 + second, value)
        assert buckets.average(102) == 20

    def test_seconds_without_a_value_between_two_count_as_zero(self) -> None:
        buckets = TimedBuckets(60)
        buckets.record(100, 12)
        buckets.record(103, 12)
        assert buckets.average(103) == 6  # 24 / 4

    def test_seconds_since_the_last_value_do_not_count(self) -> None:
        buckets = TimedBuckets(5)
        for second in range(100, 105):
            buckets.record(second, 10 if second < 103 else 40)
        assert buckets.average(104) == 22  # (3 * 10 + 2 * 40) / 5
        assert buckets.average(106) == pytest.approx(30)  # of 102, 103, 104: (10 + 40 + 40) / 3
        assert buckets.average(108) == 40  # 104 is left
        assert buckets.average(109) == 0

    def test_values_of_one_second_add_up(self) -> None:
        buckets = TimedBuckets(6)
        buckets.record(100.1, 3)
        buckets.record(100.9, 4)
        assert buckets.average(100) == 7

    def test_after_a_silent_window_it_begins_anew(self) -> None:
        buckets = TimedBuckets(5)
        buckets.record(100, 50)
        buckets.record(105, 10)
        assert buckets.average(105) == 10

    def test_a_late_value_counts_and_one_that_is_too_late_does_not(self) -> None:
        buckets = TimedBuckets(5)
        buckets.record(104, 10)
        buckets.record(102, 8)
        assert buckets.average(104) == 6  # (8 + 0 + 10) / 3
        buckets.record(99, 1000)
        assert buckets.average(104) == 6

    def test_empty(self) -> None:
        buckets = TimedBuckets(5)
        assert buckets.is_empty(0)
        buckets.record(100, 1)
        assert not buckets.is_empty(105)
        assert buckets.is_empty(106)

    def test_weights(self) -> None:
        # 1 - 0.0001 ** (1 / 5) = 0.8415: the weights are 0.8415, 0.8415 * 0.1585, 0.8415 * 0.1585 ** 2
        buckets = WeightedBuckets(5)
        for second, value in enumerate([5, 10, 20]):
            buckets.record(100 + second, value)
        c = 1 - 0.0001**0.2
        assert buckets.average(102) == pytest.approx(20 * c + 10 * c * (1 - c) + 5 * c * (1 - c) ** 2)
        assert buckets.average(103) == pytest.approx((20 * c + 10 * c * (1 - c) + 5 * c * (1 - c) ** 2) * (1 - c))

    def test_weights_of_a_long_window_do_not_become_plain(self) -> None:
        buckets = WeightedBuckets(600)
        buckets.record(100, 10)
        assert buckets.average(100) == pytest.approx(2)  # the least coefficient is 0.2

    @given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 100)), min_size=1, max_size=60))
    @settings(max_examples=50, deadline=None)
    def test_is_the_average_of_a_naive_one(self, window: int, steps: list[tuple[int, int]]) -> None:
        buckets, now = TimedBuckets(window), 1000
        values: dict[int, float] = {}
        first = last = None
        for pause, value in steps:
            now += pause
            if last is None or now - last >= window:
                values, first = {}, now
            last = now
            values[now] = values.get(now, 0) + value
            buckets.record(now, value)
            assert first is not None
            seconds = min(now - first + 1, window)
            expected = sum(v for second, v in values.items() if second > now - window) / seconds
            assert buckets.average(now) == pytest.approx(expected, abs=2e-6)


class TestDelayWindow:
    @given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), min_size=1, max_size=50))
    @settings(max_examples=50, deadline=None)
    def test_is_the_largest_of_the_window(self, seconds: int, steps: list[tuple[int, int]]) -> None:
        window, now, seen = DelayWindow(seconds), 1000, []
        for pause, value in steps:
            now += pause
            seen.append((now // 2, value))
            window.record(now, value)
            slots = math.ceil(seconds / 2)
            assert window.current() == max(v for slot, v in seen if slot > now // 2 - slots)


class TestStable:
    def test_without_samples_nothing_is_decided(self) -> None:
        assert Autoscaler(spec(), 0, 0).decide(5, 1) is None

    def test_demand_by_target(self) -> None:
        autoscaler = Autoscaler(spec(), 3, 0)
        feed(autoscaler, 1, 120, 190)  # 190 / 70 = 2.7
        assert decide(autoscaler, 120, 3).replicas == 3

    def test_exactly_the_target_needs_no_more(self) -> None:
        autoscaler = Autoscaler(spec(concurrency=10), 1, 0)
        feed(autoscaler, 1, 60, 7)
        assert decide(autoscaler, 60, 1).replicas == 1
        feed(autoscaler, 61, 120, 7.1)
        assert decide(autoscaler, 120, 1).replicas == 2

    def test_rps(self) -> None:
        autoscaler = Autoscaler(spec(metric=ScaleMetric.RPS, target=50.0), 10, 0)
        feed(autoscaler, 1, 120, concurrency=1000, rps=350)  # 350 / 35
        assert decide(autoscaler, 120, 10).replicas == 10

    def test_not_down_by_more_than_half_at_once(self) -> None:
        autoscaler = Autoscaler(spec(concurrency=10), 1, 0)
        feed(autoscaler, 1, 200, 0)
        assert decide(autoscaler, 200, 9).replicas == 4  # floor(9 / 2)
        assert decide(autoscaler, 200, 4).replicas == 2
        assert decide(autoscaler, 200, 1).replicas == 0  # floor(1 / 2)

    def test_what_nobody_can_reach_goes_down_at_once(self) -> None:
        autoscaler = Autoscaler(spec(concurrency=10), 1, 0)
        feed(autoscaler, 1, 200, 0)
        assert decide(autoscaler, 200, 9, reachable=False).replicas == 0

    def test_not_up_by_more_than_the_rate_but_by_one_at_least(self) -> None:
        slowly = AutoscalerSettings(max_scale_up_rate=1.1)
        autoscaler = Autoscaler(spec(target=1.0, target_utilization=1.0, shared=slowly), 1, 0)
        feed(autoscaler, 1, 60, 30)
        assert decide(autoscaler, 60, 2).replicas == 3  # ceil(2.2)
        assert decide(autoscaler, 60, 10).replicas == 11

    def test_without_replicas_it_counts_as_one(self) -> None:
        autoscaler = Autoscaler(spec(concurrency=10, shared=AutoscalerSettings(max_scale_up_rate=3)), 0, 0)
        feed(autoscaler, 1, 6, 700)
        assert decide(autoscaler, 6, 0).replicas == 3

    def test_activation_scale_counts_only_with_demand(self) -> None:
        autoscaler = Autoscaler(spec(concurrency=10, activation_replicas=5), 0, 0)
        feed(autoscaler, 1, 6, 1)
        assert decide(autoscaler, 6, 0).replicas == 5
        feed(autoscaler, 7, 200, 0)
        assert decide(autoscaler, 200, 1).replicas == 0

    def test_scale_down_delay(self) -> None:
        autoscaler = Autoscaler(spec(concurrency=10, scale_down_delay_seconds=30.0), 1, 0)
        feed(autoscaler, 0, 100, 28)
        assert decide(autoscaler, 100, 4).replicas == 4
        feed(autoscaler, 101, 160, 0)
        assert decide(autoscaler, 128, 4).replicas == 4
        assert decide(autoscaler, 160, 4).replicas == 2  # half of four: 100 is more than 30 s ago

    def test_weighted_average_follows_sooner(self) -> None:
        weighted = AutoscalerSettings(aggregation=Aggregation.WEIGHTED_EXPONENTIAL)
        plain, quick = (Autoscaler(spec(concurrency=10, shared=s), 1, 0) for s in (AutoscalerSettings(), weighted))
        for autoscaler in (plain, quick):
            feed(autoscaler, 1, 60, 0)
            feed(autoscaler, 61, 75, 12)
        assert decide(plain, 75, 2).stable_value == 3  # 15 * 12 / 60
        assert decide(quick, 75, 2).stable_value == pytest.approx(12 * (1 - 0.8**15), abs=1e-3)


class TestPanic:
    def test_a_surge_is_followed_at_once_and_nothing_goes_down_for_a_stable_window(self) -> None:
        autoscaler = Autoscaler(spec(concurrency=10), 1, 0)
        feed(autoscaler, 1, 60, 3.5)
        assert not decide(autoscaler, 60, 1).panic
        feed(autoscaler, 61, 66, 70)  # 70 / 7 = 10 replicas; the stable window alone would say 2
        decision = decide(autoscaler, 66, 1)
        assert decision.panic
        assert decision.replicas == 10
        assert decision.stable_value == pytest.approx((54 * 3.5 + 6 * 70) / 60)
        feed(autoscaler, 67, 126, 0)
        for second in range(67, 127):
            assert decide(autoscaler, second, 10).replicas == 10
        feed(autoscaler, 127, 140, 0)
        # The last surge was seen at 66; more than 60 s later the panic is over.
        decision = decide(autoscaler, 127, 10)
        assert not decision.panic
        assert decision.replicas == 5

    def test_begins_at_the_threshold(self) -> None:
        for concurrency, panic in ((140, True), (70, False)):  # 2 * 70 per replica
            autoscaler = Autoscaler(spec(), 1, 0)
            feed(autoscaler, 1, 6, concurrency)
            assert decide(autoscaler, 6, 1).panic is panic

    def test_a_restart_takes_nothing_away(self) -> None:
        autoscaler = Autoscaler(spec(concurrency=10), 8, 100)
        feed(autoscaler, 101, 103, 0)
        assert decide(autoscaler, 103, 8).replicas == 8
        feed(autoscaler, 104, 161, 0)
        assert decide(autoscaler, 161, 8).replicas == 4

    @given(
        st.lists(st.tuples(st.floats(0, 500), st.integers(0, 40)), min_size=1, max_size=120),
        st.sampled_from([0.0, 20.0]),
        st.sampled_from(list(Aggregation)),
    )
    @settings(max_examples=40, deadline=None)
    def test_never_down_in_panic_never_more_than_the_rate(
        self, steps: list[tuple[float, int]], delay: float, aggregation: Aggregation
    ) -> None:
        shared = AutoscalerSettings(max_scale_up_rate=3, aggregation=aggregation)
        autoscaler = Autoscaler(spec(concurrency=10, scale_down_delay_seconds=delay, shared=shared), 0, 0)
        before: Decision | None = None
        most = 0
        for second, (concurrency, ready) in enumerate(steps):
            autoscaler.record(second, Sample(concurrency, 0))
            decision = decide(autoscaler, second, ready)
            most = max(most, math.ceil(3 * max(1, ready)))
            assert 0 <= decision.replicas <= most
            if before is not None and before.panic and decision.panic:
                assert decision.replicas >= before.replicas
            if not decision.panic and not delay:
                assert decision.replicas >= max(1, ready) // 2
            before = decision


class TestBurst:
    @pytest.mark.parametrize(
        ("burst", "ready", "excess"),
        [(211.0, 1, -161), (211.0, 5, 239), (0.0, 5, 0), (-1.0, 5, -1), (10.0, 0, -60)],  # ready * 100 - burst - 50
    )
    def test_excess_capacity(self, burst: float, ready: int, excess: int) -> None:
        autoscaler = Autoscaler(spec(burst_capacity=burst), 1, 0)
        feed(autoscaler, 1, 6, 50)
        assert decide(autoscaler, 6, ready).excess_burst_capacity == excess


class TestActivity:
    def test_to_zero_after_the_stable_window_and_the_grace_period(self) -> None:
        activity = Activity(spec(min_replicas=0), 0)
        assert activity.bound(0, None, 0) == 1  # the initial scale
        assert activity.bound(2, 0, 1) is None  # it has just come
        assert activity.state is State.ACTIVE
        assert activity.bound(61, 0, 1) == 1
        assert activity.bound(62, 0, 1) is None
        assert activity.state is State.INACTIVE
        assert activity.bound(91, 0, 1) is None
        assert activity.bound(92, 0, 1) == 0
        assert activity.bound(500, 0, 0) == 0

    def test_retention_where_it_is_longer(self) -> None:
        activity = Activity(spec(min_replicas=0, zero_retention_seconds=100.0), 0)
        activity.bound(0, 1, 1)
        activity.bound(60, 0, 1)
        assert activity.bound(159, 0, 1) is None
        assert activity.bound(160, 0, 1) == 0

    def test_who_asks_again_in_the_grace_period_keeps_it(self) -> None:
        activity = Activity(spec(min_replicas=0), 0)
        activity.bound(0, 1, 1)
        activity.bound(60, 0, 1)
        assert activity.state is State.INACTIVE
        assert activity.bound(70, 1, 1) == 1
        assert activity.bound(100, 0, 1) == 1
        assert activity.bound(129, 0, 1) == 1
        assert activity.bound(130, 0, 1) is None

    def test_bounds(self) -> None:
        activity = Activity(spec(min_replicas=2, max_replicas=5), 0)
        assert activity.bound(0, 0, 0) == 2
        assert activity.bound(1, 3, 2) == 3
        assert activity.bound(1, 30, 2) == 5
        assert activity.bound(1000, 0, 2) == 2
        assert activity.bound(1000, None, 2) is None

    def test_initial_scale_until_it_was_reached(self) -> None:
        activity = Activity(spec(min_replicas=1, initial_replicas=3), 0)
        assert activity.bound(0, 1, 0) == 3
        assert activity.bound(5, 1, 2) == 3
        assert activity.bound(6, 1, 3) == 1

    def test_initial_scale_of_zero(self) -> None:
        activity = Activity(spec(min_replicas=0, initial_replicas=0), 0)
        assert activity.bound(1, 0, 0) in {0, None}
        activity.activate(5)
        assert activity.state is State.ACTIVATING
        assert activity.bound(5, 1, 0) == 1

    def test_what_never_comes_up_is_given_up(self) -> None:
        activity = Activity(spec(min_replicas=0), 0)
        assert activity.bound(0, 1, 0) == 1
        assert activity.bound(609, 0, 0) == 1
        assert activity.bound(610, 0, 0) == 0

    def test_what_nobody_can_reach_goes_to_zero(self) -> None:
        activity = Activity(spec(min_replicas=3), 0)
        assert activity.bound(0, 3, 3) == 3
        assert activity.bound(60, 0, 3, reachable=False) is None
        assert activity.bound(90, 0, 3, reachable=False) == 0

    @given(
        st.integers(0, 4),
        st.integers(0, 6),
        st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9), st.integers(0, 9)), max_size=60),
    )
    @settings(max_examples=50, deadline=None)
    def test_never_beyond_the_bounds(self, low: int, more: int, steps: list[tuple[int, int, int]]) -> None:
        high = low + more
        bounds = spec(min_replicas=low, max_replicas=high)
        activity, now = Activity(bounds, 0), 0
        for pause, wanted, ready in steps:
            now += pause
            given_replicas = activity.bound(now, wanted, ready)
            if given_replicas is not None:
                assert given_replicas >= low
                assert not high or given_replicas <= high


class TestShare:
    def test_enough_for_all(self) -> None:
        assert share([("a", 2), ("b", 3)], 5) == {"a": 2, "b": 3}

    def test_who_wants_little_gets_it_and_the_others_share(self) -> None:
        assert share([("a", 10), ("b", 1), ("c", 10)], 8) == {"a": 4, "b": 1, "c": 3}

    def test_the_last_in_the_order_go_to_zero(self) -> None:
        assert share([("a", 5), ("b", 1), ("c", 1)], 2) == {"a": 1, "b": 1, "c": 0}

    @given(st.lists(st.integers(0, 12), max_size=12), st.integers(0, 30))
    @settings(max_examples=50, deadline=None)
    def test_fair(self, wanted: list[int], capacity: int) -> None:
        shares = share(list(enumerate(wanted)), capacity)
        assert sum(shares.values()) == min(capacity, sum(wanted))
        for index, most in enumerate(wanted):
            assert 0 <= shares[index] <= most
            for other, others_most in enumerate(wanted):
                if shares[index] > shares[other] + 1:
                    assert shares[other] == others_most
                if other < index and most and others_most and shares[index]:
                    assert shares[other]
