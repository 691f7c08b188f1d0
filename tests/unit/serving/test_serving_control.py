"""Listing revisions, setting traffic, promoting and rolling back: the servicer, over a real store and rollouts."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import struct_pb2
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as pb
from mlmesh_serving.servicers.control import ControlServicer
from mlmesh_serving.servicers.requests import manifest_of
from mlmesh_serving.servicers.status import status_of
from mlmesh_serving.traffic.control import TrafficControl
from support.serving_world import ServingWorld

NAME = "namespaces/a/inferenceservices/iris"


class World(ServingWorld):
    """A model, iris, in namespace a."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "a")

    async def deploy(self, number: int, canary: int | None = None, *, wait: bool = True) -> None:
        """Gives the model its n-th manifest."""
        predictor: dict[str, Any] = {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": f"file:///{number}"}}
        if canary is not None:
            predictor["canaryTrafficPercent"] = canary
        manifest = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "iris"},
            "spec": {"predictor": predictor},
        }
        if number == 1:
            await self.repository.create("a", manifest)
        else:
            await self.repository.update("a", "iris", manifest)
        if wait:
            await self.repository.held["a", "iris"].settled()

    async def of_iris(self, **headers: str) -> dict[int, int]:
        return await self.shares("iris", **headers)

    async def set(self, *targets: pb.TrafficTarget, **more: Any) -> pb.InferenceService:
        request = pb.SetTrafficRequest(name=NAME, traffic=pb.Traffic(targets=targets, **more))
        return await self.servicer.SetTraffic(request, None)

    async def promote(self, revision: str = "") -> pb.InferenceService:
        return await self.servicer.Promote(pb.PromoteRequest(name=NAME, revision=revision), None)

    async def roll_back(self, revision: str = "") -> pb.InferenceService:
        return await self.servicer.Rollback(pb.RollbackRequest(name=NAME, revision=revision), None)


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    def run(test: Callable[[World], Awaitable[None]]) -> None:
        async def whole() -> None:
            await asyncio.wait_for(test(World(tmp_path)), 20)

        asyncio.run(whole())

    return run


def target(revision: str, percent: int, tag: str = "") -> pb.TrafficTarget:
    return pb.TrafficTarget(revision_name=revision, percent=percent, tag=tag)


def conditions(service: pb.InferenceService) -> dict[str, tuple[str, str]]:
    return {c.type: (c.status, c.reason) for c in service.status.conditions}


ALL_TRUE = {"PredictorConfigurationReady", "PredictorRouteReady", "PredictorReady", "Ready"}


def test_a_canary_is_promoted_and_taken_back(run: Any) -> None:
    async def test(world: World) -> None:
        await world.deploy(1)
        await world.deploy(2, canary=10)
        assert await world.of_iris() == {1: 90, 2: 10}
        service = await world.promote()
        assert await world.of_iris() == {2: 100}
        assert "canaryTrafficPercent" not in service.manifest["spec"]["predictor"]
        assert {kind: status for kind, (status, _) in conditions(service).items()} == dict.fromkeys(ALL_TRUE, "True")
        predictor = service.status.components["predictor"]
        assert predictor.latest_rolledout_revision == "iris-00002"
        assert predictor.previous_rolledout_revision == "iris-00001"
        assert [(t.revision_name, t.percent, t.latest_revision) for t in predictor.traffic] == [
            ("iris-00002", 100, True)
        ]
        service = await world.roll_back()
        assert await world.of_iris() == {1: 100}
        assert service.status.latest_created_revision == 2 and service.status.latest_ready_revision == 1
        assert conditions(service)["PredictorConfigurationReady"] == ("True", "NoTraffic")
        assert conditions(service)["Ready"][0] == "True"
        await world.roll_back()
        assert await world.of_iris() == {2: 100}, "rolling back is taken back by rolling back"

    run(test)


def test_rolling_back_a_canary_takes_rules_and_shadow_with_it(run: Any) -> None:
    async def test(world: World) -> None:
        await world.deploy(1)
        await world.deploy(2, canary=10)
        rule = pb.HeaderRule(header="X-Canary", exact="yes", revision="latest")
        await world.set(rules=[rule], shadow=pb.Shadow(revision="iris-00002", percent=10), sticky=pb.Sticky())
        assert await world.of_iris(x_canary="yes") == {2: 100}
        service = await world.roll_back()
        assert await world.of_iris(x_canary="yes") == {1: 100}
        assert not service.status.traffic.rules and not service.status.traffic.HasField("shadow")
        assert service.status.traffic.sticky.header == "kubeflow-userid"

    run(test)


def test_traffic_is_set_by_names_numbers_and_tags(run: Any) -> None:
    async def test(world: World) -> None:
        for number in (1, 2, 3):
            await world.deploy(number)
        rules = [
            pb.HeaderRule(header="x-team", prefix="a", revision="blue"),
            pb.HeaderRule(header="x-team", regex="[b-d]+", revision="latest"),
        ]
        await world.set(target("1", 25, "blue"), target("iris-00002", 75), rules=rules)
        assert await world.of_iris() == {1: 25, 2: 75}
        assert await world.of_iris(x_team="abc") == {1: 100} and await world.of_iris(x_team="cc") == {3: 100}
        service = await world.set(target("blue", 50, "green"), pb.TrafficTarget(latest_revision=True, percent=50))
        assert await world.of_iris() == {1: 50, 3: 50}
        told = service.status.traffic
        assert [(t.revision_name, t.latest_revision, t.tag) for t in told.targets] == [
            ("iris-00001", False, "green"), ("", True, ""),
        ]  # fmt: skip
        assert [(r.number, r.state, r.percent) for r in service.status.revisions] == [
            (3, "READY", 50),
            (1, "READY", 50),
        ]
        await world.set()
        assert await world.of_iris() == {3: 100}, "without targets the manifest says it"

    run(test)


def test_a_new_revision_gives_the_shares_back_to_the_manifest(run: Any) -> None:
    async def test(world: World) -> None:
        await world.deploy(1)
        await world.deploy(2)
        await world.roll_back()
        await world.deploy(3, canary=20)
        assert await world.of_iris() == {1: 80, 3: 20}, "what was rolled back to is what a canary is tried against"

    run(test)


def test_traffic_to_what_cannot_be_loaded_is_refused_and_undone(run: Any) -> None:
    async def test(world: World) -> None:
        await world.deploy(1)
        await world.deploy(2)
        world.repository.broken[1] = InvalidArgument("the file is gone")
        for change in (world.set(target("1", 100)), world.roll_back(), world.promote("iris-00001")):
            with pytest.raises(FailedPrecondition, match="the file is gone"):
                await change
            assert await world.of_iris() == {2: 100}
            assert world.store.get("a", "iris").traffic.targets == (), "a restart would go there"

    run(test)


def test_a_newest_that_cannot_be_loaded_is_not_promoted(run: Any) -> None:
    async def test(world: World) -> None:
        await world.deploy(1)
        world.repository.broken[2] = InvalidArgument("no model there")
        await world.deploy(2, canary=10)
        with pytest.raises(FailedPrecondition, match="iris-00002 could not be loaded: no model there"):
            await world.promote()
        assert await world.of_iris() == {1: 100}
        stored = world.store.get("a", "iris")
        assert stored.canary_percent == 10
        status = status_of(stored, world.repository.held["a", "iris"], "iris")
        found = {c.type: (c.status, c.reason, c.message) for c in status.conditions}
        assert found["Ready"] == ("False", "LoadFailed", "no model there")
        assert found["PredictorRouteReady"][0] == "True"
        await world.set(sticky=pb.Sticky(header="x-user"))
        service = await world.roll_back("1")
        assert service.status.components["predictor"].latest_rolledout_revision == "iris-00001"

    run(test)


def test_what_loads_slowly_is_told_as_it_is(run: Any) -> None:
    async def test(world: World) -> None:
        await world.deploy(1)
        gate = world.repository.gates[2] = asyncio.Event()
        await world.deploy(2, wait=False)
        slow = TrafficControl(world.store, world.repository, settle_seconds=0.05)
        servicer = ControlServicer(world.repository, "other", slow)  # type: ignore[arg-type]
        service = await servicer.Promote(pb.PromoteRequest(name=NAME), None)
        assert conditions(service)["Ready"] == ("Unknown", "Loading")
        assert service.status.url == "/v2/models/a.iris"
        gate.set()
        await world.repository.held["a", "iris"].settled()
        assert await world.of_iris() == {2: 100}

    run(test)


def test_revisions_are_listed_and_read(run: Any) -> None:
    async def test(world: World) -> None:
        for number in (1, 2, 3):
            await world.deploy(number)
        request = pb.ListRevisionsRequest(parent=NAME, page_size=2)
        page = await world.servicer.ListRevisions(request, None)
        assert [r.name for r in page.revisions] == [f"{NAME}/revisions/iris-0000{n}" for n in (3, 2)]
        assert [(r.status.state, r.status.percent) for r in page.revisions] == [("READY", 100), ("RETIRED", 0)]
        request.page_token = page.next_page_token
        page = await world.servicer.ListRevisions(request, None)
        assert [r.status.number for r in page.revisions] == [1] and not page.next_page_token
        for name in ("iris-00002", "2"):
            found = await world.servicer.GetRevision(pb.GetRevisionRequest(name=f"{NAME}/revisions/{name}"), None)
            assert found.manifest["spec"]["predictor"]["model"]["storageUri"] == "file:///2"
            assert found.create_time.seconds > 1_700_000_000
        for name in ("iris-00009", "lily-00001", "x"):
            with pytest.raises(NotFound):
                await world.servicer.GetRevision(pb.GetRevisionRequest(name=f"{NAME}/revisions/{name}"), None)

    run(test)


def test_an_unloaded_model_keeps_its_traffic(run: Any) -> None:
    async def test(world: World) -> None:
        await world.deploy(1)
        await world.deploy(2)
        world.store.set_unloaded("a", "iris", True)
        world.repository.held.clear()
        service = await world.roll_back()
        assert conditions(service)["Ready"] == ("False", "Unloaded")
        assert service.status.traffic.targets[0].revision_name == "iris-00001"

    run(test)


@pytest.mark.parametrize(
    ("traffic", "field"),
    [
        (pb.Traffic(targets=[target("1", 90)]), "targets"),
        (pb.Traffic(targets=[pb.TrafficTarget(percent=100)]), "traffic.targets[0]"),
        (pb.Traffic(targets=[pb.TrafficTarget(revision_name="1", latest_revision=True)]), "traffic.targets[0]"),
        (pb.Traffic(rules=[pb.HeaderRule(header="x", revision="1")]), "traffic.rules[0]"),
        (pb.Traffic(rules=[pb.HeaderRule(header="x", exact="a")]), "traffic.rules[0].revision"),
        (pb.Traffic(rules=[pb.HeaderRule(header="x", regex="(", revision="1")]), "rules[0].regex"),
        (pb.Traffic(shadow=pb.Shadow(percent=1)), "traffic.shadow.revision"),
        (pb.Traffic(shadow=pb.Shadow(revision="1")), "shadow.percent"),
        (pb.Traffic(sticky=pb.Sticky(header="a b")), "sticky.header"),
    ],
)
def test_bad_traffic_is_refused_by_name_and_changes_nothing(run: Any, traffic: pb.Traffic, field: str) -> None:
    async def test(world: World) -> None:
        await world.deploy(1)
        before = world.store.get("a", "iris")
        with pytest.raises(InvalidArgument) as refused:
            await world.servicer.SetTraffic(pb.SetTrafficRequest(name=NAME, traffic=traffic), None)
        assert refused.value.violations[0][0] == field
        assert world.store.get("a", "iris").traffic == before.traffic

    run(test)


def test_what_is_not_there_is_not_found(run: Any) -> None:
    async def test(world: World) -> None:
        await world.deploy(1)
        for call in (world.set(target("7", 100)), world.set(target("nothing", 100)), world.promote("7"),
                     world.roll_back("blue")):  # fmt: skip
            with pytest.raises(NotFound):
                await call
        with pytest.raises(NotFound):
            await world.servicer.Promote(pb.PromoteRequest(name="namespaces/a/inferenceservices/lily"), None)
        with pytest.raises(InvalidArgument):
            await world.servicer.Rollback(pb.RollbackRequest(name="iris"), None)

    run(test)


@pytest.mark.parametrize("given", ["other", {}, [], 3])
def test_a_manifest_of_another_namespace_or_of_none_is_refused(given: object) -> None:
    manifest = struct_pb2.Struct()
    manifest.update({"metadata": {"name": "iris", "namespace": given}})
    with pytest.raises(InvalidArgument, match=r"manifest\.metadata\.namespace"):
        manifest_of(manifest, "default", "InferenceService")
