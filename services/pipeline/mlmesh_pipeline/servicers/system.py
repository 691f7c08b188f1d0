"""HealthzService, AuthService and DummyFilterService."""

from typing import Any

from google.protobuf import empty_pb2
from mlmesh_kit.access import require
from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import (
    auth_pb2,
    auth_pb2_grpc,
    filter_pb2,
    filter_pb2_grpc,
    healthz_pb2,
    healthz_pb2_grpc,
)


class HealthzServicer(healthz_pb2_grpc.HealthzServiceServicer):
    """Says that the service is up, and how it is set up."""

    def GetHealthz(self, request: Any, context: Any) -> healthz_pb2.GetHealthzResponse:
        return healthz_pb2.GetHealthzResponse(multi_user=False, pipeline_store="database")


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Answers whether the caller may use a viewer."""

    def Authorize(self, request: Any, context: Any) -> empty_pb2.Empty:
        if request.resources == auth_pb2.AuthorizeRequest.UNASSIGNED_RESOURCES:
            raise InvalidArgument("is required", field="resources")
        if request.verb == auth_pb2.AuthorizeRequest.UNASSIGNED_VERB:
            raise InvalidArgument("is required", field="verb")
        verb = auth_pb2.AuthorizeRequest.Verb.Name(request.verb).lower()
        resource = auth_pb2.AuthorizeRequest.Resources.Name(request.resources).lower()
        require(verb, resource, request.namespace)
        return empty_pb2.Empty()


class FilterServicer(filter_pb2_grpc.DummyFilterServiceServicer):
    """Gives a filter back."""

    def GetFilter(self, request: Any, context: Any) -> filter_pb2.Filter:
        found: filter_pb2.Filter = request
        return found
