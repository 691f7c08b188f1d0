"""The pods of a trial: marked as Katib marks them, and found by Katib's rules."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from mlmesh_katib.jobs.base import JobSpec

EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
TRIAL_LABEL = "katib.kubeflow.org/trial"
TRIAL_VARIABLE = "KATIB_TRIAL_NAME"
"""By which Katib's `report_metrics` knows the trial."""
OWNER = "katib.mlmesh.dev/experiment-id"
"""Annotation: an experiment may be made again under a name that has been used."""
_TRAINING_MASTER = {"training.kubeflow.org/job-role": "master"}
PRIMARY_POD_LABELS: Mapping[str, Mapping[str, str]] = {
    "TFJob": _TRAINING_MASTER,
    "PyTorchJob": _TRAINING_MASTER,
    "XGBoostJob": _TRAINING_MASTER,
    "MPIJob": _TRAINING_MASTER,
    "MXJob": _TRAINING_MASTER,
    "PaddleJob": _TRAINING_MASTER,
    "TrainJob": {"jobset.sigs.k8s.io/replicatedjob-name": "node"},
    "SparkApplication": {"spark-role": "driver"},
}
"""Which pod counts, by kind, where the template does not say: as Katib has it, and for Spark the driver."""
_NAME_LABELS = {
    "PipelineRun": "tekton.dev/pipelineRun",
    "SparkApplication": "sparkoperator.k8s.io/app-name",
    "TrainJob": "jobset.sigs.k8s.io/jobset-name",
    "Workflow": "workflows.argoproj.io/workflow",
}
"""Label with the resource's name that the controllers of kinds without pod templates give their pods."""


def build_resource(spec: JobSpec, namespace: str) -> dict[str, Any]:
    """Makes what is sent to the cluster: the trial's manifest, named and marked.

    Args:
        spec: The trial.
        namespace: Kubernetes', where it goes.
    """
    resource: dict[str, Any] = copy.deepcopy(dict(spec.manifest))
    labels = {**(spec.labels or {}), EXPERIMENT_LABEL: spec.experiment, TRIAL_LABEL: spec.trial}
    metadata = resource.setdefault("metadata", {})
    metadata.pop("generateName", None)
    metadata["name"] = spec.trial
    metadata["namespace"] = namespace
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), OWNER: str(spec.experiment_id)}
    for template in _pod_templates(resource):
        own = template["metadata"] = template.get("metadata") or {}
        if isinstance(own, dict) and isinstance(own.get("labels") or {}, dict):  # what is wrong, the cluster says
            own["labels"] = {**(own.get("labels") or {}), **labels}
        for container in template["spec"]["containers"]:
            if isinstance(container.get("env") or [], list):
                container["env"] = [*(container.get("env") or []), {"name": TRIAL_VARIABLE, "value": spec.trial}]
    return resource


def pod_labels(spec: JobSpec) -> dict[str, str]:
    """Gives the labels that the primary pods of a trial have."""
    kind = str(spec.manifest["kind"])
    by_name = {_NAME_LABELS[kind]: spec.trial} if kind in _NAME_LABELS else {TRIAL_LABEL: spec.trial}
    return {**by_name, **(spec.primary_pod_labels or PRIMARY_POD_LABELS.get(kind, {}))}


def restarts(pod: Mapping[str, Any], container: str) -> int:
    """Says how often a container of a pod was started again."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return next((int(one.get("restartCount", 0)) for one in statuses if one.get("name") == container), 0)


def primary_container(pod: Mapping[str, Any], name: str) -> str | None:
    """Gives the name of the container of a pod whose log counts; None: the pod has none.

    Args:
        pod: As the cluster gives it.
        name: As in the template; empty: the first.
    """
    names = [str(container["name"]) for container in pod.get("spec", {}).get("containers", [])]
    if not name:
        return names[0] if names else None
    return name if name in names else None


def _pod_templates(value: Any) -> Iterator[dict[str, Any]]:
    """Finds what is a pod's template, wherever in a resource it is."""
    if isinstance(value, dict):
        spec = value.get("spec")
        containers = spec.get("containers") if isinstance(spec, dict) else None
        if isinstance(containers, list) and all(isinstance(one, dict) for one in containers):
            yield value
            return
        for one in value.values():
            yield from _pod_templates(one)
    elif isinstance(value, list):
        for one in value:
            yield from _pod_templates(one)
