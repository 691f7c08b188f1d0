"""What each RPC asks for (verbs and resources as in KFP's roles)."""

from typing import Any

from mlmesh_kit.access import IN_DOMAIN, PUBLIC, Access, AccessTable, require
from mlmesh_kit.errors import NotFound, PermissionDenied

_PACKAGE = "kubeflow.pipelines.backend.api.v2beta1"


def _in_domain(resource: str, **verbs: str) -> dict[str, Access]:
    return {rpc: Access(verb, resource, namespace=IN_DOMAIN) for rpc, verb in verbs.items()}


ACCESS: AccessTable = {
    f"{_PACKAGE}.PipelineService": {
        "CreatePipeline": Access("create", "pipelines", namespace="pipeline.namespace"),
        "CreatePipelineAndVersion": Access("create", "pipelines", namespace="pipeline.namespace"),
        "GetPipelineByName": Access("get", "pipelines", namespace="namespace"),
        "ListPipelines": Access("list", "pipelines", namespace="namespace"),
        **_in_domain(
            "pipelines",
            GetPipeline="get",
            DeletePipeline="delete",
            UpdatePipeline="update",
            CreatePipelineVersion="create",
            GetPipelineVersion="get",
            ListPipelineVersions="list",
            DeletePipelineVersion="delete",
            UpdatePipelineVersion="update",
        ),
    },
    f"{_PACKAGE}.ExperimentService": {
        "CreateExperiment": Access("create", "experiments", namespace="experiment.namespace"),
        "ListExperiments": Access("list", "experiments", namespace="namespace"),
        **_in_domain(
            "experiments",
            GetExperiment="get",
            ArchiveExperiment="archive",
            UnarchiveExperiment="unarchive",
            DeleteExperiment="delete",
        ),
    },
    f"{_PACKAGE}.RunService": {
        **_in_domain(
            "runs",
            CreateRun="create",
            GetRun="get",
            ListRuns="list",
            ArchiveRun="archive",
            UnarchiveRun="unarchive",
            DeleteRun="delete",
            ReadArtifact="readArtifact",
            TerminateRun="terminate",
            RetryRun="retry",
        ),
    },
    f"{_PACKAGE}.RecurringRunService": {
        "CreateRecurringRun": Access("create", "jobs", namespace=IN_DOMAIN),
        "ListRecurringRuns": Access("list", "jobs", namespace="namespace"),
        **_in_domain(
            "jobs",
            GetRecurringRun="get",
            EnableRecurringRun="enable",
            DisableRecurringRun="disable",
            DeleteRecurringRun="delete",
        ),
    },
    f"{_PACKAGE}.VisualizationService": {
        "CreateVisualizationV1": Access("create", "visualizations", namespace="namespace")
    },
    f"{_PACKAGE}.ReportService": _in_domain("workflows", ReportWorkflow="report", ReportScheduledWorkflow="report"),
    f"{_PACKAGE}.AuthService": {"Authorize": Access("get", "viewers", namespace=IN_DOMAIN)},
    "mlmesh.pipeline.v1.RunAnalysisService": _in_domain(
        "runs", ExplainCache="get", DiffRuns="get", DescribeTask="get", GetOutputs="get", RerunRun="create"
    ),
    f"{_PACKAGE}.HealthzService": {"GetHealthz": PUBLIC},
    f"{_PACKAGE}.DummyFilterService": {"GetFilter": Access("list", "runs")},
}


def require_visible(verb: str, resource: str, namespace: str, kind: str, name: str) -> None:
    """Checks access to a resource that was named by its id; one in a namespace that the caller cannot see is missing.

    Raises:
        NotFound: The caller may not even get it.
        PermissionDenied: The caller may get it, but not do this.
    """
    try:
        require("get", resource, namespace, name)
    except PermissionDenied as error:
        raise NotFound(kind, name) from error
    if verb != "get":
        require(verb, resource, namespace, name)


def namespace_parameter(request: Any) -> str:
    """Reads the namespace of an HTTP request's query."""
    return str(request.query_params.get("namespace", ""))
