"""What is rendered from deploy/mesh.yaml: committed, fresh, and what the description says."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from mlmesh.cli.app import app
from mlmesh.description import DescriptionError, load
from typer.testing import CliRunner

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"


def render(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["render", *arguments])


def documents(folder: Path) -> list[Any]:
    return [d for path in sorted(folder.glob("*.yaml")) for d in yaml.safe_load_all(path.read_text()) if d]


def test_what_is_committed_is_fresh() -> None:
    done = render("--check")
    assert done.exit_code == 0, done.output


def test_a_changed_description_is_noticed(tmp_path: Path) -> None:
    changed = tmp_path / "mesh.yaml"
    changed.write_text((DEPLOY / "mesh.yaml").read_text().replace("max_header_kib: 32", "max_header_kib: 33"))
    done = render("--check", "--description", str(changed))
    assert done.exit_code == 1 and "ingress.yaml" in done.output.replace("\n", ""), done.output


def test_what_is_missing_or_too_much_is_noticed_and_mended(tmp_path: Path) -> None:
    def stale() -> int:
        return render("--check", "--output", str(tmp_path)).exit_code

    assert stale() == 1
    assert render("--output", str(tmp_path)).exit_code == 0
    assert stale() == 0
    (tmp_path / "istio" / "left-over.yaml").write_text("kind: Gateway")
    assert stale() == 1
    assert render("--output", str(tmp_path)).exit_code == 0
    assert stale() == 0 and not (tmp_path / "istio" / "left-over.yaml").exists()


def test_only_the_callers_named_may_call_a_service() -> None:
    policies = {d["metadata"]["name"]: d["spec"] for d in documents(DEPLOY / "istio") if "Authorization" in d["kind"]}
    assert policies["deny-all"] == {}
    for name, service in load().services.items():
        labels = policies[name]["selector"]["matchLabels"].values()
        accounts = policies[name]["rules"][0]["from"][0]["source"]["principals"]
        callers = {account.rsplit("/", 1)[1] for account in accounts if "/ns/mlmesh/" in account}
        assert set(labels) == {name} and callers == set(service.callers) - {"ingress"}


def test_every_route_reaches_a_service_that_there_is() -> None:
    knative = {d["metadata"]["name"] for d in documents(DEPLOY / "knative") if d["kind"] == "Service"}
    (routes,) = (d["spec"]["http"] for d in documents(DEPLOY / "istio") if d["kind"] == "VirtualService")
    reached = {route["rewrite"]["authority"].split(".")[0] for route in routes}
    assert reached == knative
    for route in routes:  # who is calling is never taken from outside
        assert route["headers"]["request"]["remove"] == [load().identity.header]


def test_every_service_has_its_kubernetes_objects() -> None:
    knative = {d["metadata"]["name"]: d for d in documents(DEPLOY / "knative") if d["kind"] == "Service"}
    mesh = load()
    for name, service in mesh.services.items():
        assert any(name in found for found in knative), (name, sorted(knative))
        assert service.grpc
    for found in knative.values():
        assert found["apiVersion"] == "serving.knative.dev/v1"
    kinds = {d["kind"] for d in documents(DEPLOY / "istio")}
    assert {"Gateway", "VirtualService", "DestinationRule", "PeerAuthentication", "AuthorizationPolicy"} <= kinds


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("port: 8080", "port: eighty", "ingress.port"),
        ("port: 8080", "port: 70000", "ingress.port"),
        ("deadline_seconds: 60", "deadline_second: 60", "deadline_second"),
        ("version: 1", "version: 2", "version"),
        ("services:", "services: []\nold:", "services"),
        ("services:", "services: &x [*x]\nold:", ""),
        ("version: 1", "version: 1\n\t: :", "line"),
    ],
)
def test_a_wrong_description_is_refused_with_its_place(tmp_path: Path, before: str, after: str, said: str) -> None:
    text = (DEPLOY / "mesh.yaml").read_text()
    assert before in text
    wrong = tmp_path / "mesh.yaml"
    wrong.write_text(text.replace(before, after, 1))
    with pytest.raises(DescriptionError) as caught:
        load(wrong)
    assert said in str(caught.value)
