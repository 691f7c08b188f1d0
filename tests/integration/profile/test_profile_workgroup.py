"""/api/workgroup, as the front end of Kubeflow's dashboard calls it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_kit.names import check_name
from mlmesh_kit.testing import ServiceProcess
from mlmesh_profile.profile import own_profile_names

ADA, EVE = "ada@x.org", "eve@x.org"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    settings = {"ADMINISTRATORS": ADA, "FRESHNESS_SECONDS": "0"}
    with ServiceProcess("mlmesh_profile", "MLMESH_PROFILE_", tmp_path_factory.mktemp("wg"), settings) as running:
        yield running


def _as(service: ServiceProcess, user: str) -> httpx.Client:
    return httpx.Client(base_url=f"{service.http}/api/workgroup", headers={"kubeflow-userid": user}, timeout=10)


def _delete(http: httpx.Client, path: str, body: Any) -> httpx.Response:
    return http.request("DELETE", path, json=body)


def test_a_newcomer_registers_shares_and_leaves(service: ServiceProcess) -> None:
    with _as(service, "Bea.Smith@x.org") as bea, _as(service, "bob@x.org") as bob:
        assert bea.get("exists").json() == {
            "user": "Bea.Smith",
            "hasAuth": True,
            "hasWorkgroup": False,
            "registrationFlowAllowed": True,
        }
        assert bea.post("create", json={}).json() == {"message": "Created namespace bea-smith"}
        assert bea.post("create", json={}).status_code == 409
        assert bea.get("exists").json()["hasWorkgroup"] is True
        assert bea.post("add-contributor/bea-smith", json={"contributor": "bob@x.org"}).json() == ["bob@x.org"]
        assert bea.get("get-contributors/bea-smith").json() == ["bob@x.org"]
        env = bob.get("env-info").json()
        assert env["namespaces"] == [{"namespace": "bea-smith", "role": "contributor", "user": "bob@x.org"}]
        assert (env["user"], env["isClusterAdmin"]) == ("bob@x.org", False)
        assert bob.get("exists").json()["hasWorkgroup"] is False
        assert bob.post("add-contributor/bea-smith", json={"contributor": EVE}).status_code == 403
        assert _delete(bea, "remove-contributor/bea-smith", {"contributor": "bob@x.org"}).json() == []
        assert bob.get("env-info").json()["namespaces"] == []
        assert bea.delete("nuke-self").json() == {"message": "Removed namespace/profile bea-smith"}
        assert bea.delete("nuke-self").status_code == 404


def test_namesakes_get_names_of_their_own(service: ServiceProcess) -> None:
    with _as(service, "kim@x.org") as first, _as(service, "kim@y.org") as second:
        assert first.post("create", json={}).json()["message"] == "Created namespace kim"
        name = second.post("create", json={}).json()["message"].removeprefix("Created namespace ")
        assert name.startswith("kim-")
        assert name == own_profile_names("kim@y.org")[1]
        assert second.delete("nuke-self").json()["message"].endswith(name)
        assert [row["namespace"] for row in first.get("env-info").json()["namespaces"]] == ["kim"]


def test_all_namespaces_are_an_administrator_s(service: ServiceProcess) -> None:
    with _as(service, "lou@x.org") as lou, _as(service, ADA) as ada, _as(service, EVE) as eve:
        lou.post("create", json={"namespace": "lous"}).raise_for_status()
        lou.post("add-contributor/lous", json={"contributor": "m@x.org"}).raise_for_status()
        assert ["lous", "lou@x.org", "m@x.org"] in ada.get("get-all-namespaces").json()
        assert lou.get("get-all-namespaces").json() == [["lous", "lou@x.org", "m@x.org"]]
        assert eve.get("get-all-namespaces").json() == []
        assert ada.get("env-info").json()["isClusterAdmin"] is True
        foreign, missing = eve.get("get-contributors/lous"), eve.get("get-contributors/neverwas")
        assert foreign.status_code == missing.status_code == 403
        assert foreign.text.replace("lous", "X") == missing.text.replace("neverwas", "X")


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "create", b"{", 400),
        ("POST", "create", b"[]", 400),
        ("POST", "create", b"[" * 10_000, 400),
        ("POST", "create", b'{"namespace": "' + b"x" * 20_000 + b'"}', 400),
        ("POST", "create", b'{"namespace": "../x"}', 400),
        ("POST", "create", b'{"namespace": 7}', 400),
        ("POST", "create", b'{"user": "other@x.org"}', 400),
        ("POST", "create", b'{"namespace": "others", "user": "other@x.org"}', 403),
        ("POST", "add-contributor/default", b"{}", 400),
        ("POST", "add-contributor/default", b'{"contributor": "a b"}', 400),
        ("POST", "add-contributor/..%2f..%2fetc", b'{"contributor": "a@b"}', 404),
        ("DELETE", "remove-contributor/default", b'{"contributor": "nobody@x.org"}', 404),
    ],
)
def test_bad_input_is_refused(service: ServiceProcess, method: str, path: str, content: bytes, status: int) -> None:
    with _as(service, "user@mlmesh.local") as local:
        answer = local.request(method, path, content=content)
        assert answer.status_code == status
        assert answer.json()["error"]
        assert "Traceback" not in answer.text


def test_profiles_made_at_the_first_login(tmp_path: Path) -> None:
    settings = {"AUTOMATIC_PROFILES": "true", "REGISTRATION": "false", "FRESHNESS_SECONDS": "0"}
    with ServiceProcess("mlmesh_profile", "MLMESH_PROFILE_", tmp_path, settings) as service:

        def log_in(_: int) -> list[str]:
            with _as(service, "neo@x.org") as neo:
                return [row["namespace"] for row in neo.get("env-info").json()["namespaces"]]

        with ThreadPoolExecutor(6) as pool:  # six tabs at once
            assert list(pool.map(log_in, range(6))) == [["neo"]] * 6
        with _as(service, "neo@x.org") as neo:
            assert neo.get("exists").json()["registrationFlowAllowed"] is False
            assert neo.post("create", json={"namespace": "another"}).status_code == 403
            assert neo.post("create", json={}).status_code == 403


@given(st.text(max_size=300))
def test_every_user_has_names_that_are_labels(user: str) -> None:
    for name in own_profile_names(user):
        check_name(name)
