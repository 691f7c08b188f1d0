"""Services whose RPCs are refused, with the reason."""

from typing import Any

from mlmesh_kit.errors import Unimplemented
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import report_pb2_grpc, visualization_pb2_grpc


class ReportServicer(report_pb2_grpc.ReportServiceServicer):
    """KFP's persistence agent and its controller of scheduled workflows report here; there is neither."""

    def ReportWorkflow(self, request: Any, context: Any) -> Any:
        raise Unimplemented(
            "ReportWorkflow is for KFP's persistence agent, which mlmesh does not have: "
            "this service itself watches what it has started"
        )

    def ReportScheduledWorkflow(self, request: Any, context: Any) -> Any:
        raise Unimplemented(
            "ReportScheduledWorkflow is for KFP's controller of scheduled workflows, which mlmesh does not have: "
            "this service itself fires recurring runs"
        )


class VisualizationServicer(visualization_pb2_grpc.VisualizationServiceServicer):
    """KFP's visualization server runs Python that comes with the request."""

    def CreateVisualizationV1(self, request: Any, context: Any) -> Any:
        raise Unimplemented(
            "visualizations are not made: they would run code from the request inside the service; let a task write "
            "an HTML or Markdown artifact"
        )
