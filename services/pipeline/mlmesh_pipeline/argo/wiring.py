"""Makes the backend of the service's settings."""

from mlmesh_kit.errors import FailedPrecondition
from mlmesh_kit.objectstore import open_store

from mlmesh_pipeline.argo.backend import ArgoBackend
from mlmesh_pipeline.argo.cluster import Cluster
from mlmesh_pipeline.argo.options import Options
from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.engine.driver import Stores


def build_backend(settings: Settings, stores: Stores) -> ArgoBackend:
    """Makes the backend.

    Raises:
        FailedPrecondition: The settings do not go together, or no cluster is configured.
    """
    root = settings.resolved_artifact_root
    if root.startswith("file://") and not settings.argo_volume_claim:
        raise FailedPrecondition(
            "with the backend argo, ARTIFACT_ROOT must be s3://... or minio://..., or ARGO_VOLUME_CLAIM name the claim "
            "of a volume that holds it"
        )
    for other in _split(settings.pipeline_roots):
        if other.startswith("file://") and not (other + "/").startswith(root + "/"):
            raise FailedPrecondition(f"with the backend argo, PIPELINE_ROOTS cannot have {other}: pods do not see it")
    options = options_of(settings)
    cluster = Cluster(settings.argo_kubeconfig, settings.argo_context)
    return ArgoBackend(cluster, options, stores, open_store(root), settings.argo_resync_seconds)


def options_of(settings: Settings) -> Options:
    """Gives what the settings say to Workflows."""
    root = settings.resolved_artifact_root
    sources = _split(settings.import_roots)
    is_s3 = not root.startswith("file://")
    return Options(
        image=settings.argo_image,
        image_pull_policy=settings.argo_image_pull_policy,
        state_root=f"{root}/mlmesh-state",
        artifact_root=root,
        service_account=settings.argo_service_account,
        namespace=settings.argo_namespace,
        s3_secret=settings.argo_s3_secret if is_s3 else "",
        s3_environment=_s3_environment() if is_s3 else {},
        volume_claim="" if is_s3 else settings.argo_volume_claim,
        import_roots=None if "*" in sources else [root, *_split(settings.pipeline_roots), *sources],
        ingress_url=settings.ingress_url,
        ttl_seconds=settings.argo_ttl_seconds,
        parallelism=settings.argo_parallelism,
        instance_id=settings.argo_instance_id,
        folder=settings.argo_folder.rstrip("/"),
        max_loop_items=settings.max_loop_items,
        task_timeout_seconds=round(settings.task_timeout_seconds),
    )


def _split(text: str) -> list[str]:
    return [one.strip().rstrip("/") for one in text.split(",") if one.strip()]


def _s3_environment() -> dict[str, str]:
    """Gives where S3 is, as this process knows it; never the keys."""
    from mlmesh_kit.objectstore.s3 import S3Settings

    found = S3Settings()
    return {
        "MLMESH_S3_ENDPOINT": found.endpoint,
        "MLMESH_S3_REGION": found.region,
        "MLMESH_S3_SECURE": str(found.secure).lower(),
    }
