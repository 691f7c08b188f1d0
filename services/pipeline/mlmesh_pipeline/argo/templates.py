"""The templates of a Workflow that run pods: the driver of every task, and the executor of a container."""

from typing import Any

from mlmesh_pipeline.argo.options import FOLDERS, WORKSPACE, Options
from mlmesh_pipeline.argo.text import has_variable

DRIVER = "driver"
WORKSPACE_DRIVER = "driver-with-workspace"
MODULE = ["python", "-m", "mlmesh_pipeline.argo"]
DECIDED_TO_FAIL = 3
"""Exit code of a driver that says that its task failed: trying again changes nothing."""
PATH, PATCH, DECISION, ITERATIONS, TASK = "path", "pod-spec-patch", "decision", "iterations", "task"
RUN = "run"
"""The decision of a driver that what comes after it is to run."""
RUN_LABEL = "pipeline/runid"
TASK_LABEL = "pipelines.mlmesh.dev/task"
ROLE_LABEL = "pipelines.mlmesh.dev/role"
WORKSPACE_VOLUME = "mlmesh-workspace"
_SHARED_VOLUME = "mlmesh-artifacts"
_NON_ROOT_RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
_HOME = ("local", "cache", "config")
Json = dict[str, Any]


def driver_template(options: Options, environment: list[Json], *, workspace: bool = False) -> Json:
    """Gives the template of drivers: they decide what becomes of a task, and write the pod's patch.

    Args:
        options: Of the service.
        environment: Of our containers.
        workspace: Whether it has the run's workspace: for importers into it.
    """
    mounts = [{"name": "mlmesh-outputs", "mountPath": options.outputs}]
    if workspace:
        mounts.append({"name": WORKSPACE_VOLUME, "mountPath": WORKSPACE})
    return {
        "name": WORKSPACE_DRIVER if workspace else DRIVER,
        "inputs": {"parameters": [{"name": PATH}]},
        "outputs": {
            "parameters": [
                _output(options, DECISION, "skip"),
                _output(options, PATCH, "{}"),
                _output(options, ITERATIONS, "[]"),
                _output(options, TASK, "none"),
            ]
        },
        "metadata": {"labels": {ROLE_LABEL: "driver"}},
        # Evicted, or its node gone: again. That it decided against its task is final.
        "retryStrategy": {
            "limit": "3",
            "retryPolicy": "Always",
            "expression": f"lastRetry.exitCode != '{DECIDED_TO_FAIL}'",
            "backoff": {"duration": "2s", "factor": "2"},
        },
        "container": {
            "image": options.image,
            "imagePullPolicy": options.image_pull_policy,
            "command": [*MODULE, "driver"],
            "args": ["{{inputs.parameters.path}}"],
            "env": [*environment, {"name": "MLMESH_ARGO_OUTPUTS", "value": options.outputs}],
            "resources": _NON_ROOT_RESOURCES,
            "securityContext": own_security(),
            "volumeMounts": [
                {"name": "mlmesh-outputs", "mountPath": options.outputs},
                *mounts,
                *_shared_mounts(options),
            ],
        },
        "volumes": [{"name": "mlmesh-outputs", "emptyDir": {}}, *_shared_volumes(options)],
    }


def _output(options: Options, name: str, default: str) -> Json:
    return {"name": name, "valueFrom": {"path": f"{options.outputs}/{name}", "default": default}}


def executor_template(
    name: str, container: Any, options: Options, *, environment: list[Json], metadata: Json, workspace: bool
) -> Json:
    """Gives the template of the pod of a container task.

    Three containers follow each other, over folders that they share: `fetch` (ours) gets the inputs, `main` is the
    user's image, `store` (ours) puts the outputs where they belong and writes how the task ended. What depends on the
    task's inputs comes from its driver, as a patch.

    Args:
        name: Of the template.
        container: PipelineContainerSpec.
        options: Of the service.
        environment: Of our containers.
        metadata: Labels and annotations of the pod.
        workspace: Whether the run has one.
    """
    task = {"name": "MLMESH_ARGO_TASK", "value": "{{inputs.parameters.path}}"}
    own = {
        "image": options.image,
        "imagePullPolicy": options.image_pull_policy,
        "env": [*environment, task],
        "resources": _NON_ROOT_RESOURCES,
        "securityContext": own_security(),
    }
    main: Json = {
        "name": "main",
        "image": "from-the-driver",
        "securityContext": _user_security(),
        "dependencies": ["fetch"],
    }
    if not has_variable(container.image):
        main["image"] = container.image
    if container.command:  # without one it is that of the image, which Argo looks up
        main["command"] = ["from-the-driver"]
    folders = [f"mlmesh-{name}" for name in ("work", *FOLDERS, *_HOME)]
    paths = [options.work, *(f"{options.root}/{name}" for name in FOLDERS)]
    paths += [f"{options.root}/.{name}" for name in _HOME]
    mounts = [{"name": folder, "mountPath": path} for folder, path in zip(folders, paths, strict=True)]
    if workspace:
        mounts.append({"name": WORKSPACE_VOLUME, "mountPath": WORKSPACE})
    return {
        "name": name,
        "inputs": {"parameters": [{"name": PATH}, {"name": PATCH}, {"name": TASK}]},
        "metadata": {
            "annotations": metadata.get("annotations", {}),
            "labels": {
                **metadata.get("labels", {}),
                ROLE_LABEL: "executor",
                TASK_LABEL: "{{inputs.parameters.task}}",
            },
        },
        "containerSet": {
            "volumeMounts": [*mounts, *_shared_mounts(options)],
            "containers": [
                {"name": "fetch", "command": [*MODULE, "fetch"], **own},
                main,
                {"name": "store", "command": [*MODULE, "store"], "dependencies": ["main"], **own},
            ],
        },
        "podSpecPatch": "{{inputs.parameters.pod-spec-patch}}",
        "volumes": [*({"name": folder, "emptyDir": {}} for folder in folders), *_shared_volumes(options)],
    }


def own_security() -> Json:
    """Gives the security context of our containers."""
    return {**_user_security(), "runAsNonRoot": True}


def _user_security() -> Json:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def own_environment(options: Options, run_uri: str, number: int) -> list[Json]:
    """Gives the variables of our containers: where the run's state is, and how S3 is reached.

    Args:
        options: Of the service.
        run_uri: Of the run's folder.
        number: Of the try.
    """
    found = [
        {"name": "MLMESH_ARGO_RUN", "value": run_uri},
        {"name": "MLMESH_ARGO_TRY", "value": str(number)},
        *({"name": name, "value": value} for name, value in sorted(options.s3_environment.items())),
    ]
    if options.s3_secret:
        for name, key in (("MLMESH_S3_ACCESS_KEY", "access-key"), ("MLMESH_S3_SECRET_KEY", "secret-key")):
            found.append({"name": name, "valueFrom": {"secretKeyRef": {"name": options.s3_secret, "key": key}}})  # type: ignore[dict-item]
    return found


def _shared_volumes(options: Options) -> list[Json]:
    if not options.volume_claim:
        return []
    return [{"name": _SHARED_VOLUME, "persistentVolumeClaim": {"claimName": options.volume_claim}}]


def _shared_mounts(options: Options) -> list[Json]:
    if not options.volume_claim:
        return []
    return [{"name": _SHARED_VOLUME, "mountPath": options.artifact_root.removeprefix("file://")}]
