import time
import warnings
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import (
    experiment_pb2_grpc,
    healthz_pb2_grpc,
    pipeline_pb2_grpc,
    recurring_run_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
)

warnings.simplefilter("ignore", FutureWarning)
FINAL = {run_pb2.SUCCEEDED, run_pb2.FAILED, run_pb2.CANCELED}


class PipelineClient:
    """The service's RPCs, and waiting for runs."""

    def __init__(self, service: ServiceProcess) -> None:
        self.service = service
        self.connect()

    def connect(self) -> None:
        self.channel = self.service.channel()
        self.runs = run_pb2_grpc.RunServiceStub(self.channel)
        self.pipelines = pipeline_pb2_grpc.PipelineServiceStub(self.channel)
        self.experiments = experiment_pb2_grpc.ExperimentServiceStub(self.channel)
        self.recurring = recurring_run_pb2_grpc.RecurringRunServiceStub(self.channel)
        self.healthz = healthz_pb2_grpc.HealthzServiceStub(self.channel)

    def create(self, spec: dict, parameters: dict | None = None, name: str = "test", **fields) -> run_pb2.Run:
        run = run_pb2.Run(display_name=name, **fields)
        json_format.ParseDict(spec, run.pipeline_spec)
        for key, value in (parameters or {}).items():
            json_format.ParseDict(value, run.runtime_config.parameters[key])
        return self.runs.CreateRun(run_pb2.CreateRunRequest(run=run))

    def get(self, run_id: str) -> run_pb2.Run:
        return self.runs.GetRun(run_pb2.GetRunRequest(run_id=run_id))

    def wait_until(self, run_id: str, condition, seconds: float = 30) -> run_pb2.Run:
        deadline = time.monotonic() + seconds
        while True:
            run = self.get(run_id)
            if condition(run):
                return run
            if time.monotonic() > deadline:
                log = self.service.log_path.read_text()[-3000:]
                raise AssertionError(f"still {run_pb2.RuntimeState.Name(run.state)}: {run}\n{log}")
            time.sleep(0.03)

    def wait(self, run_id: str, seconds: float = 30) -> run_pb2.Run:
        return self.wait_until(run_id, lambda run: run.state in FINAL, seconds)

    def run(self, spec: dict, parameters: dict | None = None, **fields) -> run_pb2.Run:
        return self.wait(self.create(spec, parameters, **fields).run_id)


def tasks_of(run: run_pb2.Run) -> dict[str, run_pb2.PipelineTaskDetail]:
    return {task.display_name: task for task in run.run_details.task_details}


@pytest.fixture(scope="session")
def by_name():
    return tasks_of


@pytest.fixture(scope="session")
def compile_pipeline(tmp_path_factory):
    from kfp import compiler

    folder = tmp_path_factory.mktemp("compiled")

    def compile_one(function, *, caching: bool = True) -> dict:
        path = folder / f"{function.name}.yaml"
        compiler.Compiler().compile(function, str(path))
        documents = list(yaml.safe_load_all(path.read_text()))
        spec = documents[0]
        if not caching:
            for owner in [spec["root"], *spec["components"].values()]:
                for task in owner.get("dag", {}).get("tasks", {}).values():
                    task["cachingOptions"] = {}
        return spec if len(documents) == 1 else {"pipeline_spec": spec, "platform_spec": documents[1]}

    return compile_one


@pytest.fixture
def make_service(tmp_path):
    started = []

    def make(
        data_dir: Path | None = None, environment: dict[str, str] | None = None, **settings: str
    ) -> ServiceProcess:
        folder = data_dir or tmp_path / "data"
        service = ServiceProcess("mlmesh_pipeline", "MLMESH_PIPELINE_", folder, settings, environment)
        started.append(service)
        return service.start()

    yield make
    for service in started:
        service.stop()


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory):
    with ServiceProcess("mlmesh_pipeline", "MLMESH_PIPELINE_", tmp_path_factory.mktemp("pipeline")) as service:
        yield service


@pytest.fixture(scope="session")
def client(shared_service):
    return PipelineClient(shared_service)


@pytest.fixture(scope="session")
def connect():
    return PipelineClient
