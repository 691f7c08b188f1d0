"""Persistent volume claims that a pipeline makes and removes (`kubernetes.CreatePVC`, `DeletePVC`)."""

from typing import Any

from mlmesh_pipeline.argo.cluster import Cluster
from mlmesh_pipeline.argo.names import DNS_NAME, short_hash, slug
from mlmesh_pipeline.argo.platform import BadPlatform, claim_spec
from mlmesh_pipeline.argo.templates import RUN_LABEL, TASK_LABEL
from mlmesh_pipeline.resources import Run, Values

Json = dict[str, Any]


def claim_manifest(run: Run, task_id: str, inputs: Values) -> Json:
    """Gives the claim that a task asks for.

    Args:
        run: Its run.
        task_id: Of the task; the name follows from it where the user gives none, so that trying again makes no second.
        inputs: Of the task.

    Raises:
        BadPlatform: Something is missing or wrong.
    """
    given = inputs.parameters
    name, suffix = given.get("pvc_name"), given.get("pvc_name_suffix")
    if bool(name) == bool(suffix):
        raise BadPlatform("one of pvc_name and pvc_name_suffix is required")
    name = name or f"{slug(run.pipeline_name, 16)}-{short_hash(task_id)}{suffix}"
    if not isinstance(name, str) or not DNS_NAME.fullmatch(name):
        raise BadPlatform(f"{name!r} is no name of a claim")
    spec = claim_spec(
        {
            "accessModes": given.get("access_modes"),
            "size": given.get("size"),
            "storageClassName": given.get("storage_class_name") or None,
        }
    )
    if given.get("storage_class_name") == "" and given.get("volume_name"):
        spec["storageClassName"] = ""  # that of a volume which is there already
    if given.get("volume_name"):
        spec["volumeName"] = str(given["volume_name"])
    if source := given.get("data_source"):
        spec["dataSource"] = source
    annotations = given.get("annotations") or {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "labels": {RUN_LABEL: run.run_id, TASK_LABEL: task_id},
            "annotations": {str(key): str(value) for key, value in annotations.items()},
        },
        "spec": spec,
    }


def create_claim(cluster: Cluster, namespace: str, run: Run, task_id: str, inputs: Values) -> str:
    """Makes the claim that a task asks for; gives its name.

    Raises:
        BadPlatform: It cannot be made, or another task has made one of this name.
    """
    manifest = claim_manifest(run, task_id, inputs)
    made = cluster.create_claim(namespace, manifest)
    if made is None:
        found = cluster.claim(namespace, manifest["metadata"]["name"])
        if (found.get("metadata", {}).get("labels") or {}).get(TASK_LABEL) != task_id:
            raise BadPlatform(f"there is a claim {manifest['metadata']['name']!r} already")
    return str(manifest["metadata"]["name"])


def delete_claim(cluster: Cluster, namespace: str, inputs: Values) -> None:
    """Removes the claim that a task names; none there is fine.

    Raises:
        BadPlatform: The name is none.
    """
    name = inputs.parameters.get("pvc_name")
    if not isinstance(name, str) or not DNS_NAME.fullmatch(name):
        raise BadPlatform(f"{name!r} is no name of a claim")
    cluster.delete_claim(namespace, name)
