"""What a request to run something names: an experiment, a pipeline."""

from typing import Any

from mlmesh_kit.access import require
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.identity import current_caller

from mlmesh_pipeline.access import require_visible
from mlmesh_pipeline.experiments import Experiments
from mlmesh_pipeline.resources import Experiment, PipelineVersion
from mlmesh_pipeline.servicers.convert import content_of
from mlmesh_pipeline.store import ExperimentStore, PipelineStore


class Sources:
    """Finds what requests name, if the caller may see it.

    Args:
        experiments: Gives the default experiment.
        experiment_store, pipelines: The database.
    """

    def __init__(self, experiments: Experiments, experiment_store: ExperimentStore, pipelines: PipelineStore) -> None:
        self._experiments = experiments
        self._experiment_store = experiment_store
        self._pipelines = pipelines

    def experiment(self, experiment_id: str, resource: str, namespace: str = "") -> Experiment:
        """Gives the experiment of this id, in which the caller may create; or the default one.

        Args:
            experiment_id: "": the default experiment.
            resource: What is to be created (runs, jobs).
            namespace: Of the default experiment; "": the caller's.

        Raises:
            NotFound: There is none, or the caller cannot see it.
            PermissionDenied: The caller may not create there.
        """
        if not experiment_id:
            return self._experiments.default(
                require("create", resource, namespace) or current_caller().default_namespace
            )
        found = self._experiment_store.get(experiment_id)
        require_visible("get", "experiments", found.namespace, "experiment", experiment_id)
        require("create", resource, found.namespace)
        return found

    def pipeline(self, asked: Any, field: str) -> tuple[dict[str, Any], PipelineVersion | None]:
        """Gives the pipeline that a run or recurring run names or brings.

        Args:
            asked: The message.
            field: Where it is in the request.

        Returns:
            The specification, and the version it is of; None: it came with the request.

        Raises:
            InvalidArgument: None is named, or the specification has a number that JSON does not have.
            NotFound: There is none, or the caller cannot see it.
        """
        kind = asked.WhichOneof("pipeline_source")
        if kind == "pipeline_spec":
            return content_of(asked.pipeline_spec, f"{field}.pipeline_spec"), None
        if kind is None:
            raise InvalidArgument("one of pipeline_spec and pipeline_version_reference is required", field=field)
        reference = asked.pipeline_version_reference
        version_id = asked.pipeline_version_id or reference.pipeline_version_id
        if not reference.pipeline_id and not version_id:
            raise InvalidArgument("pipeline_id is required", field=f"{field}.pipeline_version_reference.pipeline_id")
        version = self._pipelines.get_version(reference.pipeline_id, version_id)
        pipeline = self._pipelines.get(version.pipeline_id)
        require_visible("get", "pipelines", pipeline.namespace, "pipeline", pipeline.pipeline_id)
        return version.spec, version
