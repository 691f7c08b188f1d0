"""What waits for a replica: nothing is lost, nothing waits too long, nothing is without bounds. Time is virtual."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)
from mlmesh_serving.scaling.activator import Activator, QueueLimits
from support.replicas import Replicas, answer_to, request
from support.virtual_time import run_virtually


def activator(replicas: Replicas, **options: object) -> Activator:
    return Activator(replicas, "m", clock=asyncio.get_running_loop().time, **options)


def test_cold_start_answers_all_in_their_order() -> None:
    async def main() -> None:
        replicas = Replicas(start_seconds=3.0, answer_seconds=0.1)
        before = activator(replicas)
        bodies = [b"%d" % number for number in range(50)]
        futures = [before.submit(request(body)) for body in bodies]
        assert before.waiting == before.in_flight == 50
        assert [await future for future in futures] == [answer_to(body) for body in bodies]
        assert [taken.body for taken in replicas.served] == bodies
        assert replicas.asked == [1]
        await asyncio.sleep(0)
        assert before.in_flight == before.waiting == 0

    run_virtually(main())


def test_a_replica_that_is_there_is_asked_at_once() -> None:
    async def main() -> None:
        replicas = Replicas(answer_seconds=None)
        await replicas.scale(1)
        before = activator(replicas)
        future = before.submit(request(b"x"))
        assert replicas.in_flight == 1
        assert before.waiting == 0
        replicas.finish_all()
        assert await future == answer_to(b"x")

    run_virtually(main())


def test_full_by_count_and_by_bytes() -> None:
    async def main() -> None:
        replicas = Replicas(start_seconds=5.0)
        before = activator(replicas, limits=QueueLimits(requests=3, body_bytes=10))
        kept = [before.submit(request(b"1234")), before.submit(request(b"5678"))]
        with pytest.raises(ResourceExhausted) as refused:
            before.submit(request(b"901"))
        assert refused.value.retry_after_seconds is not None
        kept.append(before.submit(request(b"9")))
        with pytest.raises(ResourceExhausted):
            before.submit(request(b""))
        kept[0].cancel()
        await asyncio.sleep(0)
        kept.append(before.submit(request(b"1234")))  # its place and its bytes are free again
        assert [(await future).body for future in kept[1:]] == [b"answer to 5678", b"answer to 9", b"answer to 1234"]

    run_virtually(main())


def test_a_deadline_that_passes_in_the_queue() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        replicas = Replicas(start_seconds=10.0)
        before = activator(replicas)
        begun = loop.time()
        soon = before.submit(request(b"soon", deadline=begun + 2))
        late = before.submit(request(b"late", deadline=begun + 20))
        with pytest.raises(DeadlineExceeded):
            await soon
        assert loop.time() - begun == pytest.approx(2, abs=0.02)
        assert before.waiting == 1
        assert await late == answer_to(b"late")
        assert [taken.body for taken in replicas.served] == [b"late"]

    run_virtually(main())


def test_who_cancels_is_never_computed() -> None:
    async def main() -> None:
        replicas = Replicas(start_seconds=1.0, answer_seconds=1.0)
        before = activator(replicas)
        futures = [before.submit(request(b"%d" % number)) for number in range(3)]
        futures[1].cancel()
        assert await futures[0] == answer_to(b"0")
        assert await futures[2] == answer_to(b"2")
        assert [taken.body for taken in replicas.served] == [b"0", b"2"]
        running = before.submit(request(b"running"))
        kept = Replicas(start_seconds=1.0, answer_seconds=100.0)
        behind = activator(kept)
        waiting = behind.submit(request(b"handed on"))
        await asyncio.sleep(1.5)
        waiting.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [given_up.body for given_up in kept.given_up] == [b"handed on"]
        await running

    run_virtually(main())


def test_a_model_that_cannot_be_loaded_fails_all_with_the_reason() -> None:
    async def main() -> None:
        replicas = Replicas(start_seconds=1.0, broken=FailedPrecondition("the file is no model"))
        before = activator(replicas)
        futures = [before.submit(request()) for _ in range(5)]
        for outcome in await asyncio.gather(*futures, return_exceptions=True):
            assert isinstance(outcome, Unavailable)
            assert "the file is no model" in outcome.message
            assert outcome.retry_after_seconds
        assert before.waiting == before.in_flight == 0
        replicas.broken = None
        assert await before.submit(request(b"again")) == answer_to(b"again")

    run_virtually(main())


def test_an_unexpected_fault_of_loading_tells_nothing_of_itself() -> None:
    async def main() -> None:
        async def start() -> None:
            raise RuntimeError("/secret/path")

        before = activator(Replicas(), start=start)
        with pytest.raises(Unavailable) as failed:
            await before.submit(request())
        assert "secret" not in failed.value.message

    run_virtually(main())


def test_container_concurrency() -> None:
    async def main() -> None:
        replicas = Replicas(answer_seconds=0.5)
        await replicas.scale(2)
        before = activator(replicas, concurrency=3)
        futures = [before.submit(request(b"%d" % number)) for number in range(20)]
        assert replicas.in_flight == 6
        assert before.waiting == 14
        await asyncio.gather(*futures)
        assert replicas.most == 3
        assert [taken.body for taken in replicas.served] == [b"%d" % number for number in range(20)]

    run_virtually(main())


def test_what_the_backend_has_no_room_for_waits() -> None:
    async def main() -> None:
        replicas = Replicas(start_seconds=1.0, answer_seconds=0.1, limit=4)
        before = activator(replicas)
        bodies = [b"%d" % number for number in range(30)]
        futures = [before.submit(request(body)) for body in bodies]
        await asyncio.sleep(1.05)
        futures += [before.submit(request(b"more")) for _ in range(3)]
        assert await asyncio.gather(*futures) == [answer_to(body) for body in [*bodies, b"more", b"more", b"more"]]
        futures = [before.submit(request(body)) for body in bodies]
        assert (replicas.in_flight, before.waiting) == (4, 26)
        assert await asyncio.gather(*futures) == [answer_to(body) for body in bodies]

    run_virtually(main())


def test_more_replicas_take_what_waits() -> None:
    async def main() -> None:
        replicas = Replicas(answer_seconds=None)
        await replicas.scale(1)
        before = activator(replicas, concurrency=1)
        futures = [before.submit(request()) for _ in range(4)]
        assert replicas.in_flight == 1
        await replicas.scale(3)  # of itself, not through the activator: it is noticed all the same
        await asyncio.sleep(0.05)
        assert replicas.in_flight == 3
        await before.scale(4)
        assert replicas.in_flight == 4
        replicas.finish_all()
        await asyncio.gather(*futures)

    run_virtually(main())


def test_the_last_replica_dies_while_requests_wait() -> None:
    async def main() -> None:
        replicas = Replicas(start_seconds=1.0, answer_seconds=1.0)
        await replicas.scale(1)
        before = activator(replicas, concurrency=1)
        futures = [before.submit(request(b"%d" % number)) for number in range(3)]
        await asyncio.sleep(0.5)
        replicas.crash()
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(outcomes[0], Unavailable)  # its own request is lost with it
        assert outcomes[1:] == [answer_to(b"1"), answer_to(b"2")]

    run_virtually(main())


def test_close_answers_what_it_has_and_takes_nothing_more() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        replicas = Replicas(start_seconds=1.0, answer_seconds=1.0)
        before = activator(replicas)
        future = before.submit(request(b"x"))
        begun = loop.time()
        closing = asyncio.create_task(before.close(10))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            before.submit(request())
        assert await future == answer_to(b"x")
        await closing
        assert replicas.closed
        assert loop.time() - begun < 3

        stuck = Replicas(start_seconds=100.0)
        before = activator(stuck)
        future = before.submit(request())
        begun = loop.time()
        await before.close(5)
        with pytest.raises(Unavailable):
            await future
        assert loop.time() - begun == pytest.approx(5, abs=0.1)
        assert stuck.closed

    run_virtually(main())


def test_average_concurrency_is_exact_between_samples() -> None:
    async def main() -> None:
        replicas = Replicas(answer_seconds=0.25)
        await replicas.scale(1)
        before = activator(replicas)
        await asyncio.gather(*(before.submit(request()) for _ in range(8)))
        await asyncio.sleep(0.75)  # when a sample is taken, nothing is in flight
        sample = before.meter.take()
        assert sample.concurrency == pytest.approx(8 * 0.25, rel=0.01)
        assert sample.rps == pytest.approx(8, rel=0.01)
        await asyncio.sleep(1)
        assert before.meter.take().concurrency == 0

    run_virtually(main())


def test_what_a_cold_start_takes_says_nothing_of_the_requests_after_it() -> None:
    async def main() -> None:
        before = activator(Replicas(start_seconds=30.0, answer_seconds=0.1))
        await asyncio.gather(*(before.submit(request()) for _ in range(10)))
        await before.submit(request())
        await asyncio.sleep(0)
        assert before.meter.expected_latency() == pytest.approx(0.1, rel=0.01)

    run_virtually(main())


action = st.sampled_from(["ask", "ask", "ask", "cancel", "crash", "wait", "break", "mend", "scale"])


@given(st.lists(action, min_size=5, max_size=60), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_every_request_ends_whatever_happens(actions: list[str], concurrency: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        replicas = Replicas(start_seconds=0.5, answer_seconds=0.2)
        before = activator(replicas, concurrency=concurrency, limits=QueueLimits(requests=5))
        futures = []
        for number, what in enumerate(actions):
            if what == "ask":
                try:
                    futures.append(before.submit(request(b"%d" % number, deadline=loop.time() + 30)))
                except ServiceError as error:
                    assert isinstance(error, ResourceExhausted | Unavailable)
            elif what == "cancel" and futures:
                futures[number % len(futures)].cancel()
            elif what == "crash" and replicas.ready:
                replicas.crash()
            elif what in {"break", "mend"}:
                replicas.broken = Internal("broken") if what == "break" else None
            elif what == "scale" and replicas.broken is None:
                await before.scale(2)
            elif what == "wait":
                await asyncio.sleep(0.3)
            assert before.waiting <= 5
            if concurrency:
                assert replicas.most <= concurrency
        outcomes = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 60)
        for outcome in outcomes:
            assert not isinstance(outcome, Exception) or isinstance(outcome, Unavailable | DeadlineExceeded)
        await asyncio.sleep(0)
        assert before.in_flight == before.waiting == 0

    run_virtually(main())
