"""`mlmesh deploy`, `models`, `traffic`, `promote`, `rollback`: against the control plane of a serving router."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from mlmesh.cli.app import app
from mlmesh.cli.traffic_options import TrafficError, read_rule, read_shadow, read_targets
from mlmesh_kit.errors import InvalidArgument
from support.serving_ingress import ServingIngress
from typer.testing import CliRunner


@pytest.fixture
def ingress(tmp_path: Path) -> Iterator[ServingIngress]:
    with ServingIngress(tmp_path) as made:
        yield made


class Terminal:
    """Calls commands against an ingress."""

    def __init__(self, ingress: ServingIngress, folder: Path) -> None:
        self.ingress = ingress
        self.folder = folder

    def __call__(self, *arguments: str) -> Result:
        done = CliRunner().invoke(app, [*arguments, "--ingress", self.ingress.url])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def well(self, *arguments: str) -> str:
        """Calls a command that has to succeed; gives its output."""
        done = self(*arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    def manifest(self, number: int, **predictor: Any) -> str:
        """Writes the n-th manifest of iris."""
        model = {"modelFormat": {"name": "sklearn"}, "storageUri": f"file:///m/{number}"}
        path = self.folder / "iris.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "serving.kserve.io/v1beta1",
                    "kind": "InferenceService",
                    "metadata": {"name": "iris"},
                    "spec": {"predictor": {"model": model, **predictor}},
                }
            )
        )
        return str(path)

    def deployed(self, revisions: int) -> "Terminal":
        """Deploys so many revisions, one after the other."""
        for number in range(1, revisions + 1):
            self.well("deploy", self.manifest(number))
        return self

    def shares(self, **headers: str) -> Any:
        """Asks the model; gives how many percent which revision answered."""
        return self.ingress.run(self.ingress.world.shares("iris", **headers))


@pytest.fixture
def mlmesh(ingress: ServingIngress, tmp_path: Path) -> Terminal:
    return Terminal(ingress, tmp_path)


def test_a_canary_is_deployed_promoted_and_taken_back(mlmesh: Terminal) -> None:
    mlmesh.deployed(1)
    said = mlmesh.well("deploy", mlmesh.manifest(2), "--canary", "20")
    assert "iris-00002 gets 20% of the requests" in said and "mlmesh promote iris" in said
    assert "revision 2  (1: 80%, 2: 20%)" in said
    assert mlmesh.shares() == {1: 80, 2: 20}
    assert "100%  iris-00002" in mlmesh.well("promote", "iris")
    assert mlmesh.shares() == {2: 100}
    assert "100%  iris-00001" in mlmesh.well("rollback", "iris")
    assert mlmesh.shares() == {1: 100}
    said = mlmesh.well("deploy", mlmesh.manifest(2))
    assert "spread by hand" in said and "mlmesh traffic iris --by-manifest" in said
    assert "100%  iris-00002" in mlmesh.well("rollback", "iris", "2")


def test_models_are_listed_and_shown(mlmesh: Terminal) -> None:
    assert "mlmesh deploy FILE" in mlmesh.well("models")
    mlmesh.deployed(2)
    mlmesh.well("traffic", "iris", "1=30", "2=70", "--tag", "old=1")
    row = next(line for line in mlmesh.well("models").splitlines() if line.startswith("iris"))
    assert row.split() == ["iris", "True", "2", "1:", "30%,", "2:", "70%", "/v2/models/iris"]
    assert mlmesh.well("deploy") == mlmesh.well("models")
    shown = mlmesh.well("models", "iris")
    assert "set by hand" in shown and "30%  iris-00001  tag old" in shown
    line = next(line for line in shown.splitlines() if line.startswith("iris-00002"))
    assert line.split()[:3] == ["iris-00002", "ready", "70%"]
    found = json.loads(mlmesh.well("models", "iris", "--json"))
    assert [revision["status"]["revision_name"] for revision in found["revisions"]] == ["iris-00002", "iris-00001"]
    assert [one["status"]["model_name"] for one in json.loads(mlmesh.well("models", "--json"))] == ["iris"]


def test_traffic_is_changed_part_by_part(mlmesh: Terminal) -> None:
    mlmesh.deployed(3)
    mlmesh.well("traffic", "iris", "1=50", "iris-00002=50%")
    mlmesh.well("traffic", "iris", "--header", "X-User=ada:latest", "--header", "x-user~=te.t-\\d+:1")
    assert mlmesh.shares() == {1: 50, 2: 50}
    assert mlmesh.shares(x_user="ada") == {3: 100} and mlmesh.shares(x_user="test-7") == {1: 100}
    said = mlmesh.well("traffic", "iris", "--sticky", "caller", "--shadow", "3=10")
    assert "header x-user=ada → latest" in said and "sticky by kubeflow-userid" in said
    assert "copies of 10% to iris-00003" in said
    told = json.loads(mlmesh.well("traffic", "iris", "--json"))["status"]["traffic"]
    assert len(told["targets"]) == 2 and len(told["rules"]) == 2
    said = mlmesh.well("traffic", "iris", "--no-header", "--no-sticky", "--no-shadow", "--by-manifest")
    assert said.splitlines() == ["iris  by the manifest", "  100%  iris-00003  tag latest"]
    before = len(mlmesh.ingress.asked)
    mlmesh.well("traffic", "iris")
    assert [method for method, _, _ in mlmesh.ingress.asked[before:]] == ["GET"], "to show it changes nothing"


def test_what_is_refused_says_what_to_do_next(mlmesh: Terminal) -> None:
    mlmesh.deployed(1)
    mlmesh.ingress.world.repository.broken[2] = InvalidArgument("no model there")
    done = mlmesh("deploy", mlmesh.manifest(2), "--canary", "10")
    assert done.exit_code == 1 and "could not be loaded: no model there" in done.stderr
    assert "revision 1 goes on answering" in done.stderr
    for arguments, code, said in [
        (("promote", "iris"), 1, "could not be loaded: no model there"),
        (("promote", "iris"), 1, "nothing has changed; see how it is with: mlmesh models iris"),
        (("rollback", "iris", "7"), 1, "revision 'iris-00007' not found; see which there are with: mlmesh models iris"),
        (("traffic", "lily", "1=100"), 1, "see which models there are with: mlmesh models"),
        (("promote", "lily", "-n", "other"), 1, "with: mlmesh models -n other"),
        (("traffic", "iris", "1=90"), 2, "percentages add up to 90"),
        (("traffic", "iris", "1"), 2, "expected REV=PERCENT"),
        (("traffic", "iris", "--tag", "a=1"), 2, "tags go with the shares"),
        (("traffic", "iris", "--header", "x"), 2, "expected HEADER=VALUE:REV"),
        (("traffic", "iris", "--header", "x~=(:1"), 1, "rules[0].regex: is no pattern of RE2's"),
        (("traffic", "iris", "--header", "x=a:1", "--no-header"), 2, "give one of --header, --no-header"),
        (("traffic", "iris", "1=100", "--by-manifest"), 2, "--by-manifest goes without shares"),
        (("models", "--render", "knative"), 2, "name the model to render"),
        (("deploy", "--canary", "10"), 2, "--canary goes with a FILE"),
    ]:
        done = mlmesh(*arguments)
        assert (done.exit_code, said in done.stderr) == (code, True), (arguments, done.output)
    done = mlmesh("promote", "iris", "--json")
    assert "no model there" in json.loads(done.stdout)["error"]
    assert mlmesh.shares() == {1: 100}


def test_a_model_of_another_namespace_is_named_as_clients_name_it(mlmesh: Terminal) -> None:
    mlmesh.well("deploy", mlmesh.manifest(1), "-n", "team")
    assert "100%  iris-00001" in mlmesh.well("traffic", "team.iris") == mlmesh.well("traffic", "iris", "-n", "team")


def test_shares_and_rules_are_read_as_they_are_written() -> None:
    assert read_targets(["2=90", "latest=10%"], ["blue=2", "old=1"]) == [
        {"revision_name": "2", "percent": 90, "tag": "blue"},
        {"latest_revision": True, "percent": 10},
        {"revision_name": "1", "percent": 0, "tag": "old"},
    ]
    assert read_rule("X-A=b=c:d:2") == {"header": "x-a", "exact": "b=c:d", "revision": "2"}
    assert read_rule("x^=a~=b:2") == {"header": "x", "prefix": "a~=b", "revision": "2"}
    assert read_rule("x~=a|b:latest") == {"header": "x", "regex": "a|b", "revision": "latest"}
    assert (read_shadow("3"), read_shadow("3=5")) == (
        {"revision": "3", "percent": 100},
        {"revision": "3", "percent": 5},
    )
    for shares, tags in (
        (["=100"], []),
        (["1=x"], []),
        (["1=50", "1=50"], []),
        (["1=100"], ["a"]),
        (["1=100"], ["a=1", "b=1"]),
    ):
        with pytest.raises(TrafficError):
            read_targets(shares, tags)
    for text in ("=10", "3=", "3=x"):
        with pytest.raises(TrafficError):
            read_shadow(text)
