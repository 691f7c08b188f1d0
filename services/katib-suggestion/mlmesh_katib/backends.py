"""What runs the trials of this service, by its settings."""

from mlmesh_kit.launch import Launcher, Limits

from mlmesh_katib.config import Settings
from mlmesh_katib.config_maps import ConfigMapTemplates
from mlmesh_katib.jobs.base import JobBackend
from mlmesh_katib.jobs.kubernetes import KubernetesBackend
from mlmesh_katib.jobs.pipeline import PipelineBackend
from mlmesh_katib.jobs.process import ProcessBackend
from mlmesh_katib.jobs.routing import RoutingBackend


def make_backend(settings: Settings, launcher: Launcher) -> JobBackend:
    """Makes it; nothing is asked of a cluster or another service yet."""
    root = settings.service_dir / "trials"
    cluster = KubernetesBackend(
        root, settings.kubernetes_kubeconfig, settings.kubernetes_context, settings.kubernetes_namespace
    )
    limits = Limits(
        memory_bytes=settings.trial_memory_bytes,
        processes=settings.trial_processes,
        log_bytes=settings.max_log_bytes,
    )
    processes = ProcessBackend(launcher, root, settings.ingress_url, settings.trial_timeout_seconds, limits)
    pipelines = PipelineBackend(root, settings.pipeline_address, settings.pipeline_user or settings.local_user)
    return RoutingBackend(cluster if settings.backend == "kubernetes" else processes, pipelines, cluster)


def make_templates(settings: Settings) -> ConfigMapTemplates:
    """Makes what reads the trial templates that lie in a cluster; nothing is asked of it yet."""
    return ConfigMapTemplates(
        settings.backend == "kubernetes",
        settings.kubernetes_kubeconfig,
        settings.kubernetes_context,
        settings.kubernetes_namespace,
        settings.shared_templates,
    )
