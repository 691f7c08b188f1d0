"""The profile service behind the mesh's own ingress."""

from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from mlmesh_protos.mlmesh.profile.v1 import access_pb2, access_pb2_grpc, profile_pb2, profile_pb2_grpc

LOCAL, EVE = "user@mlmesh.local", "eve@x.org"


@pytest.fixture
def http(mesh: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=mesh.ingress, timeout=20) as client:
        yield client


def test_kfam_through_the_ingress(http: httpx.Client) -> None:
    owner = {"kind": "User", "name": LOCAL}
    binding = {
        "user": {"kind": "User", "name": "bob@x.org"},
        "referredNamespace": "behind-the-ingress",
        "RoleRef": {"kind": "ClusterRole", "name": "edit"},
    }
    body = {"metadata": {"name": "behind-the-ingress"}, "spec": {"owner": owner}}
    assert http.get("/kfam/").text == "Hello World!"
    assert http.get("/kfam/v1/role/clusteradmin", params={"user": LOCAL}).json() is False
    assert http.post("/kfam/v1/profiles", json=body).status_code == 200
    assert http.post("/kfam/v1/profiles", json=body).status_code == 409
    assert http.post("/kfam/v1/bindings", json=binding).status_code == 200
    listed = http.get("/kfam/v1/bindings", params={"namespace": "behind-the-ingress"}).json()["bindings"]
    assert [(one["user"]["name"], one["RoleRef"]["name"]) for one in listed] == [
        (LOCAL, "admin"),
        ("bob@x.org", "edit"),
    ]
    assert http.request("DELETE", "/kfam/v1/bindings", json=binding).status_code == 200
    assert http.delete("/kfam/v1/profiles/behind-the-ingress").status_code == 200
    assert http.get("/kfam/v1/bindings", params={"namespace": "behind-the-ingress"}).json() == {}


def test_the_dashboard_s_calls_through_the_ingress(http: httpx.Client) -> None:
    env = http.get("/api/workgroup/env-info").json()
    assert {"namespace": "default", "role": "owner", "user": LOCAL} in env["namespaces"]


def test_a_yaml_file_through_the_ingress(http: httpx.Client) -> None:
    text = "apiVersion: kubeflow.org/v1\nkind: Profile\nmetadata: {name: from-a-file}\n"
    made = http.post("/profile/v1/profiles:import", content=text, headers={"content-type": "application/yaml"})
    assert (made.status_code, made.json()["name"]) == (200, "profiles/from-a-file")
    assert http.delete("/profile/v1/profiles/from-a-file").status_code == 200


def test_errors_keep_their_fields_through_the_ingress(http: httpx.Client) -> None:
    refused = http.post("/kfam/v1/profiles", json={"metadata": {"name": "Not_A_Label"}})
    assert refused.status_code == 400
    assert refused.json()["details"][0]["field_violations"][0]["field"] == "metadata.name"


@pytest.mark.parametrize("name", ["kubeflow-userid", "Kubeflow-UserID", "KUBEFLOW-USERID"])
def test_a_forged_user_is_not_believed(http: httpx.Client, mesh: Any, name: str) -> None:
    me = http.get("/profile/v1/users/me", headers={name: EVE}).json()
    assert me["name"] == f"users/{LOCAL}"
    with grpc.insecure_channel(mesh.grpc) as channel:
        stub: Any = profile_pb2_grpc.ProfileServiceStub(channel)
        metadata = ((name.lower(), EVE), (name.lower(), "ada@x.org"))
        answer = stub.GetUser(profile_pb2.GetUserRequest(name="users/me"), metadata=metadata, timeout=20)
    assert answer.name == f"users/{LOCAL}"


def test_questions_about_others_are_not_answered_through_the_ingress(mesh: Any) -> None:
    check = external_auth_pb2.CheckRequest()
    check.attributes.request.http.headers["kubeflow-userid"] = EVE
    check.attributes.request.http.path = "/katib/v1/namespaces/default/experiments"
    with grpc.insecure_channel(mesh.grpc) as channel:
        access: Any = access_pb2_grpc.AccessServiceStub(channel)
        authorization: Any = external_auth_pb2_grpc.AuthorizationStub(channel)
        review = access_pb2.ReviewAccessRequest(user=EVE, verb="get", resource="runs", namespace="default")
        for call, request in ((access.ReviewAccess, review), (authorization.Check, check)):
            with pytest.raises(grpc.RpcError) as caught:
                call(request, timeout=20)
            assert caught.value.code() in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}
