"""What the service tells the Workflows that it makes, and the pods in them."""

from dataclasses import dataclass, field

WORKSPACE = "/kfp-workspace"
"""Where KFP's SDK looks for the workspace."""
SCHEMES = {"s3://": "s3", "minio://": "minio", "gs://": "gcs", "oci://": "oci"}
"""Where KFP's SDK looks for artifacts, by the scheme of their URI: folders in the root of the container."""
FOLDERS = ("s3", "minio", "gcs")
"""Those of them that every pod has; images are volumes of their own."""
IN_WORKSPACE = "_kfp_workspace"
"""Metadata by which KFP's SDK knows an artifact that is in the workspace."""


@dataclass(frozen=True, slots=True)
class Options:
    """What does not come from the pipeline.

    Attributes:
        image: Ours; it holds this package.
        image_pull_policy: Of our image.
        state_root: URI under which runs keep what passes between their tasks.
        artifact_root: URI under which artifacts go.
        service_account: Of pods, where the run names none.
        namespace: Kubernetes' namespace of all runs; empty: that of the run.
        s3_secret: Secret with `access-key` and `secret-key`; empty: pods have other means.
        s3_environment: Further variables that say where S3 is.
        volume_claim: Claim of a shared volume that holds `artifact_root`, where it is `file://`.
        import_roots: URIs under which importers may name objects; None: any.
        ingress_url: Given to tasks as MLMESH_INGRESS.
        ttl_seconds: How long an ended Workflow stays in the cluster, where the pipeline does not say; 0: for ever.
        parallelism: Pods of a run at a time; 0: no limit.
        instance_id: Of the Argo controller that is meant; empty: the one without.
        max_loop_items: Most iterations of a loop.
        task_timeout_seconds: Time that an attempt gets; 0: no limit.
        folder: Where in containers our folder is.
        root: What stands before the folders of `SCHEMES`.
    """

    image: str = "mlmesh/pipeline:0.1.0"
    image_pull_policy: str = "IfNotPresent"
    state_root: str = "s3://mlmesh/state"
    artifact_root: str = "s3://mlmesh"
    service_account: str = "pipeline-runner"
    namespace: str = ""
    s3_secret: str = "mlmesh-s3"  # noqa: S105 (its name)
    s3_environment: dict[str, str] = field(default_factory=dict)
    volume_claim: str = ""
    import_roots: list[str] | None = None
    ingress_url: str = ""
    ttl_seconds: int = 86_400
    parallelism: int = 0
    instance_id: str = ""
    max_loop_items: int = 10_000
    task_timeout_seconds: int = 0
    folder: str = "/mlmesh"
    root: str = ""

    @property
    def outputs(self) -> str:
        """Folder of what a driver tells Argo."""
        return f"{self.folder}/outputs"

    @property
    def work(self) -> str:
        """Folder that the containers of a task's pod share."""
        return f"{self.folder}/work"
