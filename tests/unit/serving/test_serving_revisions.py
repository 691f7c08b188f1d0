"""Revisions in the database: when there is a new one, which are kept, what is remembered of traffic."""

import copy
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.errors import AlreadyExists, FailedPrecondition, NotFound
from mlmesh_serving.store import ServingStore
from mlmesh_serving.traffic.names import revision_name, revision_number
from mlmesh_serving.traffic.plan import RolloutState
from mlmesh_serving.traffic.settings import LATEST, HeaderRule, Match, Shadow, Sticky, Target, Traffic


@pytest.fixture
def store(tmp_path: Path) -> ServingStore:
    engine = create_engine(f"sqlite:///{tmp_path}/serving.sqlite3")
    migrate(engine, "mlmesh_serving")
    return ServingStore(engine, kept=3)


def manifest(uri: str = "file:///m/1", **predictor: Any) -> dict[str, Any]:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": uri}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris"},
        "spec": {"predictor": {"model": model, **predictor}},
    }


def made(store: ServingStore, revisions: int) -> None:
    store.create("a", "iris", manifest())
    for number in range(2, revisions + 1):
        assert store.update("a", "iris", manifest(f"file:///m/{number}")).revision == number


def numbers(store: ServingStore) -> list[int]:
    return [revision.number for revision in store.revisions("a", "iris")]


def test_a_change_of_what_is_served_is_a_new_revision_and_nothing_else_is(store: ServingStore) -> None:
    store.create("a", "iris", manifest())
    assert store.update("a", "iris", manifest("file:///m/2")).revision == 2
    assert store.update("a", "iris", manifest("file:///m/2", minReplicas=2)).revision == 3
    labelled = manifest("file:///m/2", minReplicas=2)
    labelled["metadata"] |= {"labels": {"team": "a"}, "annotations": {"owner": "ada"}}
    stored = store.update("a", "iris", labelled)
    assert (stored.revision, stored.manifest) == (3, labelled)
    canary = copy.deepcopy(labelled)
    canary["spec"]["predictor"]["canaryTrafficPercent"] = 10
    stored = store.update("a", "iris", canary)
    assert (stored.revision, stored.canary_percent) == (3, 10)
    canary["metadata"]["annotations"]["autoscaling.knative.dev/window"] = "90s"
    assert store.update("a", "iris", canary).revision == 4, "Knative keeps these in the revision's template"
    assert store.revision("a", "iris", 2).manifest == manifest("file:///m/2")
    assert numbers(store) == [4, 3, 2]


def test_the_same_revision_is_not_made_twice_and_loads_again(store: ServingStore) -> None:
    store.create("a", "iris", manifest())
    store.set_unloaded("a", "iris", True)
    stored = store.update("a", "iris", manifest())
    assert (stored.revision, stored.unloaded) == (1, False)


def test_old_revisions_go_but_for_those_that_are_needed(store: ServingStore) -> None:
    made(store, 2)
    store.record_rollout("a", "iris", RolloutState(2, rolled_out=2, previous=1))
    store.set_traffic("a", "iris", Traffic(rules=(HeaderRule("x", Match.EXACT, "old", 2),)))
    for number in range(3, 8):
        store.update("a", "iris", manifest(f"file:///m/{number}"))
    assert numbers(store) == [7, 6, 5, 2, 1], "the newest three; 2 has a rule and traffic; 1 is what it came from"
    store.record_rollout("a", "iris", RolloutState(7, rolled_out=7, previous=6))
    store.set_traffic("a", "iris", Traffic())
    store.update("a", "iris", manifest("file:///m/8"))
    assert numbers(store) == [8, 7, 6]
    with pytest.raises(NotFound, match="iris-00002"):
        store.revision("a", "iris", 2)


def test_numbers_are_never_given_twice(store: ServingStore) -> None:
    made(store, 5)
    store.delete("a", "iris")
    assert store.create("a", "iris", manifest()).revision == 6
    with pytest.raises(AlreadyExists):
        store.create("a", "iris", manifest())
    assert store.create("b", "iris", manifest()).revision == 1


def test_revisions_are_listed_page_by_page(store: ServingStore) -> None:
    made(store, 3)
    assert [r.number for r in store.revisions("a", "iris", most=2)] == [3, 2]
    assert [r.number for r in store.revisions("a", "iris", before=2)] == [1]
    assert store.revisions("a", "iris")[0].created_ms > 1_700_000_000_000
    with pytest.raises(NotFound):
        store.revisions("b", "iris")


TRAFFIC = Traffic(
    (Target(1, 90, "stable"), Target(LATEST, 10)),
    (HeaderRule("x", Match.REGEX, "a+", 1),),
    Sticky("x-user"),
    Shadow(2, 5),
)


def test_traffic_is_kept_until_the_manifest_says_it_anew(store: ServingStore) -> None:
    made(store, 2)
    assert store.set_traffic("a", "iris", TRAFFIC).traffic == TRAFFIC
    labelled = manifest("file:///m/2")
    labelled["metadata"]["labels"] = {"a": "b"}
    assert store.update("a", "iris", labelled).traffic == TRAFFIC
    after = store.update("a", "iris", manifest("file:///m/2", canaryTrafficPercent=20)).traffic
    assert after == Traffic((), TRAFFIC.rules, TRAFFIC.sticky, TRAFFIC.shadow)
    store.set_traffic("a", "iris", TRAFFIC)
    assert store.update("a", "iris", manifest("file:///m/3", canaryTrafficPercent=20)).traffic == after
    assert store.list()[0].traffic == after


def test_traffic_to_a_revision_that_is_not_there_changes_nothing(store: ServingStore) -> None:
    made(store, 1)
    for traffic in (
        Traffic((Target(7, 100),)),
        Traffic(rules=(HeaderRule("x", Match.EXACT, "a", 7),)),
        Traffic(shadow=Shadow(7, 1)),
    ):
        with pytest.raises(NotFound, match="iris-00007"):
            store.set_traffic("a", "iris", traffic)
    assert store.get("a", "iris").traffic == Traffic()


def test_promoting_takes_the_canary_percentage_away(store: ServingStore) -> None:
    made(store, 1)
    store.update("a", "iris", manifest("file:///m/2", canaryTrafficPercent=10))
    store.set_traffic("a", "iris", TRAFFIC)
    stored = store.promote("a", "iris")
    assert (stored.canary_percent, stored.revision, stored.traffic.targets) == (None, 2, ())
    assert stored.traffic.rules == TRAFFIC.rules
    assert store.promote("a", "iris", 1).traffic.targets == (Target(1, 100),)


@pytest.mark.parametrize(
    ("state", "targets", "canary", "back_to"),
    [
        (RolloutState(3, 3, 2), (), None, 2),
        (RolloutState(3, 2, 1), (), 10, 2),
        (RolloutState(3, 2, 1), (), None, 2),
        (RolloutState(3, 3, 1), (), 10, 1),
        (RolloutState(3, 2, 1), (Target(1, 50), Target(3, 50)), None, 2),
        (RolloutState(3, 1, 2), (Target(1, 100),), None, 2),
    ],
)
def test_rolling_back_goes_to_what_had_all_requests_before(
    store: ServingStore, state: RolloutState, targets: tuple[Target, ...], canary: int | None, back_to: int
) -> None:
    made(store, 2)
    last = manifest("file:///m/3") if canary is None else manifest("file:///m/3", canaryTrafficPercent=canary)
    store.update("a", "iris", last)
    store.record_rollout("a", "iris", state)
    store.set_traffic("a", "iris", Traffic(targets, TRAFFIC.rules, TRAFFIC.sticky, TRAFFIC.shadow))
    assert store.roll_back("a", "iris").traffic == Traffic((Target(back_to, 100),), sticky=TRAFFIC.sticky)


def test_what_has_no_past_cannot_be_rolled_back_but_to_a_name(store: ServingStore) -> None:
    made(store, 2)
    with pytest.raises(FailedPrecondition, match="name a revision"):
        store.roll_back("a", "iris")
    assert store.roll_back("a", "iris", 1).traffic.targets == (Target(1, 100),)
    with pytest.raises(NotFound):
        store.roll_back("a", "iris", 9)


def test_a_change_is_undone_only_if_nobody_changed_anything_since(store: ServingStore) -> None:
    made(store, 2)
    before = store.get("a", "iris")
    after = store.set_traffic("a", "iris", TRAFFIC)
    assert store.put_back(before, after).traffic == before.traffic
    store.set_traffic("a", "iris", Traffic(sticky=Sticky("other")))
    assert store.put_back(before, after).traffic == Traffic(sticky=Sticky("other"))


def test_what_is_remembered_of_a_rollout_comes_back(store: ServingStore) -> None:
    made(store, 2)
    state = RolloutState(2, 2, 1, tuple([1] * 90 + [2] * 10))
    store.record_rollout("a", "iris", state)
    assert store.get("a", "iris").rollout == state
    store.record_rollout("a", "gone", state)


def test_services_of_before_traffic_are_understood(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/old.sqlite3")
    migrate(engine, "mlmesh_serving")
    with engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO inference_services (namespace, name, manifest, revision, unloaded) VALUES "
                    "('a', 'iris', :manifest, 4, 0)"),
            {"manifest": '{"spec": {"predictor": {}}}'},
        )  # fmt: skip
    stored = ServingStore(engine).get("a", "iris")
    assert (stored.traffic, stored.rollout, stored.canary_percent) == (Traffic(), RolloutState(4), None)


def test_names_of_revisions_are_knatives() -> None:
    assert revision_name("iris", 3) == "iris-00003" and revision_name("iris", 123456) == "iris-123456"
    assert [revision_number("iris", text) for text in ("iris-00003", "3", "00003")] == [3, 3, 3]
    assert [revision_number("iris", text) for text in ("", "iris-", "lily-00003", "-3", "³", "1" * 10)] == [0] * 6
