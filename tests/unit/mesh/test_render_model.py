"""A model as Kubernetes reads it: from what the serving router tells of it."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from mlmesh.render.model import RenderError, render_model_knative, render_model_kserve
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as pb
from support.serving_world import ServingWorld

NAME = "namespaces/team/inferenceservices/iris"
# Of serving.knative.dev/v1: what a Service's spec may hold, by its OpenAPI schema and its webhook's checks.
REVISION_FIELDS = {
    "affinity", "automountServiceAccountToken", "containerConcurrency", "containers", "dnsConfig", "dnsPolicy",
    "enableServiceLinks", "hostAliases", "idleTimeoutSeconds", "imagePullSecrets", "initContainers", "nodeSelector",
    "priorityClassName", "responseStartTimeoutSeconds", "runtimeClassName", "schedulerName", "securityContext",
    "serviceAccountName", "timeoutSeconds", "tolerations", "topologySpreadConstraints", "volumes",
}  # fmt: skip
CONTAINER_FIELDS = {
    "args", "command", "env", "envFrom", "image", "imagePullPolicy", "livenessProbe", "name", "ports", "readinessProbe",
    "resources", "securityContext", "startupProbe", "terminationMessagePath", "terminationMessagePolicy",
    "volumeMounts", "workingDir",
}  # fmt: skip
TARGET_FIELDS = {"configurationName", "latestRevision", "percent", "revisionName", "tag"}


def check_knative(service: dict[str, Any]) -> None:
    """Refuses what Knative's webhook would."""
    assert service["apiVersion"] == "serving.knative.dev/v1" and service["kind"] == "Service"
    assert service.keys() == {"apiVersion", "kind", "metadata", "spec"} and service["spec"].keys() == {
        "template",
        "traffic",
    }
    name, template = service["metadata"]["name"], service["spec"]["template"]
    assert template["metadata"]["name"].startswith(f"{name}-"), "a revision's name has to begin with the Service's"
    assert all(isinstance(v, str) for v in template["metadata"]["annotations"].values())
    spec = template["spec"]
    assert spec.keys() <= REVISION_FIELDS
    assert 0 <= spec["containerConcurrency"] <= 1000 and 0 < spec.get("timeoutSeconds", 1) <= 600
    assert len(spec["containers"]) == 1
    container = spec["containers"][0]
    assert container.keys() <= CONTAINER_FIELDS
    assert len(container["ports"]) == 1 and container["ports"][0]["name"] in {"h2c", "http1"}
    tags = [target["tag"] for target in service["spec"]["traffic"] if "tag" in target]
    assert len(set(tags)) == len(tags) and all(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", tag) for tag in tags)
    assert sum(target["percent"] for target in service["spec"]["traffic"]) == 100
    for target in service["spec"]["traffic"]:
        assert target.keys() <= TARGET_FIELDS
        assert target["latestRevision"] is ("revisionName" not in target)


class World(ServingWorld):
    """A model, iris, in namespace team."""

    async def deploy(self, number: int, model: dict[str, Any] | None = None, **more: Any) -> None:
        found = {"modelFormat": {"name": "sklearn"}, "storageUri": f"s3://models/{number}", **(model or {})}
        spec = {key: more.pop(key) for key in ("preprocessor", "explainer", "inputs") if key in more}
        manifest = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "iris", "annotations": {"autoscaling.knative.dev/window": "90s", "owner": "ada"}},
            "spec": {"predictor": {"model": found, **more}, **spec},
        }
        if number == 1:
            await self.repository.create("team", manifest)
        else:
            await self.repository.update("team", "iris", manifest)
        await self.repository.held["team", "iris"].settled()

    async def set(self, **traffic: Any) -> None:
        request = json_format.ParseDict({"name": NAME, "traffic": traffic}, pb.SetTrafficRequest())
        await self.servicer.SetTraffic(request, None)

    async def told(self) -> dict[str, Any]:
        """Gives the InferenceService as the ingress does."""
        found = await self.servicer.GetInferenceService(pb.GetInferenceServiceRequest(name=NAME), None)
        return json_format.MessageToDict(found, preserving_proto_field_name=True)

    async def knative(self) -> dict[str, Any]:
        rendered = render_model_knative(await self.told(), "team", "example/serving:1")
        check_knative(rendered.tree)
        return rendered.tree

    async def kserve(self) -> dict[str, Any]:
        return render_model_kserve(await self.told(), "team").tree


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    def run(test: Callable[[World], Awaitable[None]]) -> None:
        async def whole() -> None:
            await asyncio.wait_for(test(World(tmp_path, "default")), 20)

        asyncio.run(whole())

    return run


def test_a_knative_service_says_what_the_model_says(run: Any) -> None:
    async def test(world: World) -> None:
        await world.deploy(
            1, {"resources": {"limits": {"cpu": "2"}}}, minReplicas=0, maxReplicas=3, scaleMetric="rps", scaleTarget=20,
            containerConcurrency=4, timeout=30, serviceAccountName="reader",
        )  # fmt: skip
        made = await world.knative()
        assert made["metadata"] | {"labels": {}} == {"name": "iris", "namespace": "team", "labels": {}}
        template = made["spec"]["template"]
        assert template["metadata"]["name"] == "iris-00001"
        assert template["metadata"]["annotations"] == {
            f"autoscaling.knative.dev/{key}": value
            for key, value in {
                "window": "90s", "min-scale": "0", "max-scale": "3", "metric": "rps", "target": "20",
                "class": "kpa.autoscaling.knative.dev",
            }.items()
        }  # fmt: skip
        spec = template["spec"]
        assert (spec["containerConcurrency"], spec["timeoutSeconds"], spec["serviceAccountName"]) == (4, 30, "reader")
        container = spec["containers"][0]
        assert (container["image"], container["resources"]) == ("example/serving:1", {"limits": {"cpu": "2"}})
        manifest = json.loads({v["name"]: v["value"] for v in container["env"]}["MLMESH_SERVING_MANIFEST"])
        assert manifest["spec"]["predictor"]["model"]["storageUri"] == "s3://models/1"
        assert made["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]

    run(test)


def test_the_traffic_block_is_the_traffic_that_is(run: Any) -> None:
    async def test(world: World) -> None:
        await world.deploy(1)
        await world.deploy(2, canaryTrafficPercent=20)
        made = await world.knative()
        assert made["spec"]["traffic"] == [
            {"latestRevision": True, "percent": 20},
            {"latestRevision": False, "percent": 80, "revisionName": "iris-00001", "tag": "prev"},
        ]
        environment = {v["name"]: v["value"] for v in made["spec"]["template"]["spec"]["containers"][0]["env"]}
        assert "canaryTrafficPercent" not in environment["MLMESH_SERVING_MANIFEST"], "the mesh does it, not the pod"
        await world.servicer.Rollback(pb.RollbackRequest(name=NAME), None)
        assert (await world.knative())["spec"]["traffic"] == [
            {"latestRevision": False, "percent": 100, "revisionName": "iris-00001"}
        ]
        await world.deploy(3)
        targets = [
            {"revision_name": str(n), "percent": p, "tag": t} for n, p, t in ((1, 30, "a"), (2, 0, "b"), (3, 70, ""))
        ]
        await world.set(targets=targets)
        assert (await world.knative())["spec"]["traffic"] == [
            {"latestRevision": False, "percent": 70, "revisionName": "iris-00003"},
            {"latestRevision": False, "percent": 0, "revisionName": "iris-00002", "tag": "b"},
            {"latestRevision": False, "percent": 30, "revisionName": "iris-00001", "tag": "a"},
        ]

    run(test)


def test_kserve_gets_the_manifest_with_the_share_of_the_canary(run: Any) -> None:
    async def test(world: World) -> None:
        await world.deploy(1, inputs=[{"name": "x", "datatype": "FP32", "shape": [-1, 4]}])
        made = await world.kserve()
        assert made["spec"] == {
            "predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/1"}}
        }
        assert made["metadata"]["namespace"] == "team"
        await world.deploy(2, {"method": "predict_proba"}, canaryTrafficPercent=20)
        made = await world.kserve()
        assert made["spec"]["predictor"]["canaryTrafficPercent"] == 20
        assert made["spec"]["predictor"]["model"]["env"] == [{"name": "PREDICT_PROBA", "value": "true"}]
        assert "method" not in made["spec"]["predictor"]["model"]
        await world.servicer.Rollback(pb.RollbackRequest(name=NAME), None)
        assert (await world.kserve())["spec"]["predictor"]["canaryTrafficPercent"] == 0
        await world.servicer.Promote(pb.PromoteRequest(name=NAME), None)
        assert "canaryTrafficPercent" not in (await world.kserve())["spec"]["predictor"]

    run(test)


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ({"sha256": "a" * 64}, {}, "predictor.model.sha256"),
        ({"threads": 2}, {}, "predictor.model.threads"),
        ({"method": "decision_function"}, {}, "not decision_function"),
        ({}, {"preprocessor": {"python": {"class": "a:B", "storageUri": "s3://m"}}}, "no preprocessor"),
        ({}, {"explainer": {"shap": {}}}, "explainer.shap"),
    ],
)
def test_what_kserve_has_not_is_not_left_out_silently(run: Any, model: Any, more: Any, said: str) -> None:
    async def test(world: World) -> None:
        await world.deploy(1, model, **more)
        with pytest.raises(RenderError, match=re.escape(said)):
            await world.kserve()
        await world.knative()

    run(test)


def test_traffic_that_cannot_be_said_is_told(run: Any) -> None:
    async def test(world: World) -> None:
        for number in (1, 2, 3):
            await world.deploy(number)
        targets = [{"revision_name": str(n), "percent": p} for n, p in ((1, 30), (2, 30), (3, 40))]
        rules = [{"header": "x", "exact": "a", "revision": "1"}]
        await world.set(targets=targets, rules=rules, sticky={}, shadow={"revision": "1", "percent": 5})
        assert len(render_model_knative(await world.told(), "team", "image").left_out) == 3
        with pytest.raises(RenderError, match="iris-00001, iris-00002, iris-00003"):
            await world.kserve()

    run(test)


def test_a_name_that_kubernetes_refuses_is_refused() -> None:
    for name in ("1iris", "a" * 60):
        with pytest.raises(RenderError, match="is no name for it on Kubernetes"):
            render_model_knative({"name": f"namespaces/a/inferenceservices/{name}"}, "a", "image")
