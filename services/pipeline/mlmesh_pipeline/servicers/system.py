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
        resource = _name(auth_pb2.AuthorizeRequest.Resources, request.resources, "resources")
        verb = _name(auth_pb2.AuthorizeRequest.Verb, request.verb, "verb")
        require(verb, resource, request.namespace)
        return empty_pb2.Empty()


def _name(kind: Any, number: int, field: str) -> str:
    if number == 0:
        raise InvalidArgument("is required", field=field)
    if number not in kind.values():
        raise InvalidArgument(f"must be one of {', '.join(kind.keys()[1:])}", field=field)
    return str(kind.Name(number)).lower()


class FilterServicer(filter_pb2_grpc.DummyFilterServiceServicer):
    """Gives a filter back."""

    def GetFilter(self, request: Any, context: Any) -> filter_pb2.Filter:
        found: filter_pb2.Filter = request
        return found
