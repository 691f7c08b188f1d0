"""Our HTTP/2 server behind the real Envoy, and the stock tritonclient at both."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from mlmesh.envoy_binary import find_envoy
from mlmesh.ports import pick_free
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.inference import grpc_service_pb2 as pb
from mlmesh_protos.inference import grpc_service_pb2_grpc as pb_grpc

PYTHON = Path(__file__).parents[3] / ".venvs" / "triton" / "bin" / "python"
_TYPE = "type.googleapis.com/envoy.extensions."
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def process(folder: Path) -> ServiceProcess:
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    return ServiceProcess("kit_infer_service", "MLMESH_INFER_", folder, {}, env)


def bootstrap(port: int, service: str) -> dict[str, Any]:
    """One listener that passes gRPC on over HTTP/2."""
    host, service_port = service.split(":")
    manager = {
        "@type": f"{_TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "service", "timeout": "0s"}}],
                }
            ]
        },
    }
    http2 = {
        "@type": f"{_TYPE}upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    address = {"socket_address": {"address": host, "port_value": int(service_port)}}
    return {
        "static_resources": {
            "listeners": [
                {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [
                        {
                            "filters": [
                                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "service",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
                    },
                    "load_assignment": {
                        "cluster_name": "service",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                }
            ],
        }
    }


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with process(tmp_path_factory.mktemp("infer")) as running:
        yield running


@pytest.fixture(scope="module")
def envoy(service: ServiceProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of Envoy, in front of the service."""
    folder = tmp_path_factory.mktemp("envoy")
    (port,) = pick_free(1)
    (folder / "envoy.yaml").write_text(yaml.safe_dump(bootstrap(port, service.grpc)))
    command = [str(find_envoy()), "-c", "envoy.yaml", "--log-level", "warning", "--concurrency", "1"]
    running = subprocess.Popen([*command, "--use-dynamic-base-id", "--disable-hot-restart"], cwd=folder)
    try:
        deadline = time.monotonic() + 20
        while not _listens(port):
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.conformance
@pytest.mark.parametrize("way", ["direct", "envoy"])
def test_the_stock_tritonclient(service: ServiceProcess, way: str, request: pytest.FixtureRequest) -> None:
    address = service.grpc if way == "direct" else request.getfixturevalue("envoy")
    script = str(Path(__file__).with_name("triton_steps.py"))
    done = subprocess.run([str(PYTHON), script, address], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "live": True,
        "small None": True,
        "small gzip": True,
        "small deflate": True,
        "large": True,
        "told": "by a header",
        "deadline": "StatusCode.DEADLINE_EXCEEDED",
        "nothing": ["StatusCode.NOT_FOUND", "model 'nothing' not found"],
        "cancelled": True,
        "async": True,
        "stream": True,
    }


def test_no_call_through_envoy_is_lost_while_the_service_drains(service: ServiceProcess, envoy: str) -> None:
    """The last test of the module: it ends the service."""
    with grpc.insecure_channel(envoy) as channel:
        stub: Any = pb_grpc.GRPCInferenceServiceStub(channel)
        stub.ModelInfer(pb.ModelInferRequest(model_name="m"), timeout=10)
        request = pb.ModelInferRequest(model_name="drain")
        calls = [stub.ModelInfer.future(request, timeout=20) for _ in range(30)]
        stream = stub.ModelStreamInfer(iter([request] * 30), timeout=20)
        next(stream)
        _until_begun(service.data_dir / "infer" / "drains", 30)
        os.kill(service.pid, signal.SIGTERM)
        assert [call.result().model_name for call in calls] == ["drain"] * 30
        assert len(list(stream)) == 29
    assert service.stop() == 0


def _until_begun(mark: Path, calls: int) -> None:
    deadline = time.monotonic() + 20
    while not mark.exists() or mark.stat().st_size < calls:
        assert time.monotonic() < deadline, "the calls did not come"
        time.sleep(0.01)
