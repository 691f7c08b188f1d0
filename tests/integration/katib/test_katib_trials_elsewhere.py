"""Whole experiments whose trials run on a cluster, or as runs of pipelines: through the service's own door."""

import json
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml
from integration.katib.client import Client, assignments, held, manifest, wait_until
from mlmesh_kit.testing import ServiceProcess
from support.trial_cluster import TrialCluster

warnings.simplefilter("ignore", FutureWarning)


class Controller:
    """Lets every Job of a cluster run at once: its pod prints the square of its last argument."""

    def __init__(self, cluster: TrialCluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self._seen: set[str] = set()
        self.holds = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Controller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            for name, job in self._cluster.objects("Job").items():
                if name in self._seen or self.holds.is_set():
                    continue
                self._seen.add(name)
                x = float(job["spec"]["template"]["spec"]["containers"][0]["command"][-1])
                self._cluster.run_pod(f"{name}-pod", job, f"loss = {(x - 3) ** 2}\n", ends=True)
                self._cluster.end("Job", name, "Complete" if x < 4.5 else "Failed")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[TrialCluster]:
    with TrialCluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def katib(cluster: TrialCluster, tmp_path: Path) -> ServiceProcess:
    settings = {
        "BACKEND": "kubernetes",
        "KUBERNETES_KUBECONFIG": str(cluster.kubeconfig),
        "LEASE_SECONDS": "2",
        "PRELOAD": "",
    }
    return ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", tmp_path / "katib", settings)


def test_an_experiment_on_a_cluster_survives_the_service(katib, cluster):
    made = manifest("on-cluster", maxTrialCount=4, parallelTrialCount=2, maxFailedTrialCount=4)
    with Controller(cluster) as controller, katib:
        client = Client(katib)
        controller.holds.set()
        client.create(made)
        wait_until(lambda: len(cluster.objects("Job")) == 2 or None)
        katib.kill()
        before = cluster.objects("Job")
        controller.holds.clear()  # they run and end while the service is away
        wait_until(lambda: all(job.get("status") for job in cluster.objects("Job").values()) or None)
        katib.start()
        client = Client(katib)
        found = client.wait("on-cluster")
        trials = client.trials("on-cluster")
        assert "Succeeded" in held(found.status.conditions)
        assert len(trials) == 4
        assert {trial.name.rsplit("/", 1)[1] for trial in trials} >= set(before)
        for trial in trials:
            x = float(assignments(trial)["x"])
            if x < 4.5:
                assert float(trial.observation.metrics[0].latest) == (x - 3) ** 2
        wait_until(lambda: not cluster.objects("Job") or None)  # not retained


def from_config_map(name: str, **reference: str) -> dict:
    made = manifest(name, maxTrialCount=2, parallelTrialCount=2, maxFailedTrialCount=2)
    template = made["spec"]["trialTemplate"]
    del template["trialSpec"]
    template["configMap"] = {"configMapName": "templates", "templatePath": "job.yaml", **reference}
    return made


def test_the_template_lies_in_a_config_map(katib, cluster):
    job = manifest("x")["spec"]["trialTemplate"]["trialSpec"]
    cluster.put_config_map("templates", {"job.yaml": yaml.safe_dump(job), "bad.yaml": "a: 2026-01-01"})
    cluster.put_config_map("templates", {"job.yaml": "secret"}, "others")
    cluster.put_config_map("trial-templates", {"shared": yaml.safe_dump(job)}, "kubeflow")
    with Controller(cluster), katib:
        client = Client(katib)
        client.create(from_config_map("own"))
        shared = {"configMapName": "trial-templates", "configMapNamespace": "kubeflow", "templatePath": "shared"}
        client.create(from_config_map("shared", **shared))
        assert client.wait("own").status.trials == client.wait("shared").status.trials == 2
        kept = client.get("own").manifest["spec"]["trialTemplate"]
        assert kept["trialSpec"]["kind"] == "Job" and "configMap" not in kept
        for reference, code, words in (
            ({"configMapNamespace": "others"}, "FAILED_PRECONDITION", "not of 'others'"),
            ({"configMapName": "none"}, "FAILED_PRECONDITION", "there is no ConfigMap default/none"),
            ({"templatePath": "none"}, "FAILED_PRECONDITION", "has no 'none'"),
            ({"templatePath": "bad.yaml"}, "INVALID_ARGUMENT", "JSON"),
            ({"templatePath": ""}, "INVALID_ARGUMENT", "templatePath"),
        ):
            with pytest.raises(grpc.RpcError, match=words) as caught:
                client.create(from_config_map("refused", **reference))
            assert caught.value.code().name == code and "secret" not in caught.value.details()


def test_an_experiment_tunes_a_pipeline(pipeline: ServiceProcess, tmp_path: Path):
    from kfp import compiler, dsl

    @dsl.component
    def train(x: float, numbers: dsl.Output[dsl.Metrics]) -> None:
        numbers.log_metric("loss", (x - 3) ** 2)

    @dsl.pipeline(name="tuned")
    def tuned(x: float) -> None:
        train(x=x)

    path = tmp_path / "tuned.yaml"
    compiler.Compiler().compile(tuned, str(path))
    run = {
        "pipelineSpec": yaml.safe_load(path.read_text()),
        "runtimeConfig": {"parameters": {"x": "${trialParameters.x}"}},
    }
    made = manifest("on-pipelines", maxTrialCount=2)
    made["spec"]["trialTemplate"]["trialSpec"] = {"apiVersion": "mlmesh.dev/v1", "kind": "PipelineRun", "spec": run}
    settings = {"PRELOAD": "", "PIPELINE_ADDRESS": pipeline.grpc}
    with ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", tmp_path / "katib", settings) as katib:
        client = Client(katib)
        client.create(json.loads(json.dumps(made)))
        found = client.wait("on-pipelines")
        trials = client.trials("on-pipelines")
        assert "Succeeded" in held(found.status.conditions), trials
        for trial in trials:
            x = float(assignments(trial)["x"])
            assert float(trial.observation.metrics[0].latest) == pytest.approx((x - 3) ** 2)


def test_an_experiment_that_needs_a_cluster_loads_without_one_and_its_trials_say_so(client: Client):
    made = manifest("no-cluster", maxTrialCount=2, maxFailedTrialCount=0)
    template = made["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]
    replicas = {"Master": {"replicas": 1, "template": template}}
    made["spec"]["trialTemplate"]["trialSpec"] = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "spec": {"pytorchReplicaSpecs": replicas},
    }
    client.create(made)
    found = client.wait("no-cluster")
    assert "Failed" in held(found.status.conditions)
    messages = [condition.message for trial in client.trials("no-cluster") for condition in trial.conditions]
    assert any("no cluster is configured" in message for message in messages), messages
