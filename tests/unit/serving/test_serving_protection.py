"""Limits, deadlines, breakers, retries, hedges, drains: what each lets through, and what it costs. Time is virtual."""

import asyncio
import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)
from mlmesh_serving.backend import WireAnswer
from mlmesh_serving.protection import metrics
from mlmesh_serving.protection.admission import Admission, AdmissionLimits
from mlmesh_serving.protection.breaker import Breaker, BreakerSettings, BreakerState
from mlmesh_serving.protection.breaking import Breaking
from mlmesh_serving.protection.budget import RetryThrottle, ShareBudget
from mlmesh_serving.protection.deadline import Deadlines, sooner
from mlmesh_serving.protection.drain import Draining
from mlmesh_serving.protection.hedge import HedgeSettings, Hedging, LatencyWindow
from mlmesh_serving.protection.retry import Retrying, RetrySettings
from mlmesh_serving.protection.wheel import Timer, TimerWheel
from mlmesh_serving.scaling.activator import Activator
from mlmesh_serving.scaling.meter import InFlight
from prometheus_client import REGISTRY
from support.replicas import Replicas, answer_to, request
from support.virtual_time import run_virtually

Outcome = WireAnswer | BaseException


async def outcomes(futures: list[asyncio.Future[WireAnswer]]) -> list[Outcome]:
    return await asyncio.gather(*futures, return_exceptions=True)


async def ready_replicas(count: int = 1, **options: object) -> Replicas:
    replicas = Replicas(**options)
    await replicas.scale(count)
    return replicas


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Ringing(Timer):
    __slots__ = ("__dict__",)

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self.expire = ring  # type: ignore[method-assign]


class TestWheel:
    @given(st.lists(st.tuples(st.floats(0, 5), st.none() | st.floats(0, 5)), max_size=40))
    @settings(max_examples=50, deadline=None)
    def test_never_early_hardly_late_and_never_after_it_was_taken_back(
        self, timers: list[tuple[float, float | None]]
    ) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            wheel, begun, rung = TimerWheel(), loop.time(), dict[int, float]()

            def ring(number: int) -> None:
                assert number not in rung
                rung[number] = loop.time() - begun

            for number, (after, taken_back) in enumerate(timers):
                timer = Ringing(partial(ring, number))
                wheel.add(begun + after, timer)
                if taken_back is not None:
                    loop.call_at(begun + taken_back, wheel.discard, timer)
            await asyncio.sleep(6)
            for number, (after, taken_back) in enumerate(timers):
                if taken_back is None or taken_back > after + 0.006:
                    assert after - 1e-6 <= rung[number] <= after + 0.006
                elif taken_back < after - 1e-6:
                    assert number not in rung

        run_virtually(main())

    def test_of_those_that_are_called_at_once_one_may_take_another_back(self) -> None:
        async def main() -> None:
            wheel, called = TimerWheel(), []

            def ring(number: int) -> None:
                called.append(number)
                for timer in timers:
                    wheel.discard(timer)

            timers = [Ringing(partial(ring, number)) for number in range(5)]
            for timer in timers:
                wheel.add(asyncio.get_running_loop().time() + 0.1, timer)
            await asyncio.sleep(1)
            assert len(called) == 1

        run_virtually(main())


class TestDeadlines:
    @pytest.mark.parametrize(
        ("deadline", "timeout", "expected"),
        [(None, 0, None), (None, 5, 105), (103.0, 5, 103), (120.0, 5, 105), (120.0, 0, 120)],
    )
    def test_the_sooner(self, deadline: float | None, timeout: float, expected: float | None) -> None:
        assert sooner(deadline, 100.0, timeout) == expected

    def test_what_is_late_ends_and_the_backend_is_told(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            replicas = await ready_replicas(answer_seconds=10.0)
            before = Deadlines(replicas, "late", 2.0, TimerWheel())
            begun = loop.time()
            future = before.submit(request(b"x"))
            assert replicas.served[0].deadline == begun + 2
            with pytest.raises(DeadlineExceeded):
                await future
            assert loop.time() - begun == pytest.approx(2, abs=0.02)
            await asyncio.sleep(0)
            assert [given_up.body for given_up in replicas.given_up] == [b"x"]
            assert counted("mlmesh_serving_deadline_exceeded_total", model="late") == 1
            with pytest.raises(DeadlineExceeded):
                before.submit(request(deadline=begun))

        run_virtually(main())

    def test_answers_errors_and_cancelling_pass(self) -> None:
        async def main() -> None:
            replicas = await ready_replicas(answer_seconds=1.0)
            before = Deadlines(replicas, "m", 5.0, TimerWheel())
            assert await before.submit(request(b"x")) == answer_to(b"x")
            future = before.submit(request(b"y"))
            await asyncio.sleep(0.5)
            future.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [given_up.body for given_up in replicas.given_up] == [b"y"]
            replicas.failing = Internal("broken")
            with pytest.raises(Internal):
                await before.submit(request())
            unlimited = Deadlines(replicas, "m", 0.0, TimerWheel())
            replicas.failing = None
            assert await unlimited.submit(request(b"z")) == answer_to(b"z")

        run_virtually(main())


class TestAdmission:
    @staticmethod
    def door(replicas: Replicas, limits: AdmissionLimits, everywhere: InFlight | None = None) -> Admission:
        everywhere = everywhere or InFlight()
        clock = asyncio.get_running_loop().time
        behind = Activator(replicas, "m", clock=clock, everywhere=everywhere)
        return Admission(behind, "m", behind.meter, everywhere, limits)

    def test_most_for_a_model_and_in_all(self) -> None:
        async def main() -> None:
            everywhere = InFlight()
            limits = AdmissionLimits(in_flight=3, everywhere=5)
            replicas = [await ready_replicas(answer_seconds=1.0) for _ in range(2)]
            first, second = (self.door(held, limits, everywhere) for held in replicas)
            futures = [first.submit(request()) for _ in range(3)]
            with pytest.raises(ResourceExhausted, match="model"):
                first.submit(request())
            futures += [second.submit(request()) for _ in range(2)]
            with pytest.raises(ResourceExhausted) as refused:
                second.submit(request())
            assert refused.value.retry_after_seconds
            await outcomes(futures)
            await asyncio.sleep(0)
            assert everywhere.count == 0
            assert await second.submit(request(b"x")) == answer_to(b"x")

        run_virtually(main())

    def test_who_would_be_late_is_told_at_once(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            replicas = await ready_replicas(answer_seconds=0.1, parallel=1)  # ten a second
            door = self.door(replicas, AdmissionLimits())
            before = counted("mlmesh_serving_refused_total", model="m", reason="deadline")
            late: list[float] = []
            refused = 0
            for _ in range(400):  # twenty a second, each with half a second: without refusals all would be late soon
                deadline = loop.time() + 0.5
                try:
                    future = door.submit(request(deadline=deadline))
                except ResourceExhausted as error:
                    refused += 1
                    assert error.retry_after_seconds
                else:
                    future.add_done_callback(lambda _, deadline=deadline: late.append(loop.time() - deadline))
                await asyncio.sleep(0.05)
            assert len(late) >= 195  # the replica is busy all the time
            assert refused >= 195
            assert counted("mlmesh_serving_refused_total", model="m", reason="deadline") - before == refused
            assert max(late[20:]) <= 0.001  # once it has seen that requests wait for each other, nobody is late

        run_virtually(main())

    def test_an_idle_replica_is_never_refused_and_what_was_learnt_is_forgotten(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            replicas = await ready_replicas(answer_seconds=5.0)
            door = self.door(replicas, AdmissionLimits())
            for _ in range(5):
                await door.submit(request())
            replicas.answer_seconds = 0.1
            for _ in range(60):
                await door.submit(request(deadline=loop.time() + 0.5))  # none in flight: it is let in
            running = [door.submit(request(deadline=loop.time() + 0.5)) for _ in range(5)]
            await asyncio.gather(*running)

        run_virtually(main())

    def test_a_burst_of_a_model_that_was_idle_is_let_in(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            replicas = await ready_replicas(4, answer_seconds=0.1)
            door = self.door(replicas, AdmissionLimits())
            for _ in range(50):
                await door.submit(request())
            await asyncio.gather(*(door.submit(request(deadline=loop.time() + 0.2)) for _ in range(40)))

        run_virtually(main())


class TestBreaker:
    def test_opens_after_consecutive_faults(self) -> None:
        breaker = Breaker(BreakerSettings(consecutive_faults=3, open_seconds=5))
        for now, fault in [(0, True), (1, True), (2, False), (3, True), (4, True)]:
            self.send(breaker, now, fault)
        assert breaker.state(4) is BreakerState.CLOSED
        self.send(breaker, 5, True)
        assert breaker.state(5) is BreakerState.OPEN
        assert breaker.admit(9.9) is None
        assert breaker.retry_after(7) == pytest.approx(3)

    def test_opens_at_a_share_of_the_window(self) -> None:
        settings = BreakerSettings(consecutive_faults=0, fault_share=0.5, min_requests=10, window_seconds=10)
        breaker = Breaker(settings)
        for number in range(9):
            self.send(breaker, number * 0.1, True)
        assert breaker.state(1) is BreakerState.CLOSED  # too few requests to tell
        for number in range(9):
            self.send(breaker, 20 + number * 0.1, False)  # the first nine are out of the window
        for _ in range(8):
            self.send(breaker, 21, True)
        assert breaker.state(21) is BreakerState.CLOSED  # 8 of 17
        self.send(breaker, 21, True)
        assert breaker.state(21) is BreakerState.OPEN  # 9 of 18

    def test_one_trial_at_a_time_and_ever_longer_rests(self) -> None:
        breaker = Breaker(BreakerSettings(consecutive_faults=1, open_seconds=5, max_open_seconds=12))
        self.send(breaker, 0, True)
        for opened, rest in [(5, 10), (15, 12), (27, 12)]:
            assert breaker.state(opened) is BreakerState.HALF_OPEN
            trial = breaker.admit(opened)
            assert trial is not None
            assert breaker.admit(opened) is None
            breaker.finish(opened, trial, fault=True)
            assert breaker.state(opened) is BreakerState.OPEN
            assert breaker.retry_after(opened) == pytest.approx(rest)
        trial = breaker.admit(39)
        assert trial is not None
        breaker.finish(39, trial, fault=None)  # given up: it says nothing, and another may try
        trial = breaker.admit(39)
        assert trial is not None
        breaker.finish(39, trial, fault=False)
        assert breaker.state(39) is BreakerState.CLOSED
        self.send(breaker, 40, True)
        assert breaker.retry_after(40) == pytest.approx(5)

    def test_what_was_sent_before_says_nothing_now(self) -> None:
        breaker = Breaker(BreakerSettings(consecutive_faults=1, open_seconds=5))
        old = [breaker.admit(0) for _ in range(3)]
        assert old[0] is not None
        breaker.finish(0, old[0], fault=True)
        trial = breaker.admit(5)
        assert trial is not None
        for period in old[1:]:
            assert period is not None
            breaker.finish(6, period, fault=True)
        breaker.finish(6, trial, fault=False)
        assert breaker.state(6) is BreakerState.CLOSED

    @given(st.lists(st.tuples(st.floats(0, 4), st.sampled_from([True, False, None]))))
    @settings(max_examples=50, deadline=None)
    def test_one_that_is_not_closed_lets_one_through_at_most(self, steps: list[tuple[float, bool | None]]) -> None:
        breaker, now = Breaker(BreakerSettings(consecutive_faults=2)), 0.0
        running: list[int] = []
        for pause, fault in steps:
            now += pause
            state = breaker.state(now)
            period = breaker.admit(now)
            if state is BreakerState.OPEN:
                assert period is None
            if period is not None:
                running.append(period)
            if breaker.state(now) is BreakerState.HALF_OPEN:
                assert breaker.admit(now) is None
            if running and fault is not None:
                breaker.finish(now, running.pop(), fault=fault)

    @staticmethod
    def send(breaker: Breaker, now: float, fault: bool) -> None:
        period = breaker.admit(now)
        assert period is not None
        breaker.finish(now, period, fault=fault)


class TestBreaking:
    def test_an_ill_backend_gets_its_rest_and_is_asked_again(self) -> None:
        async def main() -> None:
            replicas = await ready_replicas(failing=Unavailable("gone"))
            before = Breaking(replicas, "stage", BreakerSettings(consecutive_faults=5, open_seconds=5))
            await outcomes([before.submit(request()) for _ in range(5)])
            assert counted("mlmesh_serving_breaker_state", model="stage") == 2
            with pytest.raises(Unavailable, match="not asked") as refused:
                before.submit(request())
            assert refused.value.retry_after_seconds == pytest.approx(5)
            assert len(replicas.served) == 5
            replicas.failing = None
            await asyncio.sleep(5)
            assert before.state is BreakerState.HALF_OPEN
            assert await before.submit(request(b"x")) == answer_to(b"x")
            await asyncio.sleep(0)
            assert before.state is BreakerState.CLOSED
            assert counted("mlmesh_serving_breaker_state", model="stage") == 0
            assert counted("mlmesh_serving_breaker_opened_total", model="stage") == 1
            metrics.forget("stage")
            assert REGISTRY.get_sample_value("mlmesh_serving_breaker_state", {"model": "stage"}) is None

        run_virtually(main())

    @pytest.mark.parametrize(
        ("error", "counts"),
        [
            (InvalidArgument("wrong"), False),
            (ResourceExhausted("busy"), False),
            (Internal("broken"), True),
            (Unavailable("gone"), True),
            (RuntimeError("what is this"), True),
        ],
    )
    def test_only_what_is_the_backends_fault_counts(self, error: ServiceError, counts: bool) -> None:
        async def main() -> None:
            before = Breaking(await ready_replicas(failing=error), "b", BreakerSettings(consecutive_faults=2))
            await outcomes([before.submit(request()) for _ in range(2)])
            assert (before.state is BreakerState.OPEN) is counts

        run_virtually(main())

    def test_a_deadline_counts_where_it_was_long_enough(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            replicas = await ready_replicas(answer_seconds=None)
            before = Breaking(replicas, "b", BreakerSettings(consecutive_faults=3))
            door = Deadlines(before, "b", 0, TimerWheel())
            await outcomes([door.submit(request(deadline=loop.time() + 0.1)) for _ in range(3)])
            given_up = [door.submit(request(deadline=loop.time() + 60)) for _ in range(3)]
            await asyncio.sleep(3)
            for future in given_up:
                future.cancel()
            await asyncio.sleep(0.1)
            assert before.state is BreakerState.CLOSED
            await outcomes([door.submit(request(deadline=loop.time() + 2)) for _ in range(3)])
            await asyncio.sleep(0)
            assert before.state is BreakerState.OPEN

        run_virtually(main())


class TestRetrying:
    def test_what_was_unavailable_is_sent_again(self) -> None:
        async def main() -> None:
            replicas = await ready_replicas(answer_seconds=0.1, failing=Unavailable("gone"))
            before = Retrying(replicas, "again", RetrySettings(), jitter=random.Random(1))
            future = before.submit(request(b"x"))
            await asyncio.sleep(0.105)
            replicas.failing = None
            assert await future == answer_to(b"x")
            assert len(replicas.served) == 2
            assert counted("mlmesh_serving_retries_total", model="again") == 1

        run_virtually(main())

    def test_nothing_else_is_sent_again_and_not_without_end(self) -> None:
        async def main() -> None:
            replicas = await ready_replicas(failing=Internal("broken"))
            before = Retrying(replicas, "m")
            with pytest.raises(Internal):
                await before.submit(request())
            assert len(replicas.served) == 1
            replicas.failing = Unavailable("gone")
            with pytest.raises(Unavailable):
                await before.submit(request())
            assert len(replicas.served) == 1 + 3
            await replicas.scale(0)  # now it is refused at once
            with pytest.raises(Unavailable):
                await before.submit(request())

        run_virtually(main())

    def test_not_past_the_deadline_nor_longer_than_it_is_asked_to_wait(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            replicas = await ready_replicas(failing=Unavailable("gone", retry_after_seconds=0.5))
            before = Retrying(replicas, "m")
            begun = loop.time()
            with pytest.raises(Unavailable):
                await before.submit(request(deadline=begun + 0.4))
            assert len(replicas.served) == 1
            replicas.failing = Unavailable("gone", retry_after_seconds=30)
            with pytest.raises(Unavailable):
                await before.submit(request())
            assert len(replicas.served) == 2
            assert loop.time() - begun < 0.1

        run_virtually(main())

    def test_the_throttle_stops_a_storm(self) -> None:
        async def main() -> None:
            replicas = await ready_replicas(failing=Unavailable("gone"))
            before = Retrying(replicas, "m")
            for _ in range(100):
                with pytest.raises(Unavailable):
                    await before.submit(request())
            assert len(replicas.served) <= 104  # not 300
            replicas.failing = None
            for _ in range(100):
                await before.submit(request())
            replicas.failing = Unavailable("gone")
            sent = len(replicas.served)
            with pytest.raises(Unavailable):
                await before.submit(request())
            assert len(replicas.served) == sent + 3

        run_virtually(main())

    def test_cancelling_ends_it_in_flight_and_between(self) -> None:
        async def main() -> None:
            replicas = await ready_replicas(answer_seconds=1.0)
            before = Retrying(replicas, "m")
            future = before.submit(request(b"in flight"))
            await asyncio.sleep(0.1)
            future.cancel()
            await asyncio.sleep(0.1)
            assert [given_up.body for given_up in replicas.given_up] == [b"in flight"]
            replicas.answer_seconds, replicas.failing = 0.0, Unavailable("gone", retry_after_seconds=0.5)
            future = before.submit(request(b"between"))
            await asyncio.sleep(0.1)
            future.cancel()
            await asyncio.sleep(2)
            assert len(replicas.served) == 2

        run_virtually(main())

    @given(st.lists(st.booleans()))
    @settings(max_examples=50, deadline=None)
    def test_throttle(self, answers: list[bool]) -> None:
        throttle, tokens = RetryThrottle(10, 0.1), 10.0
        for answered in answers:
            if answered:
                throttle.answered()
                tokens = min(10, tokens + 0.1)
            else:
                tokens = max(0, tokens - 1)
                assert throttle.failed() is (tokens > 5)


class TestHedging:
    @staticmethod
    async def warm_up(before: Hedging, replicas: Replicas) -> None:
        """Has it see a hundred latencies, each a little shorter than the one before, so that none is unusually long."""
        for number in range(100):
            replicas.answer_seconds = 0.011 - number * 1e-5
            await before.submit(request())

    def test_the_slow_one_is_overtaken_and_cancelled(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            replicas = await ready_replicas(2, answer_seconds=0.01)
            before = Hedging(replicas, "hedged", HedgeSettings(min_answers=20))
            await self.warm_up(before, replicas)
            replicas.answer_seconds = None
            slow = before.submit(request(b"slow"))
            replicas.answer_seconds = 0.01
            begun = loop.time()
            assert await slow == answer_to(b"slow")
            assert loop.time() - begun == pytest.approx(0.021, abs=0.002)
            await asyncio.sleep(0)
            assert [given_up.body for given_up in replicas.given_up] == [b"slow"]
            assert replicas.in_flight == 0
            assert counted("mlmesh_serving_hedges_total", model="hedged") == 1
            assert counted("mlmesh_serving_hedges_won_total", model="hedged") == 1

        run_virtually(main())

    def test_never_more_than_the_budget(self) -> None:
        async def main() -> None:
            replicas = await ready_replicas(3, answer_seconds=0.01)
            before = Hedging(replicas, "m", HedgeSettings(min_answers=20, budget=0.05))
            await self.warm_up(before, replicas)
            replicas.answer_seconds = 1.0  # suddenly all are slow
            sent = len(replicas.served)
            await outcomes([before.submit(request()) for _ in range(100)])
            assert len(replicas.served) - sent <= 110
            sent = len(replicas.served)
            for _ in range(300):
                await before.submit(request())
            assert len(replicas.served) - sent <= 316

        run_virtually(main())

    def test_a_failure_waits_for_the_other_and_no_second_one_without_a_second_replica(self) -> None:
        async def main() -> None:
            replicas = await ready_replicas(1, answer_seconds=0.01)
            before = Hedging(replicas, "m", HedgeSettings(min_answers=20))
            await self.warm_up(before, replicas)
            replicas.answer_seconds = 0.5
            await before.submit(request())
            assert len(replicas.served) == 101
            await replicas.scale(2)
            replicas.answer_seconds = None
            future = before.submit(request(b"x"))
            await asyncio.sleep(0.1)
            assert len(replicas.served) == 103
            replicas.crash()
            await asyncio.sleep(0.1)
            assert not future.done()
            replicas.finish_all()
            assert await future == answer_to(b"x")
            replicas.failing, replicas.answer_seconds = Internal("broken"), 0.0
            with pytest.raises(Internal):
                await before.submit(request())

        run_virtually(main())

    def test_cancelling_cancels_both(self) -> None:
        async def main() -> None:
            replicas = await ready_replicas(2, answer_seconds=0.01)
            before = Hedging(replicas, "m", HedgeSettings(min_answers=20))
            await self.warm_up(before, replicas)
            replicas.answer_seconds = None
            future = before.submit(request(b"x"))
            await asyncio.sleep(0.1)
            assert replicas.in_flight == 2
            future.cancel()
            await asyncio.sleep(0.1)
            assert replicas.in_flight == 0

        run_virtually(main())

    @given(st.lists(st.floats(0.001, 10), min_size=100, max_size=100), st.floats(50, 99))
    @settings(max_examples=20, deadline=None)
    def test_percentile(self, latencies: list[float], percentile: float) -> None:
        window = LatencyWindow(percentile, min_answers=100)
        for latency in latencies:
            assert window.value is None
            window.record(latency)
        value = window.value
        assert value is not None
        assert sum(latency < value for latency in latencies) <= percentile
        assert sum(latency <= value for latency in latencies) >= percentile

    @given(st.floats(0.01, 1), st.lists(st.booleans()))
    @settings(max_examples=50, deadline=None)
    def test_budget(self, share: float, asks: list[bool]) -> None:
        budget, ordinary, extra = ShareBudget(share), 0, 0
        for ask in asks:
            if ask:
                extra += budget.spend()
            else:
                ordinary += 1
                budget.earn()
            assert extra <= ordinary * share + 1e-6


class TestDraining:
    def test_ends_what_it_has_and_takes_nothing_more(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            replicas = await ready_replicas(answer_seconds=2.0)
            before = Draining(replicas, "the old revision")
            futures = [before.submit(request(b"%d" % number)) for number in range(3)]
            futures[2].cancel()
            begun = loop.time()
            closing = asyncio.create_task(before.close(30))
            await asyncio.sleep(0.1)
            assert before.draining
            assert before.ready == 0
            with pytest.raises(Unavailable) as refused:
                before.submit(request())
            assert refused.value.retry_after_seconds
            assert not replicas.closed
            assert await outcomes(futures[:2]) == [answer_to(b"0"), answer_to(b"1")]
            await closing
            assert replicas.closed
            assert loop.time() - begun == pytest.approx(2, abs=0.1)

        run_virtually(main())

    def test_not_longer_than_its_grace(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            replicas = await ready_replicas(answer_seconds=None)
            before = Draining(replicas, "m")
            future = before.submit(request())
            begun = loop.time()
            await before.close(5)
            assert replicas.closed
            assert loop.time() - begun == pytest.approx(5, abs=0.01)
            future.cancel()

        run_virtually(main())
