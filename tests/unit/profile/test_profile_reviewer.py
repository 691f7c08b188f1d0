"""The in-memory check: right after changes, right across replicas, never a guess."""

import asyncio
import threading
from pathlib import Path

import pytest
from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.errors import AlreadyExists, NotFound, ResourceExhausted, Unavailable
from mlmesh_profile.grants import Grants
from mlmesh_profile.profile import Contributor, Profile
from mlmesh_profile.reviewer import GrantReviewer
from mlmesh_profile.role import Role
from mlmesh_profile.store import ProfileStore
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

ALICE, BOB, ADA = "alice@x.org", "bob@x.org", "ada@x.org"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = create_engine(f"sqlite:///{tmp_path / 'profile.db'}")
    migrate(made, "mlmesh_profile")
    return made


@pytest.fixture
def store(engine: Engine) -> ProfileStore:
    return ProfileStore(engine, max_profiles_per_user=3, max_contributors_per_profile=3)


def _profile(name: str, owner: str = ALICE) -> Profile:
    return Profile(name, owner, uid=f"uid-{name}-{owner}")


def _may(reviewer: GrantReviewer, user: str, verb: str = "create", namespace: str = "team") -> bool:
    return asyncio.run(reviewer.review(user, verb, "runs", namespace, "")).allowed


def test_a_change_through_this_process_holds_at_once(store: ProfileStore) -> None:
    reviewer = GrantReviewer(store, [], freshness_seconds=60)
    assert not _may(reviewer, ALICE)
    store.create_profile(_profile("team"), ALICE, may_reuse=False)
    assert not _may(reviewer, ALICE)  # still fresh, as far as it knows
    reviewer.expire()
    assert _may(reviewer, ALICE)
    store.create_contributor(Contributor("team", BOB, Role.EDIT), ALICE)
    reviewer.expire()
    assert _may(reviewer, BOB)
    store.delete_contributor(Contributor("team", BOB, Role.EDIT), ALICE)
    reviewer.expire()
    assert not _may(reviewer, BOB)


def test_a_change_through_another_replica_is_seen(engine: Engine, store: ProfileStore) -> None:
    other = ProfileStore(engine)
    reviewer = GrantReviewer(store, [ADA], freshness_seconds=0)
    assert not _may(reviewer, ADA)  # no such profile
    other.create_profile(_profile("team"), ALICE, may_reuse=False)
    assert _may(reviewer, ALICE)
    assert _may(reviewer, ADA)
    other.delete_profile("team", ALICE)
    assert not _may(reviewer, ALICE)
    assert not _may(reviewer, ADA)


class _Faulty:
    """A source that can be broken, and counts."""

    def __init__(self) -> None:
        self.broken = False
        self.versions = 0
        self.loads = 0

    def version(self) -> int:
        self.versions += 1
        if self.broken:
            raise OSError("the disk is gone")
        return 1

    def load_grants(self, user: str) -> tuple[int, Grants]:
        self.loads += 1
        return 1, Grants(user, {"team": Role.EDIT}, "team")

    def load_existence(self, name: str) -> tuple[int, bool]:
        return 1, True


def test_it_fails_closed_and_recovers() -> None:
    source = _Faulty()
    reviewer = GrantReviewer(source, [], freshness_seconds=0)
    assert _may(reviewer, ALICE)
    source.broken = True
    with pytest.raises(Unavailable):
        _may(reviewer, ALICE)
    source.broken = False
    assert _may(reviewer, ALICE)


def test_what_is_fresh_costs_no_query() -> None:
    source = _Faulty()
    reviewer = GrantReviewer(source, [], freshness_seconds=60)

    async def ask() -> None:
        await asyncio.gather(*(reviewer.review(ALICE, "get", "runs", "team", "") for _ in range(50)))
        for _ in range(50):
            await reviewer.review(ALICE, "get", "runs", "", "")

    asyncio.run(ask())
    assert source.versions == 1
    assert source.loads <= 50  # those that came together


def test_a_load_that_an_expiry_overtook_is_not_kept() -> None:
    """A slow load began before a change; what it read must not be served after it."""
    began, may_end = threading.Event(), threading.Event()
    state = {"version": 1}

    class Slow(_Faulty):
        def version(self) -> int:
            return state["version"]

        def load_grants(self, user: str) -> tuple[int, Grants]:
            seen = state["version"]
            if seen == 1:
                began.set()
                may_end.wait(5)
            return seen, Grants(user, {"team": Role.EDIT} if seen == 1 else {}, "")

    async def race() -> bool:
        reviewer = GrantReviewer(Slow(), [], freshness_seconds=60)
        early = asyncio.create_task(reviewer.review(ALICE, "get", "runs", "team", ""))
        await asyncio.to_thread(began.wait, 5)
        state["version"] = 2
        reviewer.expire()
        await reviewer.review(BOB, "get", "runs", "team", "")  # sees version 2
        may_end.set()
        await early
        return (await reviewer.review(ALICE, "get", "runs", "team", "")).allowed

    assert asyncio.run(race()) is False


def test_memory_is_bounded() -> None:
    reviewer = GrantReviewer(_Faulty(), [], max_users=10, freshness_seconds=60)

    async def ask() -> None:
        for n in range(100):
            await reviewer.review(f"u{n}", "get", "runs", "team", "")

    asyncio.run(ask())
    assert len(reviewer._grants) <= 10


def test_one_of_many_racing_creators_wins(store: ProfileStore) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def create(number: int) -> None:
        start.wait()
        try:
            store.create_profile(_profile("team", f"u{number}@x.org"), "x", may_reuse=False)
            outcomes.append("made")
        except AlreadyExists:
            outcomes.append("exists")

    threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["exists"] * 7 + ["made"]
    assert [entry.action for entry in store.list_audit("team", 10)] == ["profile.create"]


def test_limits_hold_and_a_refused_change_leaves_no_trace(store: ProfileStore) -> None:
    for n in range(3):
        store.create_profile(_profile(f"p{n}"), ALICE, may_reuse=False)
    with pytest.raises(ResourceExhausted, match="3 profiles"):
        store.create_profile(_profile("p3"), ALICE, may_reuse=False)
    for n in range(3):
        store.create_contributor(Contributor("p0", f"u{n}", Role.VIEW), ALICE)
    before = store.version()
    with pytest.raises(ResourceExhausted, match="3 contributors"):
        store.create_contributor(Contributor("p0", "u3", Role.VIEW), ALICE)
    with pytest.raises(AlreadyExists):
        store.create_profile(_profile("p0", BOB), BOB, may_reuse=False)
    with pytest.raises(NotFound):
        store.delete_contributor(Contributor("p1", "u0", Role.VIEW), ALICE)
    with pytest.raises(NotFound):
        store.create_contributor(Contributor("nope", "u0", Role.VIEW), ALICE)
    assert store.version() == before
    assert len(store.list_audit(None, 100)) == 6


def test_a_deleted_profile_s_name_goes_to_nobody_else(store: ProfileStore) -> None:
    store.create_profile(_profile("team"), ALICE, may_reuse=False)
    store.create_contributor(Contributor("team", BOB, Role.VIEW), ALICE)
    store.delete_profile("team", ALICE)
    assert store.load_grants(BOB)[1].roles == {}
    with pytest.raises(AlreadyExists):
        store.create_profile(_profile("team", BOB), BOB, may_reuse=False)
    store.create_profile(Profile("team", ALICE, uid="again"), ALICE, may_reuse=False)
    assert store.load_grants(BOB)[1].roles == {}  # contributors do not come back


def test_the_first_profile_made_is_the_default_one(store: ProfileStore) -> None:
    store.create_profile(_profile("zeta"), ALICE, may_reuse=False)
    store.create_profile(_profile("alpha"), ALICE, may_reuse=False)
    store.create_profile(_profile("bobs", BOB), BOB, may_reuse=False)
    store.create_contributor(Contributor("bobs", ALICE, Role.VIEW), BOB)
    store.create_contributor(Contributor("bobs", ALICE, Role.EDIT), BOB)
    _, grants = store.load_grants(ALICE)
    assert grants.default_namespace == "zeta"
    assert grants.roles == {"zeta": Role.OWNER, "alpha": Role.OWNER, "bobs": Role.EDIT}
    store.delete_profile("zeta", ALICE)
    assert store.load_grants(ALICE)[1].default_namespace == "alpha"


def test_the_audit_log_only_grows(engine: Engine, store: ProfileStore) -> None:
    store.create_profile(_profile("team"), ALICE, may_reuse=False)
    for statement in ("DELETE FROM audit_entries", "UPDATE audit_entries SET actor = 'x'"):
        with pytest.raises(SQLAlchemyError, match="append-only"), engine.begin() as connection:
            connection.execute(text(statement))
    assert len(store.list_audit(None, 10)) == 1


def test_listing_by_user_reads_an_index(engine: Engine) -> None:
    with engine.begin() as connection:
        for query in (
            "SELECT name FROM profiles WHERE owner = 'x' ORDER BY created_us, name",
            "SELECT namespace, role FROM contributors WHERE user = 'x'",
        ):
            plan = " ".join(str(row) for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}")))
            assert "SEARCH" in plan and "INDEX" in plan and "SCAN" not in plan, plan
