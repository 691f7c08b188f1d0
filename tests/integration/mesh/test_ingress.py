"""The one door: what real Envoy lets in, turns into gRPC, refuses, and how it says so."""

import base64
import json
import re
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2
from mlmesh import envoy_binary
from mlmesh_protos.inference import grpc_service_pb2, grpc_service_pb2_grpc
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2, run_pb2_grpc
from mlmesh_protos.ml_metadata import metadata_store_pb2, metadata_store_service_pb2, metadata_store_service_pb2_grpc
from support.mesh import RunningMesh

UNKNOWN_RUN = "/apis/v2beta1/runs/00000000-0000-0000-0000-000000000000"


def is_error(answer: httpx.Response, status: int, code: int) -> dict[str, Any]:
    """Checks that an answer is an error in the one form, without anything of our inside."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json"), answer.text
    body: dict[str, Any] = answer.json()
    assert body["code"] == code and body["message"], body
    assert "Traceback" not in answer.text and "site-packages" not in answer.text
    return body


@pytest.mark.parametrize(
    "path",
    [
        "/apis/v2beta1/healthz",
        "/apis/v2beta1/pipelines",
        "/apis/v2beta1/runs",
        "/apis/v2beta1/experiments",
        "/katib/v1/namespaces/default/experiments",
        "/serving/v1/namespaces/default/inferenceservices",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2",
        "/kfam/v1/bindings",
        "/kfam/v1/role/clusteradmin?user=user@mlmesh.local",
        "/api/workgroup/exists",
        "/healthz",
    ],
)
def test_each_service_answers_over_http(mesh: RunningMesh, path: str) -> None:
    answer = httpx.get(mesh.ingress + path, timeout=30)
    assert answer.status_code == 200, answer.text


def test_proto_field_names_are_kept(mesh: RunningMesh) -> None:
    made = httpx.post(f"{mesh.ingress}/apis/v2beta1/experiments", json={"display_name": "names"}, timeout=30).json()
    assert made["display_name"] == "names" and made["experiment_id"] and "created_at" in made


def test_unknown_things_are_404_with_the_services_message(mesh: RunningMesh) -> None:
    body = is_error(httpx.get(mesh.ingress + UNKNOWN_RUN), 404, 5)
    assert "00000000" in body["message"]
    assert body["details"][0]["@type"].endswith("google.rpc.ResourceInfo")
    is_error(httpx.get(f"{mesh.ingress}/metadata/v1/lineage?artifact_id=999999999"), 404, 5)
    is_error(httpx.get(f"{mesh.ingress}/katib/v1/namespaces/default/experiments/nothing"), 404, 5)
    is_error(httpx.get(f"{mesh.ingress}/serving/v1/namespaces/default/inferenceservices/nothing"), 404, 5)


def test_unknown_paths_methods_and_parameters(mesh: RunningMesh) -> None:
    is_error(httpx.get(f"{mesh.ingress}/nothing/here"), 404, 5)
    is_error(httpx.get(f"{mesh.ingress}/apis/v2beta1/nothing"), 404, 5)
    is_error(httpx.delete(f"{mesh.ingress}/apis/v2beta1/healthz"), 404, 5)
    is_error(httpx.get(f"{mesh.ingress}/apis/v2beta1/runs?nothing=1"), 400, 3)
    is_error(httpx.get(f"{mesh.ingress}/apis/v2beta1/runs?page_size=many"), 400, 3)


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"nothing", b'{"display_name": 5, "x": [}', b"\xff\xfe\x00"])
def test_broken_json_is_400_and_makes_nothing(mesh: RunningMesh, body: bytes) -> None:
    before = len(experiments(mesh))
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{mesh.ingress}/apis/v2beta1/experiments", content=body, headers=headers, timeout=30)
    is_error(answer, 400, 3)
    assert len(experiments(mesh)) == before


def experiments(mesh: RunningMesh) -> list[Any]:
    found: list[Any] = []
    token = ""
    while True:
        query = {"page_size": 100, **({"page_token": token} if token else {})}
        answer = httpx.get(f"{mesh.ingress}/apis/v2beta1/experiments", params=query, timeout=30).json()
        found += answer.get("experiments", [])
        token = answer.get("next_page_token", "")
        if not token:
            return found


def test_a_missing_field_is_named(mesh: RunningMesh) -> None:
    body = is_error(httpx.post(f"{mesh.ingress}/apis/v2beta1/experiments", json={}), 400, 3)
    fields = [v["field"] for d in body["details"] for v in d.get("field_violations", [])]
    assert any("display_name" in field for field in fields), body


@pytest.mark.parametrize(
    "path",
    [
        "/apis/v2beta1/experiments",
        "/apis/v2beta1/pipelines/upload",
        "/katib/v1/namespaces/default/experiments",
        "/serving/v1/namespaces/default/inferenceservices",
        "/v2/models/nothing/infer",
        "/kfam/v1/bindings",
    ],
)
def test_a_body_of_100_megabytes_is_413(mesh: RunningMesh, path: str) -> None:
    size = 100 << 20
    with socket.create_connection(address(mesh), timeout=30) as connection:
        head = head_of(path, f"content-length: {size}")
        connection.sendall(head.encode())
        status, text = read_answer(connection)
    assert status == 413 and b"larger than allowed" in text, text[:300]


JSON = ("application/json", b'{"manifest": {"text": "', b'"}}')
FILE = (
    "multipart/form-data; boundary=b",
    b'--b\r\ncontent-disposition: form-data; name="uploadfile"; filename="a.yaml"\r\n\r\n',
    b"\r\n--b--\r\n",
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/katib/v1/namespaces/default/experiments", JSON),
        ("/v2/models/nothing/infer", JSON),
        ("/apis/v2beta1/pipelines/upload", FILE),
    ],
)
def test_a_body_of_100_megabytes_in_chunks_is_413(mesh: RunningMesh, path: str, kind: tuple[str, bytes, bytes]) -> None:
    """Without a length in front, what is read is counted."""

    def chunk(data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)

    content_type, before, after = kind
    with socket.create_connection(address(mesh), timeout=60) as connection:
        connection.sendall(head_of(path, "transfer-encoding: chunked", content_type=content_type).encode())
        block = chunk(b"x" * (1 << 20))
        try:
            connection.sendall(chunk(before))
            for _ in range(100):
                connection.sendall(block)
            connection.sendall(chunk(after) + b"0\r\n\r\n")
        except OSError:
            pass  # answered before everything was sent
        status, text = read_answer(connection)
    assert status == 413 and b'"code":8' in text, text[:300]
    assert httpx.get(f"{mesh.ingress}/apis/v2beta1/healthz", timeout=30).status_code == 200


def head_of(path: str, *headers: str, content_type: str = "application/json") -> str:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-type: {content_type}", *headers]
    return "\r\n".join([*lines, "", ""])


def address(mesh: RunningMesh) -> tuple[str, int]:
    host, _, port = mesh.grpc.partition(":")
    return host, int(port)


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    data = b""
    try:
        while b"\r\n\r\n" not in data or len(data) < 200:
            more = connection.recv(65536)
            if not more:
                break
            data += more
    except OSError:
        pass
    assert data.startswith(b"HTTP/1.1 "), data[:200]
    return int(data.split(b" ", 2)[1]), data


def test_grpc_passes_with_its_details(mesh: RunningMesh) -> None:
    with grpc.insecure_channel(mesh.grpc) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            run_pb2_grpc.RunServiceStub(channel).GetRun(run_pb2.GetRunRequest(run_id="nothing"), timeout=30)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        trailers = dict(caught.value.trailing_metadata())
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        info = error_details_pb2.ResourceInfo()
        assert status.details[0].Unpack(info) and info.resource_name == "nothing"
        assert (
            grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
            .ServerLive(grpc_service_pb2.ServerLiveRequest(), timeout=30)
            .live
        )


def test_unknown_grpc_service_and_method(mesh: RunningMesh) -> None:
    with grpc.insecure_channel(mesh.grpc) as channel:
        for path in ("/nothing.Service/Call", "/ml_metadata.MetadataStoreService/Nothing"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(path)(b"", timeout=30)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED, path


def test_bad_bytes_over_grpc_are_an_error_and_nothing_more(mesh: RunningMesh) -> None:
    with grpc.insecure_channel(mesh.grpc) as channel:
        for method in ("PutArtifacts", "GetArtifactsByID"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/ml_metadata.MetadataStoreService/{method}")(b"\xff\xff\xff\xff", timeout=30)
            assert caught.value.code() in {grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT}
            assert "Traceback" not in (caught.value.details() or "")


def decode_text(body: bytes) -> bytes:
    """Reads grpc-web-text: pieces of base64 after one another, each with a padding of its own."""
    return b"".join(base64.b64decode(piece) for piece in re.findall(rb"[A-Za-z0-9+/]+={0,2}", body))


def test_grpc_web(mesh: RunningMesh) -> None:
    """A browser's call: the message framed, the status in the body's last frame."""
    request = metadata_store_service_pb2.PutArtifactTypeRequest(
        artifact_type=metadata_store_pb2.ArtifactType(name="web.Type")
    )
    path = f"{mesh.ingress}/ml_metadata.MetadataStoreService/PutArtifactType"
    frame = struct.pack(">BI", 0, request.ByteSize()) + request.SerializeToString()
    for text in (False, True):
        kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
        body = base64.b64encode(frame) if text else frame
        answer = httpx.post(path, content=body, headers={"content-type": kind, "accept": kind, "x-grpc-web": "1"})
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind), answer.headers
        content = decode_text(answer.content) if text else answer.content
        flag, length = struct.unpack(">BI", content[:5])
        made = metadata_store_service_pb2.PutArtifactTypeResponse.FromString(content[5 : 5 + length])
        assert flag == 0 and made.type_id > 0
        assert b"grpc-status:0" in content[5 + length :].replace(b" ", b"")


def test_who_the_caller_is_comes_from_the_ingress_alone(mesh: RunningMesh) -> None:
    forged = [("kubeflow-userid", "admin@evil"), ("KUBEFLOW-USERID", "root@evil")]
    with httpx.Client() as client:
        answer = client.get(f"{mesh.ingress}/api/workgroup/env-info", headers=forged)
    assert answer.status_code == 200 and answer.json()["user"] == "user@mlmesh.local", answer.text
    with grpc.insecure_channel(mesh.grpc) as channel:
        stub = metadata_store_service_pb2_grpc.MetadataStoreServiceStub(channel)
        metadata = (("kubeflow-userid", "admin@evil"),)
        stub.GetArtifacts(metadata_store_service_pb2.GetArtifactsRequest(), metadata=metadata, timeout=30)


def test_pages_of_other_origins_and_hosts_are_refused(mesh: RunningMesh) -> None:
    path = f"{mesh.ingress}/apis/v2beta1/experiments"
    before = len(experiments(mesh))
    is_error(httpx.post(path, json={"display_name": "x"}, headers={"origin": "https://evil.example"}), 403, 7)
    is_error(httpx.post(path, json={"display_name": "x"}, headers={"host": "evil.example"}), 421, 3)
    assert len(experiments(mesh)) == before
    own = httpx.get(f"{mesh.ingress}/apis/v2beta1/runs", headers={"origin": mesh.ingress})
    assert own.status_code == 200


def test_nothing_listens_beyond_loopback(mesh: RunningMesh) -> None:
    import psutil

    for name in [*mesh.state()["processes"]]:
        for process in [psutil.Process(mesh.pid(name)), *psutil.Process(mesh.pid(name)).children(recursive=True)]:
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip in {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, (name, connection)


def test_the_admin_is_a_socket_of_the_users_alone(mesh: RunningMesh) -> None:
    sockets = [path for path in (mesh.data_dir / "run").iterdir() if path.is_socket()]
    assert sockets
    for path in [*sockets, mesh.data_dir]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_access_log_has_no_queries(mesh: RunningMesh) -> None:
    httpx.get(f"{mesh.ingress}/apis/v2beta1/runs?page_token=secret-token-in-a-query")

    def logged() -> bool:
        return any(
            json.loads(line)["path"].startswith("/apis/v2beta1/runs")
            for path in (mesh.data_dir / "logs").glob("*access*")
            for line in path.read_text().splitlines()
            if line.startswith("{")
        )

    mesh.wait(logged, 20)
    for path in (mesh.data_dir / "logs").iterdir():
        assert "secret-token-in-a-query" not in path.read_text(), path


def test_envoy_finds_the_rendered_bootstrap_valid(mesh: RunningMesh, tmp_path: Path) -> None:
    rendered = next((mesh.data_dir / "run").glob("*envoy*.yaml"))
    cwd = rendered.parent  # its paths are relative to the folder that the mesh starts it in
    command = [str(envoy_binary.find_envoy()), "--mode", "validate", "-c", str(rendered), "--log-level", "error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text(rendered.read_text().replace("http_connection_manager", "no_such_filter"))
    command[4] = str(broken)
    assert subprocess.run(command, capture_output=True, timeout=60, check=False, cwd=cwd).returncode != 0
