"""kubeflow.kfam.v1.AccessManagementService: KFAM, as Kubeflow's dashboard calls it."""

from typing import Any

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from google.protobuf.wrappers_pb2 import BoolValue
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.identity import current_caller
from mlmesh_kit.names import check_name
from mlmesh_protos.kubeflow.kfam.v1 import kfam_pb2 as pb
from mlmesh_protos.kubeflow.kfam.v1.kfam_pb2_grpc import AccessManagementServiceServicer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mlmesh_profile.directory import Directory
from mlmesh_profile.manifest import owner_of, profile_of
from mlmesh_profile.profile import Contributor, check_user
from mlmesh_profile.role import role_named

_API_VERSION = "kubeflow.org/v1"
_KINDS = {"", "ClusterRole"}


class KfamServicer(AccessManagementServiceServicer):
    """Translates KFAM's messages.

    Args:
        directory: Does what they ask.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def Index(self, request: pb.IndexRequest, context: Any) -> HttpBody:
        return HttpBody(content_type="text/plain; charset=utf-8", data=b"Hello World!")

    def CreateProfile(self, request: pb.Profile, context: Any) -> Empty:
        document = MessageToDict(request, preserving_proto_field_name=True)
        document.setdefault("apiVersion", _API_VERSION)  # KFAM knows the type by the path; its clients leave both out
        document.setdefault("kind", "Profile")
        self._directory.create_profile(profile_of(document), current_caller().user)
        return Empty()

    def DeleteProfile(self, request: pb.DeleteProfileRequest, context: Any) -> Empty:
        self._directory.delete_profile(request.profile, current_caller().user)
        return Empty()

    def CreateBinding(self, request: pb.Binding, context: Any) -> Empty:
        self._directory.create_contributor(_contributor(request), current_caller().user)
        return Empty()

    def DeleteBinding(self, request: pb.Binding, context: Any) -> Empty:
        self._directory.delete_contributor(_contributor(request), current_caller().user)
        return Empty()

    def ReadBindings(self, request: pb.ReadBindingsRequest, context: Any) -> pb.BindingEntries:
        if request.namespace:
            check_name(request.namespace, field="namespace")
        if request.user:
            check_user(request.user, field="user")
        if request.role:
            role_named(request.role, field="role")
        found = self._directory.list_bindings(
            current_caller().user, user=request.user, namespace=request.namespace, role=request.role
        )
        return pb.BindingEntries(bindings=[_binding(one) for one in found])

    def QueryClusterAdmin(self, request: pb.QueryClusterAdminRequest, context: Any) -> BoolValue:
        caller = current_caller().user
        about = request.user or caller
        self._directory.check_may_ask(about, caller)
        return BoolValue(value=self._directory.is_administrator(about))

    def Metrics(self, request: pb.MetricsRequest, context: Any) -> HttpBody:
        return HttpBody(content_type=CONTENT_TYPE_LATEST, data=generate_latest())


def _contributor(binding: pb.Binding) -> Contributor:
    if binding.RoleRef.kind not in _KINDS:
        raise InvalidArgument("must be ClusterRole", field="RoleRef.kind")
    subject = {"kind": binding.user.kind, "name": binding.user.name}
    return Contributor(
        namespace=check_name(binding.referredNamespace, field="referredNamespace"),
        user=check_user(owner_of(subject, field="user"), field="user.name"),
        role=role_named(binding.RoleRef.name, field="RoleRef.name"),
    )


def _binding(contributor: Contributor) -> pb.Binding:
    return pb.Binding(
        user=pb.Subject(kind="User", name=contributor.user),
        referredNamespace=contributor.namespace,
        RoleRef=pb.RoleRef(kind="ClusterRole", name=contributor.role.label),
    )
