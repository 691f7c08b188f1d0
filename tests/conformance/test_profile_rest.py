"""KFAM's REST paths as Kubeflow's dashboard calls them, and ext_authz, through a real Envoy.

The Envoy here has the transcoder and the ext_authz filter and nothing else: what is under test is the protocol, not the
mesh's own configuration.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mlmesh_protos
import pytest
import yaml
from mlmesh_kit.testing import ServiceProcess

pytestmark = pytest.mark.conformance

LOCAL, BOB, EVE = "user@mlmesh.local", "bob@x.org", "eve@x.org"
SERVICES = ["kubeflow.kfam.v1.AccessManagementService", "mlmesh.profile.v1.ProfileService"]
_TYPE = "type.googleapis.com/envoy.extensions."


@dataclass(frozen=True)
class Ingress:
    transcoding: str
    guarded: str


def _listener(port: int, filters: list[dict[str, Any]], route: dict[str, Any]) -> dict[str, Any]:
    router = {"@type": f"{_TYPE}filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": f"p{port}",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [*filters, {"name": "router", "typed_config": router}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, "filter_chains": [chain]}


def _bootstrap(service_port: int, transcoding_port: int, guarded_port: int) -> dict[str, Any]:
    transcoder = {
        "@type": f"{_TYPE}filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(Path(mlmesh_protos.__file__).with_name("descriptor_set.pb")),
        "services": SERVICES,
        "convert_grpc_status": True,
        "print_options": {"preserve_proto_field_names": True},
        "request_validation_options": {"reject_unknown_method": True, "reject_unknown_query_parameters": True},
    }
    authorizer = {
        "@type": f"{_TYPE}filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "profile"}, "timeout": "2s"},
    }
    http2 = {
        "@type": f"{_TYPE}upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": service_port}}
    cluster = {
        "name": "profile",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {
            "cluster_name": "profile",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    to_service = {"match": {"prefix": "/"}, "route": {"cluster": "profile", "timeout": "10s"}}
    passed = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "passed"}}}
    listeners = [
        _listener(transcoding_port, [{"name": "transcoder", "typed_config": transcoder}], to_service),
        _listener(guarded_port, [{"name": "authorizer", "typed_config": authorizer}], passed),
    ]
    return {"static_resources": {"listeners": listeners, "clusters": [cluster]}}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"Envoy did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def ingress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    folder = tmp_path_factory.mktemp("kfam")
    with ServiceProcess("mlmesh_profile", "MLMESH_PROFILE_", folder) as service:
        first, second = _free_port(), _free_port()
        config, log = folder / "envoy.yaml", folder / "envoy.log"
        config.write_text(yaml.safe_dump(_bootstrap(int(service.grpc.rsplit(":", 1)[1]), first, second)))
        command = [str(Path(sys.executable).with_name("envoy")), "-c", str(config), "--disable-hot-restart"]
        with log.open("wb") as output:
            process = subprocess.Popen([*command, "--concurrency", "1"], stdout=output, stderr=output)
        try:
            _wait_for(second, process, log)
            yield Ingress(f"http://127.0.0.1:{first}", f"http://127.0.0.1:{second}")
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def http(ingress: Ingress) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=ingress.transcoding, timeout=10) as client:
        yield client


def _binding(user: str, namespace: str, role: str = "edit") -> dict[str, Any]:
    """What the dashboard's KFAM client sends."""
    return {
        "user": {"kind": "User", "name": user},
        "referredNamespace": namespace,
        "RoleRef": {"kind": "ClusterRole", "name": role},
    }


def _delete(http: httpx.Client, path: str, body: Any) -> httpx.Response:
    return http.request("DELETE", path, content=json.dumps(body), headers={"content-type": "application/json"})


def test_the_dashboard_s_first_visit(http: httpx.Client) -> None:
    """What GET /api/workgroup/exists and env-info ask of KFAM."""
    assert http.get("/kfam/").text == "Hello World!"
    admin = http.get("/kfam/v1/role/clusteradmin", params={"user": LOCAL})
    assert admin.json() is False
    bindings = http.get("/kfam/v1/bindings", params={"user": LOCAL})
    assert bindings.json() == {"bindings": [_binding(LOCAL, "default", "admin")]}
    assert "mlmesh_rpc_total" in http.get("/kfam/metrics").text


def test_the_dashboard_makes_shares_and_deletes_a_profile(http: httpx.Client) -> None:
    body = {"metadata": {"name": "team"}, "spec": {"owner": {"kind": "User", "name": LOCAL}}}
    assert http.post("/kfam/v1/profiles", json=body).status_code == 200
    assert http.post("/kfam/v1/profiles", json=body).status_code == 409
    assert http.post("/kfam/v1/bindings", json=_binding(BOB, "team")).status_code == 200
    listed = http.get("/kfam/v1/bindings", params={"namespace": "team"}).json()["bindings"]
    assert listed == [_binding(LOCAL, "team", "admin"), _binding(BOB, "team")]
    as_bob = {"kubeflow-userid": BOB}
    assert http.get("/kfam/v1/bindings", params={"user": BOB}, headers=as_bob).json()["bindings"] == [listed[1]]
    assert http.post("/kfam/v1/bindings", json=_binding(EVE, "team"), headers=as_bob).status_code == 403
    assert http.delete("/kfam/v1/profiles/team", headers=as_bob).status_code == 403
    lower = {key.replace("RoleRef", "roleRef"): value for key, value in _binding(BOB, "team").items()}
    assert _delete(http, "/kfam/v1/bindings", lower).status_code == 200
    assert _delete(http, "/kfam/v1/bindings", lower).status_code == 404
    assert http.delete("/kfam/v1/profiles/team").status_code == 200
    assert http.get("/kfam/v1/bindings", params={"namespace": "team"}).json() == {}


def test_kubectl_s_form_of_a_profile_is_taken_whole(http: httpx.Client) -> None:
    body = {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Profile",
        "metadata": {"name": "whole", "creationTimestamp": None, "labels": {"a": "b"}},
        "spec": {
            "owner": {"kind": "User", "name": LOCAL, "apiGroup": "rbac.authorization.k8s.io"},
            "plugins": [{"kind": "WorkloadIdentity", "spec": {"gcpServiceAccount": "x"}}],
            "resourceQuotaSpec": {"hard": {"cpu": "2"}},
        },
        "status": {},
    }
    assert http.post("/kfam/v1/profiles", json=body).status_code == 200
    assert http.get("/profile/v1/profiles/whole").json()["labels"] == {"a": "b"}


def test_a_yaml_file_makes_a_profile(http: httpx.Client) -> None:
    text = "apiVersion: kubeflow.org/v1\nkind: Profile\nmetadata:\n  name: from-file\n"
    headers = {"content-type": "application/yaml"}
    made = http.post("/profile/v1/profiles:import", content=text, headers=headers)
    assert (made.status_code, made.json()["name"]) == (200, "profiles/from-file")
    broken = http.post("/profile/v1/profiles:import", content="kind: [", headers=headers)
    assert (broken.status_code, broken.json()["code"]) == (400, 3)


def test_resources_in_google_s_style(http: httpx.Client) -> None:
    http.post("/profile/v1/profiles", params={"profile_id": "aip"}, json={}).raise_for_status()
    made = http.post("/profile/v1/profiles/aip/contributors", json={"user": BOB, "role": "ROLE_VIEW"}).json()
    assert made["name"] == f"profiles/aip/contributors/view-{BOB}"
    assert http.get("/profile/v1/profiles/aip/contributors").json()["contributors"] == [made]
    assert http.delete(f"/profile/v1/{made['name']}").status_code == 200
    me = http.get("/profile/v1/users/me").json()
    assert me["default_namespace"] == "default"
    entries = http.get("/profile/v1/profiles/aip/auditEntries").json()["audit_entries"]
    assert [entry["action"] for entry in entries] == ["contributor.delete", "contributor.create", "profile.create"]


def test_errors_come_as_json_with_the_field(http: httpx.Client) -> None:
    refused = http.post("/kfam/v1/profiles", json={"metadata": {"name": "No_Label"}})
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/json"
    detail = refused.json()["details"][0]
    assert detail["field_violations"][0]["field"] == "metadata.name"
    assert http.post("/kfam/v1/profiles", content=b"{").status_code == 400
    assert http.post("/kfam/v1/profiles", json={"metadata": 7}).status_code == 400
    assert http.get("/kfam/v1/bindings", params={"nope": "1"}).status_code == 400


def test_foreign_and_missing_look_alike_over_rest(http: httpx.Client) -> None:
    as_eve = {"kubeflow-userid": EVE}
    foreign = http.get("/profile/v1/profiles/default", headers=as_eve)
    missing = http.get("/profile/v1/profiles/neverwas", headers=as_eve)
    assert foreign.status_code == missing.status_code == 403
    assert foreign.text.replace("default", "X") == missing.text.replace("neverwas", "X")


@pytest.mark.parametrize(
    ("user", "path", "status"),
    [
        (LOCAL, "/katib/v1/namespaces/default/experiments", 200),
        (LOCAL, "/apis/v2beta1/runs", 200),
        (EVE, "/katib/v1/namespaces/default/experiments", 403),
        (EVE, "/apis/v2beta1/runs?namespace=default", 403),
        ("", "/apis/v2beta1/runs", 401),
    ],
)
def test_ext_authz_lets_members_pass(ingress: Ingress, user: str, path: str, status: int) -> None:
    answer = httpx.get(ingress.guarded + path, headers={"kubeflow-userid": user} if user else {})
    assert answer.status_code == status
    if status == 200:
        assert answer.text == "passed"
    else:
        assert answer.json()["message"]
