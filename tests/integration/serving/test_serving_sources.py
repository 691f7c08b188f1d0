"""Models of all formats from all places, through the doors of a real serving router."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import joblib
import lightgbm
import numpy as np
import pytest
import xgboost
from google.protobuf import json_format
from mlmesh_kit.objectstore import open_store
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlmd
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service_pb2
from mlmesh_protos.ml_metadata import metadata_store_service_pb2_grpc as service_grpc
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as control
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2_grpc
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from support.s3 import BUCKET, S3Server

X, Y = load_iris(return_X_y=True)
MODELS = f"s3://{BUCKET}/serving-models"


@dataclass
class World:
    """A serving router, what it can load from, and the models of the libraries."""

    serving: ServiceProcess
    store: Any
    site: str
    folder: Path
    booster: Any
    linear: LogisticRegression

    def create(self, name: str, model_format: str, uri: str, **model: Any) -> Any:
        manifest = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name},
            "spec": {"predictor": {"model": {"modelFormat": {"name": model_format}, "storageUri": uri, **model}}},
        }
        request = control.CreateInferenceServiceRequest(parent="namespaces/default")
        json_format.ParseDict(manifest, request.manifest)
        return self._control().CreateInferenceService(request)

    def ready(self, name: str) -> str:
        """Waits until it is ready; gives why it is not."""
        request = control.GetInferenceServiceRequest(name=f"namespaces/default/inferenceservices/{name}")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = self._control().GetInferenceService(request)
            condition = {c.type: c for c in found.status.conditions}["Ready"]
            if condition.status == "True":
                return ""
            if condition.status == "False":
                return str(condition.message)
            time.sleep(0.05)
        raise AssertionError(condition)

    def predict(self, name: str, **tensors: np.ndarray) -> dict[str, np.ndarray]:
        inputs = [
            {"name": key, "shape": list(value.shape), "datatype": "FP64", "data": value.ravel().tolist()}
            for key, value in (tensors or {"x": X}).items()
        ]
        answer = httpx.post(f"{self.serving.http}/v2/models/{name}/infer", json={"inputs": inputs}, timeout=20)
        assert answer.status_code == 200, answer.text
        return {item["name"]: np.reshape(item["data"], item["shape"]) for item in answer.json()["outputs"]}

    @functools.cache  # noqa: B019
    def _control(self) -> Any:
        return inference_service_pb2_grpc.ServingServiceStub(grpc.insecure_channel(self.serving.grpc))

    def __hash__(self) -> int:
        return id(self)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("site")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield folder, f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def world(tmp_path_factory, s3_server: S3Server, site) -> Iterator[World]:
    data_dir = tmp_path_factory.mktemp("sources")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        s3 = open_store(MODELS)
    settings = {"MODEL_ROOTS": f"file://{data_dir}/artifacts,{MODELS}", "MODEL_HOSTS": site[1]}
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", data_dir) as metadata:
        settings["METADATA_ADDRESS"] = metadata.grpc
        env = s3_server.environment
        with ServiceProcess("mlmesh_serving", "MLMESH_SERVING_", data_dir, settings, env) as serving:
            found = World(
                serving,
                service_grpc.MetadataStoreServiceStub(grpc.insecure_channel(metadata.grpc)),
                f"http://{site[1]}",
                data_dir / "artifacts",
                xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(X, Y).get_booster(),
                LogisticRegression(max_iter=500).fit(X, Y),
            )
            found.folder.mkdir(exist_ok=True)
            s3.put_bytes(bytes(found.booster.save_raw("ubj")), f"{MODELS}/xgb/model.ubj")
            s3.put_bytes(b"notes", f"{MODELS}/xgb/docs/README")
            pickled = io.BytesIO()
            joblib.dump(found.linear, pickled)
            s3.put_bytes(pickled.getvalue(), f"{MODELS}/linear/model.joblib")
            (found.folder / "linear.joblib").write_bytes(pickled.getvalue())
            yield found


def test_a_model_below_a_prefix_of_s3(world):
    world.create("xgb", "xgboost", f"{MODELS}/xgb")
    assert not world.ready("xgb")
    expected = world.booster.predict(xgboost.DMatrix(X))
    assert np.allclose(world.predict("xgb")["predict"], expected, atol=1e-7)


def test_one_object_of_s3_whose_hash_is_stated(world):
    digest = hashlib.sha256(bytes(world.booster.save_raw("ubj"))).hexdigest()
    world.create("stated", "xgboost", f"{MODELS}/xgb/model.ubj", sha256=digest, method="predict_proba")
    assert not world.ready("stated")
    assert world.predict("stated")["predict_proba"].shape == (150, 3)
    world.create("other", "xgboost", f"{MODELS}/xgb/model.ubj", sha256="0" * 64)
    assert f"SHA-256 is {digest}" in world.ready("other")


def test_a_pickle_from_elsewhere_is_refused_at_the_door(world):
    for uri in (f"{MODELS}/linear", f"{world.site}/model.joblib"):
        with pytest.raises(grpc.RpcError) as caught:
            world.create("pickle", "sklearn", uri)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "MLMESH_SERVING_PICKLE_ROOTS" in caught.value.details()
    world.create("hidden", "xgboost", f"{MODELS}/linear")
    assert "MLMESH_SERVING_PICKLE_ROOTS" in world.ready("hidden")


def test_what_is_not_there(world):
    for name, uri in (("none", f"{MODELS}/none"), ("bucket", f"{MODELS}x")):
        if name == "bucket":
            with pytest.raises(grpc.RpcError, match="MLMESH_SERVING_MODEL_ROOTS"):
                world.create(name, "onnx", uri)
        else:
            world.create(name, "onnx", uri)
            assert "nothing at this URI" in world.ready(name)


def test_an_archive_by_http(world, site):
    content = world.booster.save_raw("json")
    with tarfile.open(site[0] / "xgb.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("xgb/model.json")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    world.create("web", "xgboost", f"{world.site}/xgb.tar.gz")
    assert not world.ready("web")
    assert world.predict("web")["predict"].shape == (150, 3)


def test_several_tensors_by_name(world):
    from onnx import helper

    shape = ["n", 2]
    given = [helper.make_tensor_value_info(name, 1, shape) for name in ("a", "b")]
    nodes = [helper.make_node("Sub", ["a", "b"], ["difference"])]
    graph = helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info("difference", 1, shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (world.folder / "sub.onnx").write_bytes(model.SerializeToString())
    world.create("sub", "onnx", str(world.folder / "sub.onnx"))
    assert not world.ready("sub")
    answer = world.predict("sub", b=np.ones((3, 2)), a=np.zeros((3, 2)))
    assert answer["difference"].tolist() == [[-1, -1]] * 3
    missing = {"inputs": [{"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    refused = httpx.post(f"{world.serving.http}/v2/models/sub/infer", json=missing)
    assert refused.status_code == 400 and "'b' (FP32 [-1, 2])" in refused.text


def test_a_file_that_kills_its_worker_harms_nobody_else(world):
    """Some libraries end the process on a broken file: it is the worker's, and the router says so."""
    text = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1, n_jobs=1).fit(X, Y).booster_.model_to_string()
    (world.folder / "broken.txt").write_text(text.replace("left_child=", "left_chil="))
    world.create("broken", "lightgbm", str(world.folder / "broken.txt"))
    assert world.ready("broken")
    world.create("alive", "sklearn", str(world.folder / "linear.joblib"))
    assert not world.ready("alive")
    assert np.array_equal(world.predict("alive")["predict"], world.linear.predict(X))


# mlmd://


def put(world: World, method: str, **fields: Any) -> Any:
    return getattr(world.store, method)(getattr(service_pb2, f"{method}Request")(**fields), timeout=10)


def artifact(world: World, kind: str, name: str, uri: str, **more: Any) -> int:
    made = put(world, "PutArtifactType", artifact_type=mlmd.ArtifactType(name=kind), can_omit_fields=True)
    one = mlmd.Artifact(type_id=made.type_id, name=name, uri=uri, state=mlmd.Artifact.LIVE, **more)
    return int(put(world, "PutArtifacts", artifacts=[one]).artifact_ids[0])


def context(world: World, kind: str, name: str) -> int:
    made = put(world, "PutContextType", context_type=mlmd.ContextType(name=kind), can_omit_fields=True)
    return int(put(world, "PutContexts", contexts=[mlmd.Context(type_id=made.type_id, name=name)]).context_ids[0])


def test_models_by_id_and_name(world):
    found = artifact(world, "system.Model", "default/tune/tune-3", (world.folder / "linear.joblib").as_uri())
    for name, uri in (("by-id", f"mlmd://artifacts/{found}"), ("by-name", "mlmd://models/default/tune/tune-3")):
        world.create(name, "sklearn", uri)
        assert not world.ready(name)
        assert np.array_equal(world.predict(name)["predict"], world.linear.predict(X))


def test_versions_of_registered_models(world):
    model = context(world, "kf.RegisteredModel", "iris")
    uris = {"v1": f"{MODELS}/xgb", "v2": f"{MODELS}/xgb/model.ubj"}
    for version, uri in uris.items():
        child = context(world, "kf.ModelVersion", f"{model}:{version}")
        put(world, "PutParentContexts", parent_contexts=[mlmd.ParentContext(child_id=child, parent_id=model)])
        held = artifact(world, "kf.ModelArtifact", f"{child}:model", uri)
        attribution = mlmd.Attribution(artifact_id=held, context_id=child)
        put(world, "PutAttributionsAndAssociations", attributions=[attribution])
    for name, uri in (("v1", "mlmd://models/iris/versions/v1"), ("newest", "mlmd://models/iris")):
        world.create(name, "xgboost", uri)
        assert not world.ready(name)
        assert world.predict(name)["predict"].shape == (150, 3)
    world.create("v3", "xgboost", "mlmd://models/iris/versions/v3")
    assert "knows no such model" in world.ready("v3")


def test_registered_models_that_cannot_be_served(world):
    outside = artifact(world, "system.Model", "outside", "file:///etc/passwd")
    elsewhere = artifact(world, "system.Model", "elsewhere", f"mlmd://artifacts/{outside}")
    pickled = artifact(world, "system.Model", "pickled", f"{MODELS}/linear")
    bare = artifact(world, "system.Model", "bare", "")
    cases = {
        f"mlmd://artifacts/{outside}": "MLMESH_SERVING_MODEL_ROOTS",
        f"mlmd://artifacts/{elsewhere}": "is another registered model",
        f"mlmd://artifacts/{pickled}": "MLMESH_SERVING_PICKLE_ROOTS",
        f"mlmd://artifacts/{bare}": "has no URI",
        "mlmd://artifacts/987654": "knows no such model",
        "mlmd://models/nobody": "knows no such model",
    }
    for index, (uri, message) in enumerate(cases.items()):
        world.create(f"bad-{index}", "sklearn", uri)
        assert message in world.ready(f"bad-{index}"), uri
    for uri in (
        "mlmd://artifacts/x",
        "mlmd://models/",
        "mlmd://models/a/versions/",
        "mlmd://runs/1",
        "mlmd://artifacts/0",
    ):
        with pytest.raises(grpc.RpcError, match="mlmd://artifacts/ID"):
            world.create("bad", "sklearn", uri)
