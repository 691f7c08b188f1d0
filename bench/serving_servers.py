"""The servers that bench_serving measures, each in processes of its own on free loopback ports.

All are told to be quiet: neither MLServer nor kserve writes a line for each request, as they would by default.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
from google.protobuf import json_format
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2, inference_service_pb2_grpc

from bench.serving_models import Model, Request

ROOT = Path(__file__).parents[1]
MLSERVER = ROOT / ".venvs" / "serving-mlserver" / "bin" / "mlserver"
KSERVE = ROOT / ".venvs" / "serving-kserve" / "bin" / "python"
PARENT = "namespaces/default"
QUIET = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {name: {"level": "WARNING"} for name in ("kserve", "kserve.trace", "uvicorn.access", "uvicorn.error")},
}


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        name: For the tables.
        grpc: host:port.
        http: URL.
        pid: Of the process that started the others.
    """

    name: str
    grpc: str
    http: str
    pid: int

    def address(self, request: Request) -> str:
        """Gives the URL of the port that a request goes to."""
        return self.http if request.http1 else f"http://{self.grpc}"

    def processes(self) -> list[psutil.Process]:
        """Gives its process and all below it."""
        first = psutil.Process(self.pid)
        return [first, *first.children(recursive=True)]

    def memory(self) -> list[float]:
        """Gives the memory of each process in MB: proportional set size (shared pages divided among their users)."""
        found = []
        for process in self.processes():
            try:
                found.append(process.memory_full_info().pss / 1e6)
            except psutil.NoSuchProcess:
                continue
        return found

    def cpu_seconds(self) -> float:
        """Gives the CPU time of all its processes so far."""
        total = 0.0
        for process in self.processes():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total


def free_ports(count: int) -> list[int]:
    """Gives loopback ports that nothing listens on."""
    import socket

    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def _running(command: Sequence[str], log: Path, ready: Sequence[str], **options: Any) -> Iterator[int]:
    """Starts a process and waits until URLs answer with 200; gives its pid."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **options)
    try:
        deadline = time.monotonic() + 120
        for url in ready:
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not come up:\n{log.read_text(errors='replace')[-4000:]}")
                time.sleep(0.2)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def mlserver(models: Sequence[Model], folder: Path, parallel_workers: int) -> Iterator[Server]:
    """Runs MLServer; its default is one parallel worker, and with none models run in the server's own process."""
    http, rpc, metrics = free_ports(3)
    folder.mkdir(parents=True)
    settings = {"debug": False, "host": "127.0.0.1", "http_port": http, "grpc_port": rpc, "metrics_port": metrics}
    (folder / "settings.json").write_text(json.dumps({**settings, "parallel_workers": parallel_workers}))
    for model in models:
        model.write(folder)
        implementation = {"name": model.name, "implementation": "mlserver_sklearn.SKLearnModel"}
        described = {**implementation, "parameters": {"uri": "./model.joblib"}}
        (folder / model.name / "model-settings.json").write_text(json.dumps(described))
    url = f"http://127.0.0.1:{http}"
    ready = [f"{url}/v2/models/{model.name}/ready" for model in models]
    with _running([str(MLSERVER), "start", str(folder)], folder / "log", ready, cwd=folder) as pid:
        yield Server(f"MLServer, {parallel_workers} workers", f"127.0.0.1:{rpc}", url, pid)


@contextmanager
def kserve(models: Sequence[Model], folder: Path) -> Iterator[Server]:
    """Runs kserve's ModelServer, with models in its own process as in KServe's image for scikit-learn."""
    http, rpc = free_ports(2)
    folder.mkdir(parents=True)
    (folder / "logging.json").write_text(json.dumps(QUIET))
    command = [str(KSERVE), str(Path(__file__).with_name("serving_kserve.py"))]
    command += [f"--http_port={http}", f"--grpc_port={rpc}", "--enable_latency_logging=false"]
    command += [f"--log_config_file={folder / 'logging.json'}"]
    command += [f"{model.name}={model.write(folder)}" for model in models]
    url = f"http://127.0.0.1:{http}"
    ready = [f"{url}/v2/models/{model.name}/ready" for model in models]
    with _running(command, folder / "log", ready, env={**os.environ, "PYTHONWARNINGS": "ignore"}) as pid:
        yield Server("kserve", f"127.0.0.1:{rpc}", url, pid)


@contextmanager
def router(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Runs our serving router alone; models come by `deploy`."""
    with ServiceProcess("mlmesh_serving", "MLMESH_SERVING_", folder, settings) as process:
        yield Server("mlmesh", process.grpc, process.http, process.pid)


@contextmanager
def mesh(folder: Path) -> Iterator[Server]:
    """Runs our serving router behind Envoy, as `mlmesh up` starts it; gives the ingress, and the supervisor's pid."""
    command = [sys.executable, "-m", "mlmesh"]
    up = [*command, "up", "--detach", "--auto-ports", "--json", "--service=serving", "--data-dir", str(folder)]
    done = subprocess.run(up, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the mesh did not come up:\n{done.stdout}{done.stderr}")
    try:
        url = json.loads(done.stdout)["ingress"]
        pid = json.loads((folder / "run" / "mesh.json").read_text())["pid"]
        yield Server("mlmesh, Envoy", url.removeprefix("http://"), url, pid)
    finally:
        subprocess.run([*command, "down", "--data-dir", str(folder)], capture_output=True, check=True)


def manifest(
    name: str, file: Path, *, method: str = "predict", staged: bool = False, **predictor: Any
) -> dict[str, Any]:
    """Makes the manifest of an InferenceService.

    Args:
        name: Of the model.
        file: The model's.
        method: Of the model.
        staged: With a preprocessor and a postprocessor.
        predictor: Further fields of the predictor.
    """
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": file.as_uri(), "method": method}
    spec: dict[str, Any] = {"predictor": {"model": model, **predictor}}
    if staged:
        storage = file.parent.as_uri()
        spec["preprocessor"] = {"python": {"class": "stages:scale", "storageUri": storage}}
        spec["postprocessor"] = {"python": {"class": "stages:label", "storageUri": storage}}
    return inference_service(name, spec)


def inference_service(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Makes a manifest of a spec."""
    head = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    return {**head, "metadata": {"name": name}, "spec": spec}


def deploy(server: Server, described: Mapping[str, Any], timeout_seconds: float = 60) -> None:
    """Creates an InferenceService and waits until it is ready.

    Raises:
        grpc.RpcError: It was refused.
        RuntimeError: It did not become ready.
    """
    with grpc.insecure_channel(server.grpc) as channel:
        control = inference_service_pb2_grpc.ServingServiceStub(channel)
        creation = inference_service_pb2.CreateInferenceServiceRequest(parent=PARENT)
        json_format.ParseDict(described, creation.manifest)
        name = control.CreateInferenceService(creation).name
        deadline = time.monotonic() + timeout_seconds
        while True:
            found = control.GetInferenceService(inference_service_pb2.GetInferenceServiceRequest(name=name))
            if any(one.type == "Ready" and one.status == "True" for one in found.status.conditions):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} is not ready: {json_format.MessageToJson(found.status)}")
            time.sleep(0.05)
