"""Services whose RPCs answer UNIMPLEMENTED: the generated base classes do."""

from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import (
    report_pb2_grpc,
    visualization_pb2_grpc,
)


class ReportServicer(report_pb2_grpc.ReportServiceServicer):
    """Reports of workflows are for the Kubernetes backend."""


class VisualizationServicer(visualization_pb2_grpc.VisualizationServiceServicer):
    """Visualizations are not served yet."""
