"""Revisions that come and go under requests: none fails, and each goes where it was asked to go."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from mlmesh_serving.traffic import rollout as rollout_module
from mlmesh_serving.traffic.plan import RolloutState, plan, remembered, wanted
from mlmesh_serving.traffic.rollout import RevisionState, Rollout
from mlmesh_serving.traffic.router import SHADOW_TOTAL, Router
from mlmesh_serving.traffic.settings import LATEST, HeaderRule, Match, Shadow, Sticky, Target, Traffic
from mlmesh_serving.traffic.split import Shares, Split
from support.revision_backend import FakeBackend, a_request

BY_MANIFEST = Traffic()


class Loader:
    """Brings up fake backends, when a test lets it."""

    def __init__(self) -> None:
        self.made: dict[int, list[FakeBackend]] = {}
        self.gates: dict[int, asyncio.Future[None]] = {}
        self.recorded: list[RolloutState] = []

    def hold(self, revision: int) -> "asyncio.Future[None]":
        """Holds back a revision until the future is done; an exception of the future's is raised instead."""
        return self.gates.setdefault(revision, asyncio.get_running_loop().create_future())

    async def load(self, revision: int) -> FakeBackend:
        if revision in self.gates:
            await asyncio.shield(self.gates[revision])
        backend = FakeBackend(revision)
        self.made.setdefault(revision, []).append(backend)
        return backend

    async def record(self, state: RolloutState) -> None:
        self.recorded.append(state)

    def closed(self) -> set[int]:
        return {revision for revision, all_made in self.made.items() if all_made[-1].closed}


def in_a_loop(test: Callable[[Loader], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        async def whole() -> None:
            await asyncio.wait_for(test(Loader()), 20)

        asyncio.run(whole())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def begin(
    loader: Loader, state: RolloutState, canary: int | None = None, traffic: Traffic = BY_MANIFEST
) -> Rollout[FakeBackend]:
    made = Rollout("iris", state, loader.load, loader.record)
    made.apply(state.newest, traffic, canary)
    return made


async def answers(rollout: Rollout[FakeBackend], count: int = 100, **headers: str) -> Counter[int]:
    """Asks so many times; gives how often which revision answered."""
    futures = [rollout.router.submit(a_request(**headers)) for _ in range(count)]
    return Counter(int(answer.body) for answer in await asyncio.gather(*futures))


@in_a_loop
async def test_the_first_revision_gets_everything_when_it_is_ready(loader: Loader) -> None:
    gate = loader.hold(1)
    rollout = begin(loader, RolloutState(1), canary=10)
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="is not ready: loading"):
        rollout.router.submit(a_request())
    gate.set_result(None)
    await rollout.settled()
    assert await answers(rollout) == {1: 100}
    assert rollout.state == RolloutState(1, rolled_out=1)


@in_a_loop
async def test_a_canary_is_tried_promoted_and_recorded(loader: Loader) -> None:
    rollout = begin(loader, RolloutState(1))
    await rollout.settled()
    gate = loader.hold(2)
    rollout.apply(2, BY_MANIFEST, 20)
    assert await answers(rollout) == {1: 100}, "until it is ready, nothing goes to it"
    gate.set_result(None)
    await rollout.settled()
    assert await answers(rollout, 10_000) == {1: pytest.approx(8000, abs=5), 2: pytest.approx(2000, abs=5)}
    assert (await rollout.router.submit(a_request(), "prev")).body == b"1"
    assert (await rollout.router.submit(a_request(), "latest")).body == b"2"
    rollout.apply(2, BY_MANIFEST, None)
    assert await answers(rollout) == {2: 100}
    await asyncio.sleep(0)
    assert loader.closed() == {1} and rollout.status(1).state is RevisionState.RETIRED
    assert loader.recorded[-1] == RolloutState(2, rolled_out=2, previous=1)


@in_a_loop
async def test_a_canary_percentage_takes_back_what_was_rolled_out(loader: Loader) -> None:
    """As with KServe: canaryTrafficPercent 0 on the newest gives all to the one before."""
    rollout = begin(loader, RolloutState(2, rolled_out=2, previous=1))
    await rollout.settled()
    assert await answers(rollout) == {2: 100}
    rollout.apply(2, BY_MANIFEST, 0)
    await rollout.settled()
    assert await answers(rollout) == {1: 100}
    assert rollout.state == RolloutState(2, rolled_out=1, previous=2)
    rollout.apply(2, BY_MANIFEST, 30)
    await rollout.settled()
    assert await answers(rollout, 1000) == {1: pytest.approx(700, abs=5), 2: pytest.approx(300, abs=5)}


@in_a_loop
async def test_a_revision_that_cannot_be_loaded_gets_nothing(loader: Loader) -> None:
    rollout = begin(loader, RolloutState(1))
    await rollout.settled()
    loader.hold(2).set_exception(InvalidArgument("no model there", field="storageUri"))
    rollout.apply(2, BY_MANIFEST, 50)
    await rollout.settled()
    assert await answers(rollout) == {1: 100}
    assert rollout.status(2).state is RevisionState.FAILED and "no model there" in rollout.status(2).message
    loader.gates.clear()
    rollout.apply(2, BY_MANIFEST, 50, again=True)
    await rollout.settled()
    assert len(await answers(rollout)) == 2


@in_a_loop
async def test_where_nothing_can_be_loaded_the_reason_is_told(loader: Loader) -> None:
    loader.hold(1).set_exception(RuntimeError("secret"))
    rollout = begin(loader, RolloutState(1))
    with pytest.raises(FailedPrecondition, match="could not be loaded: an unexpected error"):
        await rollout.settled()
    with pytest.raises(Unavailable, match="failed: an unexpected error"):
        rollout.router.submit(a_request())


@in_a_loop
async def test_what_cannot_be_reached_is_tried_again(loader: Loader) -> None:
    tried = []

    async def load(revision: int) -> FakeBackend:
        tried.append(revision)
        if len(tried) < 3:
            raise Unavailable("the store is down")
        return FakeBackend(revision)

    rollout = Rollout("iris", RolloutState(1), load, loader.record)
    rollout.apply(1, BY_MANIFEST, None)
    await rollout.settled()
    assert tried == [1, 1, 1]


@in_a_loop
async def test_a_pin_stays_and_keeps_the_others_away(loader: Loader) -> None:
    rollout = begin(loader, RolloutState(3, rolled_out=3, previous=2))
    await rollout.settled()
    rollout.apply(3, Traffic((Target(1, 100),)), None)
    await rollout.settled()
    await asyncio.sleep(0)
    assert await answers(rollout) == {1: 100} and loader.closed() == {3}
    assert rollout.state == RolloutState(3, rolled_out=1, previous=3)
    again = begin(loader, rollout.state, traffic=Traffic((Target(1, 100),)))
    await again.settled()
    assert await answers(again) == {1: 100} and len(loader.made[3]) == 1, "a restart does not load the newest"


@in_a_loop
async def test_latest_in_targets_follows_the_newest(loader: Loader) -> None:
    traffic = Traffic((Target(1, 70, "stable"), Target(LATEST, 30)))
    rollout = begin(loader, RolloutState(2, rolled_out=1), traffic=traffic)
    await rollout.settled()
    assert await answers(rollout, 1000) == {1: pytest.approx(700, abs=5), 2: pytest.approx(300, abs=5)}
    rollout.apply(3, traffic, None)
    await rollout.settled()
    assert set(await answers(rollout)) == {1, 3}
    assert (await rollout.router.submit(a_request(), "stable")).body == b"1"


@in_a_loop
async def test_no_request_fails_while_traffic_changes_all_the_time(loader: Loader) -> None:
    """Requests are held, so that revisions are let go while they answer; each request has to be answered well."""
    rollout = begin(loader, RolloutState(1))
    await rollout.settled()
    futures = []
    for turn in range(200):
        newest = 1 + turn // 4
        if turn % 4 == 0:
            rollout.apply(newest, BY_MANIFEST, 10)
        elif turn % 4 == 1:
            rollout.apply(newest, Traffic((Target(max(1, newest - 1), 50), Target(newest, 50))), None)
        elif turn % 4 == 2:
            rollout.apply(newest, Traffic((Target(max(1, newest - 1), 100),)), None)
        else:
            rollout.apply(newest, BY_MANIFEST, None)
        for backends in loader.made.values():
            backends[-1].holds = True
        futures += [rollout.router.submit(a_request()) for _ in range(5)]
        await asyncio.sleep(0)
        futures += [rollout.router.submit(a_request()) for _ in range(5)]
        if turn % 7 == 0:
            for backends in loader.made.values():
                backends[-1].release()
    await rollout.settled()
    for backends in loader.made.values():
        for backend in backends:
            backend.release()
    assert len(await asyncio.gather(*futures)) == 2000
    await rollout.close(5)
    assert all(backend.closed for backends in loader.made.values() for backend in backends)


@in_a_loop
async def test_a_key_stays_with_its_revision_over_changes_and_restarts(loader: Loader) -> None:
    sticky = Traffic(sticky=Sticky("x-user"))
    rollout = begin(loader, RolloutState(2, rolled_out=1), canary=10, traffic=sticky)
    await rollout.settled()

    async def canaries(of: Rollout[FakeBackend]) -> set[int]:
        found = [await of.router.submit(a_request(x_user=f"user-{n}")) for n in range(1000)]
        return {n for n, answer in enumerate(found) if answer.body == b"2"}

    few = await canaries(rollout)
    rollout.apply(2, sticky, 30)
    more = await canaries(rollout)
    assert few < more and 200 < len(more) < 400
    again = begin(loader, rollout.state, canary=30, traffic=sticky)
    await again.settled()
    assert await canaries(again) == more
    again.apply(2, sticky, 10)
    assert len(await canaries(again) - more) == 0


def _counted(outcome: str, model: str) -> float:
    return sum(
        sample.value
        for metric in SHADOW_TOTAL.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and (sample.labels["model"], sample.labels["outcome"]) == (model, outcome)
    )


@in_a_loop
async def test_a_shadow_is_sent_copies_and_touches_no_answer(loader: Loader) -> None:
    backends = {1: FakeBackend(1), 2: FakeBackend(2, holds=True)}
    router = Router("shadowed", max_shadows=30)
    router.switch(Split(Shares({1: 100}, shadow=(2, 50)), start=0), backends)

    async def ask(count: int) -> None:
        got = await asyncio.gather(*(router.submit(a_request()) for _ in range(count)))
        assert {answer.body for answer in got} == {b"1"}
        await asyncio.sleep(0)

    await ask(100)
    assert len(backends[2].asked) == 30, "no more are under way than are allowed"
    assert _counted("dropped", "shadowed") == pytest.approx(20, abs=2)
    backends[2].release(RuntimeError("the shadow is broken"))
    await asyncio.sleep(0)
    assert _counted("failed", "shadowed") == 30
    backends[2].refuses, backends[2].holds = ResourceExhausted("full"), False
    await ask(100)
    assert _counted("refused", "shadowed") == pytest.approx(50, abs=2)
    backends[2].refuses = None
    await ask(100)
    assert _counted("answered", "shadowed") == pytest.approx(50, abs=2)


@in_a_loop
async def test_versions_are_numbers_names_and_tags(loader: Loader) -> None:
    rollout = begin(loader, RolloutState(2, rolled_out=1), canary=10)
    await rollout.settled()
    for version, body in (("1", b"1"), ("iris-00002", b"2"), ("prev", b"1"), ("00002", b"2")):
        assert (await rollout.router.submit(a_request(), version)).body == body
    for version in ("3", "other-00001", "canary", "-1", "1.0", "²", "9" * 50):
        with pytest.raises(NotFound, match="1, 2, latest, prev can be asked"):
            rollout.router.submit(a_request(), version)
    assert rollout.router.resolve()[0] == 1, "what is told of a model is told of the one with the greatest share"


@in_a_loop
async def test_rules_go_before_shares_and_follow_the_newest(loader: Loader) -> None:
    traffic = Traffic(rules=(HeaderRule("x-canary", Match.EXACT, "yes", LATEST),))
    rollout = begin(loader, RolloutState(2, rolled_out=1), canary=0, traffic=traffic)
    await rollout.settled()
    assert await answers(rollout) == {1: 100}
    assert await answers(rollout, x_canary="yes") == {2: 100}
    rollout.apply(3, traffic, 0)
    await rollout.settled()
    assert await answers(rollout, x_canary="yes") == {3: 100}


@in_a_loop
async def test_a_rule_to_what_cannot_be_loaded_holds_up_nobody_else(loader: Loader) -> None:
    rollout = begin(loader, RolloutState(1))
    await rollout.settled()
    loader.hold(7).set_exception(InvalidArgument("no model there"))
    rollout.apply(1, Traffic((Target(1, 100, "one"),), (HeaderRule("x", Match.EXACT, "7", 7),)), None)
    with pytest.raises(FailedPrecondition, match=r"revision 7 .* no model there"):
        await rollout.settled()
    assert await answers(rollout) == {1: 100}
    assert (await rollout.router.submit(a_request(), "one")).body == b"1"
    with pytest.raises(Unavailable, match="revision 7"):
        rollout.router.submit(a_request(x="7"))


@in_a_loop
async def test_what_is_not_kept_harms_nothing(loader: Loader) -> None:
    async def record(state: RolloutState) -> None:
        raise Unavailable("the database is away")

    rollout = Rollout("iris", RolloutState(1), loader.load, record)
    rollout.apply(1, BY_MANIFEST, None)
    await rollout.settled()
    await asyncio.sleep(0)
    assert await answers(rollout) == {1: 100}


@in_a_loop
async def test_a_revision_that_is_no_longer_wanted_is_not_waited_for(loader: Loader) -> None:
    rollout = begin(loader, RolloutState(1))
    await rollout.settled()
    loader.hold(2)
    rollout.apply(2, BY_MANIFEST, None)
    await asyncio.sleep(0)
    rollout.apply(3, BY_MANIFEST, None)
    await rollout.settled()
    assert rollout.status(2).state is RevisionState.RETIRED and await answers(rollout) == {3: 100}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_module, "_RETRY_SECONDS", (0.0,) * 4)


@in_a_loop
async def test_a_revision_is_loaded_anew_beside_the_one_that_answers(loader: Loader) -> None:
    rollout = begin(loader, RolloutState(1))
    await rollout.settled()
    gate = loader.hold(1)
    rollout.reload(1)
    assert await answers(rollout) == {1: 100} and not rollout.is_settled
    gate.set_result(None)
    await rollout.settled()
    await asyncio.sleep(0)
    first, second = loader.made[1]
    assert first.closed and not second.closed and await answers(rollout) == {1: 100}
    loader.gates[1] = asyncio.get_running_loop().create_future()
    loader.gates[1].set_exception(InvalidArgument("the file is gone"))
    rollout.reload(1)
    await rollout.settled()
    assert rollout.status(1).state is RevisionState.FAILED and await answers(rollout) == {1: 100}


@in_a_loop
async def test_who_waits_for_what_is_unloaded_is_told(loader: Loader) -> None:
    loader.hold(1)
    rollout = begin(loader, RolloutState(1))
    waiting = asyncio.create_task(rollout.settled())
    await asyncio.sleep(0)
    await rollout.close(1)
    with pytest.raises(FailedPrecondition, match="unloaded meanwhile"):
        await waiting


TRAFFICS: list[Any] = [
    BY_MANIFEST,
    Traffic((Target(1, 100),)),
    Traffic((Target(1, 60), Target(LATEST, 40, "new"))),
    Traffic(rules=(HeaderRule("x", Match.PREFIX, "a", 2),), sticky=Sticky("y"), shadow=Shadow(LATEST, 10)),
]


@settings(max_examples=300, deadline=None)
@given(
    traffic=st.sampled_from(TRAFFICS),
    canary=st.none() | st.integers(0, 100),
    revisions=st.tuples(st.integers(1, 4), st.integers(0, 4), st.integers(0, 4)),
    ready=st.sets(st.integers(1, 4)),
)
def test_every_plan_is_whole_and_steady(
    traffic: Traffic, canary: int | None, revisions: tuple[int, int, int], ready: set[int]
) -> None:
    newest, rolled_out, previous = revisions
    state = RolloutState(newest, min(rolled_out, newest), min(previous, newest))
    shares = plan(traffic, canary, state, ready)
    assert sum(shares.percents.values()) == 100 and all(shares.percents.values())
    assert 0 not in shares.revisions()
    assert shares.revisions() <= wanted(traffic, canary, state, ready)
    buckets = Split(shares).buckets
    after = remembered(shares, buckets, state)
    assert plan(traffic, canary, after, ready).percents == shares.percents
    if newest not in ready and state.rolled_out not in {0, newest} and not traffic.targets:
        assert newest not in shares.percents, "what has never been ready gets nothing"
