"""ExperimentService."""

from typing import Any

from google.protobuf import empty_pb2
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.identity import current_caller
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import experiment_pb2, experiment_pb2_grpc

from mlmesh_pipeline.access import require_visible
from mlmesh_pipeline.experiments import Experiments
from mlmesh_pipeline.resources import Experiment
from mlmesh_pipeline.servicers.convert import experiment_message, list_query
from mlmesh_pipeline.store import ExperimentStore


class ExperimentServicer(experiment_pb2_grpc.ExperimentServiceServicer):
    """Serves experiments.

    Args:
        experiments: Creates them.
        store: Where they are.
    """

    def __init__(self, experiments: Experiments, store: ExperimentStore) -> None:
        self._experiments = experiments
        self._store = store

    def CreateExperiment(self, request: Any, context: Any) -> experiment_pb2.Experiment:
        asked = request.experiment
        namespace = asked.namespace or current_caller().default_namespace
        return experiment_message(self._experiments.create(namespace, asked.display_name, asked.description))

    def GetExperiment(self, request: Any, context: Any) -> experiment_pb2.Experiment:
        return experiment_message(self._visible("get", request.experiment_id))

    def ListExperiments(self, request: Any, context: Any) -> experiment_pb2.ListExperimentsResponse:
        namespace = request.namespace or current_caller().default_namespace
        page = self._store.page(namespace, list_query(request))
        return experiment_pb2.ListExperimentsResponse(
            experiments=[experiment_message(item) for item in page.items],
            total_size=page.total_size,
            next_page_token=page.next_page_token,
        )

    def ArchiveExperiment(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._store.archive(self._visible("archive", request.experiment_id).experiment_id)
        return empty_pb2.Empty()

    def UnarchiveExperiment(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._store.unarchive(self._visible("unarchive", request.experiment_id).experiment_id)
        return empty_pb2.Empty()

    def DeleteExperiment(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._store.delete(self._visible("delete", request.experiment_id).experiment_id)
        return empty_pb2.Empty()

    def _visible(self, verb: str, experiment_id: str) -> Experiment:
        if not experiment_id:
            raise InvalidArgument("is required", field="experiment_id")
        found = self._store.get(experiment_id)
        require_visible(verb, "experiments", found.namespace, "experiment", experiment_id)
        return found
