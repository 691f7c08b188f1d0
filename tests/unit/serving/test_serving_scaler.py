"""Scaling of whole processes' worth of models: by demand, to zero and back, within the machine. Time is virtual."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import FailedPrecondition, Unavailable
from mlmesh_serving.manifest import ScalingSpec
from mlmesh_serving.scaling.activator import Activator
from mlmesh_serving.scaling.scaler import Scaled, Scaler, ScalerSettings
from mlmesh_serving.scaling.spec import AutoscalerSpec
from prometheus_client import REGISTRY
from support.replicas import Replicas, answer_to, request
from support.virtual_time import run_virtually


class Machine:
    """A scaler and its models."""

    def __init__(self, scaler: Scaler) -> None:
        self.scaler = scaler
        self.replicas: dict[str, Replicas] = {}
        self.doors: dict[str, Activator] = {}
        self.scaled: dict[str, Scaled] = {}
        self.peak = 0

    def add(self, name: str, replicas: Replicas | None = None, *, concurrency: int = 0, **scaling: object) -> Replicas:
        held = self.replicas[name] = replicas or Replicas(start_seconds=0.5, answer_seconds=0.1)
        clock = asyncio.get_running_loop().time

        async def start() -> None:
            await self.scaler.activate(self.scaled[name])

        self.doors[name] = Activator(held, name, concurrency=concurrency, clock=clock, start=start)
        spec = AutoscalerSpec(ScalingSpec(**scaling), concurrency)
        self.scaled[name] = self.scaler.add(("default", name, 1), self.doors[name], spec)
        return held

    def processes(self) -> int:
        return sum(replicas.processes for replicas in self.replicas.values())

    async def load(self, name: str, in_flight: int, seconds: float) -> None:
        """Keeps so many requests in flight."""
        end = asyncio.get_running_loop().time() + seconds

        async def one() -> None:
            while asyncio.get_running_loop().time() < end:
                await self.doors[name].submit(request())

        await asyncio.gather(*(one() for _ in range(in_flight)))

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.processes())
            await asyncio.sleep(0.05)


@asynccontextmanager
async def machine(max_workers: int = 16, turn_seconds: float = 10.0) -> AsyncIterator[Machine]:
    scaler = Scaler(ScalerSettings(max_workers, turn_seconds=turn_seconds), asyncio.get_running_loop().time)
    async with scaler.running():
        made = Machine(scaler)
        watching = asyncio.create_task(made.watch())
        yield made
        watching.cancel()


def scaled(name: str, metric: str) -> float | None:
    labels = {"namespace": "default", "model": name, "revision": "1"}
    return REGISTRY.get_sample_value(f"mlmesh_serving_{metric}", labels)


async def until(condition: Callable[[], bool], seconds: float) -> float:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while not condition():
        assert loop.time() - begun < seconds, "it did not happen in time"
        await asyncio.sleep(0.1)
    return loop.time() - begun


def test_to_zero_when_nobody_asks_and_back_at_the_first_request() -> None:
    async def main() -> None:
        async with machine() as here:
            replicas = here.add("m", min_replicas=0)
            await until(lambda: replicas.ready == 1, 2)
            await here.load("m", 1, 5)
            # The stable window of 60 s empties, then 30 s of grace.
            passed = await until(lambda: replicas.ready == 0, 120)
            assert 85 <= passed <= 95
            await asyncio.sleep(30)
            assert replicas.ready == 0
            assert scaled("m", "actual_replicas") == scaled("m", "desired_replicas") == 0
            begun = asyncio.get_running_loop().time()
            assert await here.doors["m"].submit(request(b"hello")) == answer_to(b"hello")
            assert asyncio.get_running_loop().time() - begun < 1  # no tick is waited for

    run_virtually(main())


def test_min_replicas_stay() -> None:
    async def main() -> None:
        async with machine() as here:
            replicas = here.add("m", min_replicas=2)
            await asyncio.sleep(300)
            assert replicas.ready == 2

    run_virtually(main())


def test_a_surge_in_seconds_and_down_in_minutes() -> None:
    async def main() -> None:
        async with machine(max_workers=12) as here:
            replicas = here.add("m", concurrency=10, max_replicas=10)
            await until(lambda: replicas.ready == 1, 2)
            await asyncio.sleep(100)
            load = asyncio.create_task(here.load("m", 60, 30))
            assert await until(lambda: replicas.ready >= 9, 20) <= 8  # 60 / (10 * 0.7) = 8.6, over the panic window
            assert scaled("m", "panic_mode") == 1
            await load
            assert replicas.ready == 9  # never down in panic, which lasts until a stable window after the last surge
            await asyncio.sleep(25)
            assert replicas.ready == 9
            assert await until(lambda: replicas.ready == 1, 60) > 2  # by halves, as the window empties
            assert scaled("m", "panic_mode") == 0
            assert replicas.most <= 10

    run_virtually(main())


def test_never_more_than_max_replicas_nor_than_the_machine_has() -> None:
    async def main() -> None:
        async with machine(max_workers=6) as here:
            few = here.add("few", concurrency=1, max_replicas=2)
            many = here.add("many", concurrency=1)
            await asyncio.gather(here.load("few", 20, 60), here.load("many", 20, 60))
            assert few.ready == 2
            assert many.ready == 4
            assert here.peak == 6

    run_virtually(main())


def test_a_short_machine_is_shared_fairly() -> None:
    async def main() -> None:
        async with machine(max_workers=7) as here:
            for name in "abc":
                here.add(name, concurrency=1, max_replicas=5 if name != "c" else 1)
            await asyncio.gather(*(here.load(name, 20, 60) for name in "abc"))
            assert [here.replicas[name].ready for name in "abc"] == [3, 3, 1]
            assert here.peak == 7

    run_virtually(main())


def test_the_least_recently_used_model_makes_room() -> None:
    async def main() -> None:
        async with machine(max_workers=2) as here:
            for name in "abc":
                here.add(name, Replicas(start_seconds=0.5, answer_seconds=0.1), min_replicas=0)
            for name in "abc":
                assert await here.doors[name].submit(request(b"x")) == answer_to(b"x")
                await asyncio.sleep(3)
            assert {name: here.replicas[name].ready for name in "abc"} == {"a": 0, "b": 1, "c": 1}
            await here.doors["b"].submit(request())
            await asyncio.sleep(2)
            await here.doors["a"].submit(request())
            await asyncio.sleep(2)
            assert {name: here.replicas[name].ready for name in "abc"} == {"a": 1, "b": 1, "c": 0}
            assert here.peak == 2

    run_virtually(main())


def test_more_busy_models_than_workers_take_turns() -> None:
    async def main() -> None:
        async with machine(max_workers=2, turn_seconds=5.0) as here:
            for name in "abcd":
                here.add(name, Replicas(start_seconds=0.2, answer_seconds=0.1), min_replicas=0)
            await asyncio.gather(*(here.load(name, 3, 60) for name in "abcd"))
            served = [len(here.replicas[name].served) for name in "abcd"]
            assert min(served) > 200  # of 900 with workers enough
            assert here.peak == 2

    run_virtually(main())


def test_models_that_are_asked_in_turn_do_not_drive_each_other_out_all_the_time() -> None:
    async def main() -> None:
        async with machine(max_workers=1, turn_seconds=5.0) as here:
            held = [here.add(name, Replicas(start_seconds=0.2, answer_seconds=0.01), min_replicas=0) for name in "ab"]

            async def ask_often(name: str) -> None:  # with pauses, in which nothing of it is in flight
                end = asyncio.get_running_loop().time() + 60
                while asyncio.get_running_loop().time() < end:
                    await here.doors[name].submit(request())
                    await asyncio.sleep(0.09)

            await asyncio.gather(ask_often("a"), ask_often("b"))
            for replicas in held:
                assert len(replicas.served) > 200  # of 600 with two workers
                assert len(replicas.asked) <= 16

    run_virtually(main())


def test_a_revision_that_is_loaded_is_not_kept_waiting_by_others_that_are_asked() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with machine(max_workers=1, turn_seconds=5.0) as here:
            here.add("a", Replicas(start_seconds=0.1, answer_seconds=0.1))
            load = asyncio.create_task(here.load("a", 1, 30))
            await asyncio.sleep(1)
            here.add("new", Replicas(start_seconds=0.1))
            begun = loop.time()
            await here.scaler.activate(here.scaled["new"])
            assert loop.time() - begun < 7
            await load

    run_virtually(main())


def test_a_model_that_has_just_been_asked_makes_room_soon() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with machine(max_workers=1) as here:
            for name in "ab":
                here.add(name, Replicas(start_seconds=0.1, answer_seconds=0.0), min_replicas=0)
            await here.doors["a"].submit(request())
            begun = loop.time()
            await here.doors["b"].submit(request())
            assert loop.time() - begun < 0.8

    run_virtually(main())


def test_scaling_down_ends_what_runs() -> None:
    async def main() -> None:
        async with machine(max_workers=1) as here:
            slow = here.add("slow", Replicas(start_seconds=0.1, answer_seconds=4.0), min_replicas=0)
            here.add("other", Replicas(start_seconds=0.1, answer_seconds=0.1), min_replicas=0)
            running = asyncio.gather(*(here.doors["slow"].submit(request(b"%d" % number)) for number in range(3)))
            await until(lambda: slow.in_flight == 3, 5)
            other = asyncio.create_task(here.load("other", 1, 20))
            assert await running == [answer_to(b"%d" % number) for number in range(3)]
            await other
            assert here.peak == 1

    run_virtually(main())


def test_a_replica_that_ends_a_long_request_holds_no_new_one_back() -> None:
    async def main() -> None:
        async with machine(max_workers=8) as here:
            replicas = here.add("m", concurrency=1, min_replicas=0, initial_replicas=3)
            await until(lambda: replicas.ready == 3, 2)
            replicas.answer_seconds = 400.0
            long = here.doors["m"].submit(request(b"long"))
            replicas.replicas.append(replicas.replicas.pop(0))  # so that it is in the one that goes first
            replicas.answer_seconds = 0.1
            here.scaled["m"].reachable = False
            await until(lambda: replicas.ready < 3, 100)
            assert len(replicas.leaving) >= 1
            here.scaled["m"].reachable = True
            await here.load("m", 8, 20)
            assert replicas.ready == 6  # the two that leave count until both have ended
            assert here.peak <= 8
            assert not long.done()
            assert await long == answer_to(b"long")

    run_virtually(main())


def test_a_model_that_cannot_be_loaded_is_tried_again_ever_later() -> None:
    async def main() -> None:
        async with machine() as here:
            replicas = here.add("m", Replicas(broken=FailedPrecondition("no such file")))
            with pytest.raises(Unavailable, match="no such file"):
                await here.doors["m"].submit(request())
            asked = len(replicas.asked)
            for _ in range(20):
                with pytest.raises(Unavailable, match="no such file") as refused:
                    await here.doors["m"].submit(request())
                assert refused.value.retry_after_seconds is not None
            assert len(replicas.asked) == asked  # nobody hammers it
            await asyncio.sleep(300)
            assert len(replicas.asked) < 12
            replicas.broken = None
            await until(lambda: replicas.ready == 1, 61)
            assert await here.doors["m"].submit(request(b"x")) == answer_to(b"x")

    run_virtually(main())


def test_who_waits_for_replicas_that_died_waits_as_long_as_a_start_takes() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for start_seconds, comes_back_after, patience in [(0.5, 1.5, 2), (10.0, 15.0, 20)]:
            async with machine() as here:
                replicas = here.add("m", Replicas(start_seconds=start_seconds))
                await until(lambda replicas=replicas: replicas.ready == 1, 20)
                replicas.start_seconds = 0.0
                died = replicas.replicas.pop()
                loop.call_later(comes_back_after, replicas.replicas.append, died)  # as a pool replaces its workers
                held = replicas.scale
                replicas.scale = lambda wanted: asyncio.sleep(0)  # type: ignore[method-assign, assignment]
                assert await here.doors["m"].submit(request(b"x")) == answer_to(b"x")
                await asyncio.sleep(2)
                replicas.replicas.clear()
                begun = loop.time()
                with pytest.raises(Unavailable, match="others are being started"):
                    await here.doors["m"].submit(request(b"x"))
                assert loop.time() - begun == pytest.approx(patience, rel=0.1)
                replicas.scale = held  # type: ignore[method-assign]

    run_virtually(main())


def test_what_is_removed_is_closed_before_its_place_is_given_away() -> None:
    async def main() -> None:
        async with machine(max_workers=1) as here:
            old = here.add("old", Replicas(start_seconds=0.1, answer_seconds=3.0))
            await until(lambda: old.ready == 1, 2)
            running = here.doors["old"].submit(request(b"x"))
            removing = asyncio.create_task(here.scaler.remove(here.scaled["old"], 10))
            await asyncio.sleep(0.1)
            new = here.add("new")
            await asyncio.sleep(2)
            assert new.ready == 0
            assert await running == answer_to(b"x")
            await removing
            assert old.closed
            await until(lambda: new.ready == 1, 2)
            assert scaled("old", "actual_replicas") is None
            with pytest.raises(Unavailable):
                await here.scaler.activate(here.scaled["old"])

    run_virtually(main())


def test_a_revision_without_traffic_goes_to_zero() -> None:
    async def main() -> None:
        async with machine() as here:
            replicas = here.add("m", min_replicas=2)
            await asyncio.sleep(100)
            here.scaled["m"].reachable = False
            await until(lambda: replicas.ready == 0, 100)
            here.scaled["m"].reachable = True
            await until(lambda: replicas.ready == 2, 5)

    run_virtually(main())


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ask", "ask", "crash", "wait", "long"])), max_size=30),
)
@settings(max_examples=25, deadline=None)
def test_nothing_is_lost_and_the_machine_is_never_overloaded(max_workers: int, actions: list[tuple[str, str]]) -> None:
    async def main() -> None:
        async with machine(max_workers, turn_seconds=2.0) as here:
            for name in "abc":
                held = Replicas(start_seconds=0.3, answer_seconds=0.2)
                here.add(name, held, concurrency=1, min_replicas=0, max_replicas=3)
            futures, crashed = [], 0
            for name, what in actions:
                if what == "ask":
                    futures += [here.doors[name].submit(request()) for _ in range(3)]
                elif what == "crash" and here.replicas[name].ready:
                    crashed += len(here.replicas[name].replicas[-1].running)
                    here.replicas[name].crash()
                else:
                    await asyncio.sleep(40 if what == "long" else 0.7)
                assert here.processes() <= max_workers
            outcomes = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 300)
            assert sum(isinstance(outcome, Exception) for outcome in outcomes) <= crashed
            assert here.peak <= max_workers
            for name in "abc":
                assert max(here.replicas[name].asked, default=0) <= 3

    run_virtually(main())
