"""Revisions and traffic in the real service: canaries, rules, roll backs under load, kill -9, a seeded model."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import joblib
import numpy as np
import pytest
from google.protobuf import json_format
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_protos.inference import grpc_service_pb2_grpc
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as pb
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2_grpc
from sklearn.dummy import DummyClassifier

ROW = np.zeros((1, 2))


class Service:
    """The serving router with models that answer constants: the n-th revision of a model answers n.

    Args:
        folder: Its data directory.
    """

    def __init__(self, folder: Path) -> None:
        self.models = folder / "artifacts"
        self.models.mkdir(parents=True, exist_ok=True)
        for number in range(1, 5):
            model = DummyClassifier(strategy="constant", constant=number).fit(ROW, [number])
            (self.models / str(number)).mkdir(exist_ok=True)
            joblib.dump(model, self.models / str(number) / "model.joblib")
        settings = {"MANIFEST": json.dumps(self.manifest("seeded", 1))}
        self.process = ServiceProcess("mlmesh_serving", "MLMESH_SERVING_", folder, settings)

    def __enter__(self) -> "Service":
        self.process.__enter__()
        self.connect()
        return self

    def __exit__(self, *error: Any) -> None:
        self.process.__exit__(*error)

    def connect(self) -> None:
        """Opens a channel to the process that runs now."""
        self.channel = grpc.insecure_channel(self.process.grpc)
        self.control = inference_service_pb2_grpc.ServingServiceStub(self.channel)
        self.inference = grpc_service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def manifest(self, name: str, number: int, **predictor: Any) -> dict[str, Any]:
        model = {"modelFormat": {"name": "sklearn"}, "storageUri": (self.models / str(number)).as_uri()}
        return {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name},
            "spec": {"predictor": {"model": model, **predictor}},
        }

    def deploy(self, name: str, number: int, **predictor: Any) -> pb.InferenceService:
        """Gives a model its n-th manifest, and waits until it is ready."""
        manifest = self.manifest(name, number, **predictor)
        if number == 1:
            create = pb.CreateInferenceServiceRequest(parent="namespaces/default")
            self.control.CreateInferenceService(json_format.ParseDict({"manifest": manifest}, create))
        else:
            update = pb.UpdateInferenceServiceRequest(name=f"namespaces/default/inferenceservices/{name}")
            self.control.UpdateInferenceService(json_format.ParseDict({"manifest": manifest}, update))
        return self.wait(name)

    def wait(self, name: str) -> pb.InferenceService:
        """Waits until a model is ready."""
        deadline = time.monotonic() + 60
        while True:
            found = self.get(name)
            ready = next(c for c in found.status.conditions if c.type == "Ready")
            if ready.status == "True":
                return found
            assert time.monotonic() < deadline, ready
            time.sleep(0.05)

    def get(self, name: str) -> pb.InferenceService:
        request = pb.GetInferenceServiceRequest(name=f"namespaces/default/inferenceservices/{name}")
        return self.control.GetInferenceService(request)

    def ask(self, name: str, version: str = "", metadata: Any = ()) -> int:
        """Asks a model; checks that the version it tells is the one that answered, and gives its number."""
        tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=ROW.shape)
        request = oip.ModelInferRequest(
            model_name=name, model_version=version, inputs=[tensor], raw_input_contents=[ROW.tobytes()]
        )
        answer = self.inference.ModelInfer(request, metadata=metadata)
        number = int(np.frombuffer(answer.raw_output_contents[0], np.int64)[0])
        assert answer.model_version == str(number)
        return number

    def shares(self, name: str, count: int = 200, metadata: Any = ()) -> dict[int, int]:
        """Asks so many times; gives how often which revision answered."""
        return dict(Counter(self.ask(name, metadata=metadata) for _ in range(count)))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("traffic")) as made:
        yield made


def test_a_model_is_there_from_the_start(service: Service) -> None:
    service.wait("seeded")
    assert service.ask("seeded") == 1


def test_a_canary_gets_its_share_by_both_doors(service: Service) -> None:
    service.deploy("canary", 1)
    found = service.deploy("canary", 2, canaryTrafficPercent=25)
    assert [(r.number, r.state, r.percent) for r in found.status.revisions] == [(2, "READY", 25), (1, "READY", 75)]
    got = service.shares("canary")
    assert abs(got[2] - 50) <= 5 and sum(got.values()) == 200
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [0, 0]}]}
    for path, version in (("canary", None), ("canary/versions/2", "2"), ("canary/versions/prev", "1")):
        answer = httpx.post(f"{service.process.http}/v2/models/{path}/infer", json=body).json()
        assert answer["model_version"] == version or version is None
    assert [service.ask("canary", version) for version in ("1", "canary-00002", "latest")] == [1, 2, 2]
    with pytest.raises(grpc.RpcError, match="has no version '3'; 1, 2, latest, prev can be asked"):
        service.ask("canary", "3")
    metadata = service.inference.ModelMetadata(oip.ModelMetadataRequest(name="canary"))
    assert metadata.versions == ["1", "2"]


def test_headers_and_keys_decide(service: Service) -> None:
    service.deploy("ruled", 1)
    service.deploy("ruled", 2, canaryTrafficPercent=0)
    request = pb.SetTrafficRequest(name="namespaces/default/inferenceservices/ruled")
    request.traffic.rules.add(header="X-Team", regex="(blue|green)-.*", revision="2")
    request.traffic.sticky.header = "x-user"
    for revision, percent in (("1", 50), ("2", 50)):
        request.traffic.targets.add(revision_name=revision, percent=percent)
    service.control.SetTraffic(request)
    assert service.shares("ruled", 20, [("x-team", "blue-1")]) == {2: 20}
    users = {n: set(service.shares("ruled", 3, [("x-user", f"user-{n}")])) for n in range(20)}
    assert all(len(revisions) == 1 for revisions in users.values()) and len(set.union(*users.values())) == 2


class Load:
    """Asks a model from several threads until it is told to stop."""

    def __init__(self, service: Service, name: str) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()

        def work() -> None:
            while not self._stop.is_set():
                try:
                    self.answers[service.ask(name)] += 1
                except Exception as error:
                    self.failures.append(str(error))

        self._threads = [threading.Thread(target=work) for _ in range(4)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_no_request_fails_while_revisions_come_and_go(service: Service) -> None:
    service.deploy("busy", 1)
    name = "namespaces/default/inferenceservices/busy"
    with Load(service, "busy") as load:
        service.deploy("busy", 2, canaryTrafficPercent=30)
        service.control.Promote(pb.PromoteRequest(name=name))
        service.control.Rollback(pb.RollbackRequest(name=name))
        assert service.shares("busy", 10) == {1: 10}
        service.deploy("busy", 3)
        service.control.Rollback(pb.RollbackRequest(name=name, revision="2"))
        assert service.shares("busy", 10) == {2: 10}
    assert not load.failures, load.failures[:3]
    assert load.answers.keys() == {1, 2, 3}
    states = {r.status.number: r.status.state for r in revisions_of(service, name)}
    assert states == {3: "RETIRED", 2: "READY", 1: "RETIRED"}


def revisions_of(service: Service, name: str) -> list[pb.Revision]:
    return list(service.control.ListRevisions(pb.ListRevisionsRequest(parent=name)).revisions)


def test_traffic_is_as_it_was_after_a_kill(service: Service) -> None:
    service.deploy("killed", 1)
    service.deploy("killed", 2)
    request = pb.SetTrafficRequest(name="namespaces/default/inferenceservices/killed")
    for revision, percent in (("1", 40), ("2", 60)):
        request.traffic.targets.add(revision_name=revision, percent=percent)
    request.traffic.sticky.header = "x-user"
    service.control.SetTraffic(request)
    users = [[("x-user", f"user-{n}")] for n in range(30)]
    before = [service.ask("killed", metadata=user) for user in users]
    service.process.kill()
    service.process.start()
    service.connect()
    service.wait("killed")
    assert [service.ask("killed", metadata=user) for user in users] == before
    assert service.shares("killed", 50).keys() == {1, 2}
    assert service.wait("seeded").status.latest_created_revision == 1, "what is there already is no new revision"


def test_a_revision_that_cannot_be_loaded_changes_nothing(service: Service) -> None:
    service.deploy("broken", 1)
    service.deploy("broken", 2)
    (service.models / "1" / "model.joblib").rename(service.models / "1" / "gone")
    try:
        with pytest.raises(grpc.RpcError) as refused:
            service.control.Rollback(pb.RollbackRequest(name="namespaces/default/inferenceservices/broken"))
    finally:
        (service.models / "1" / "gone").rename(service.models / "1" / "model.joblib")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "revision 1 of model 'broken' could not be loaded" in refused.value.details()
    assert service.shares("broken", 10) == {2: 10} and not service.get("broken").status.traffic.targets
