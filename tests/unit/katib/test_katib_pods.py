"""What is sent to a cluster for a trial, and how its pods are found."""

import pytest
from mlmesh_katib.jobs.base import JobSpec
from mlmesh_katib.jobs.pods import build_resource, pod_labels, primary_container


def spec_of(kind: str, manifest: dict | None = None, **fields) -> JobSpec:
    return JobSpec(7, "blue", "tuning", "tuning-1", {"kind": kind, **(manifest or {})}, **fields)


def test_every_pod_template_is_marked_wherever_it_is():
    def template(**more) -> dict:
        return {"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}], **more}}

    manifest = {
        "apiVersion": "ray.io/v1",
        "metadata": {"generateName": "x-", "labels": {"mine": "1"}, "annotations": {"kept": "yes"}},
        "spec": {"head": {"template": template()}, "groups": [{"template": {**template(), "metadata": None}}]},
    }
    spec = spec_of("RayJob", manifest, labels={"team": "red"})
    made = build_resource(spec, "green")
    marks = {"katib.kubeflow.org/experiment": "tuning", "katib.kubeflow.org/trial": "tuning-1", "team": "red"}
    assert made["metadata"] == {
        "name": "tuning-1",
        "namespace": "green",
        "labels": {"mine": "1", **marks},
        "annotations": {"kept": "yes", "katib.mlmesh.dev/experiment-id": "7"},
    }
    for one in (made["spec"]["head"]["template"], made["spec"]["groups"][0]["template"]):
        assert one["metadata"]["labels"] == marks
        variables = {item["name"]: item["value"] for item in one["spec"]["containers"][0]["env"]}
        assert variables == {"X": "1", "KATIB_TRIAL_NAME": "tuning-1"}
    assert "labels" not in manifest["spec"]["head"]["template"].get("metadata", {})  # the trial's is left as it was


@pytest.mark.parametrize(
    "wrong", [{"metadata": []}, {"metadata": {"labels": "x"}}, {"spec": {"containers": [{"env": 3}]}}]
)
def test_what_is_wrong_in_a_template_is_left_to_the_cluster(wrong):
    template = {"spec": {"containers": [{"name": "a"}]}, **wrong}
    made = build_resource(spec_of("Job", {"apiVersion": "batch/v1", "spec": {"template": template}}), "blue")
    assert made["spec"]["template"]["spec"]["containers"]


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("Job", {"katib.kubeflow.org/trial": "tuning-1"}),
        ("PyTorchJob", {"katib.kubeflow.org/trial": "tuning-1", "training.kubeflow.org/job-role": "master"}),
        ("Workflow", {"workflows.argoproj.io/workflow": "tuning-1"}),
        ("PipelineRun", {"tekton.dev/pipelineRun": "tuning-1"}),
        (
            "TrainJob",
            {"jobset.sigs.k8s.io/jobset-name": "tuning-1", "jobset.sigs.k8s.io/replicatedjob-name": "node"},
        ),
        ("SparkApplication", {"sparkoperator.k8s.io/app-name": "tuning-1", "spark-role": "driver"}),
    ],
)
def test_pods_are_found_by_the_kind(kind, labels):
    assert pod_labels(spec_of(kind)) == labels


def test_primary_pod_labels_stand_in_for_those_of_the_kind():
    spec = spec_of("TFJob", primary_pod_labels={"training.kubeflow.org/replica-type": "worker"})
    assert pod_labels(spec) == {
        "katib.kubeflow.org/trial": "tuning-1",
        "training.kubeflow.org/replica-type": "worker",
    }


def test_a_pod_without_the_primary_container_does_not_count():
    pod = {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}
    assert [primary_container(pod, name) for name in ("", "b", "c")] == ["a", "b", None]
    assert primary_container({}, "") is None
