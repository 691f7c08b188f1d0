"""Wires the profile service."""

from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.server import ServiceDefinition, Servicer
from mlmesh_protos.kubeflow.kfam.v1 import kfam_pb2, kfam_pb2_grpc
from mlmesh_protos.mlmesh.profile.v1 import access_pb2, access_pb2_grpc, profile_pb2, profile_pb2_grpc

from mlmesh_profile.access import ACCESS
from mlmesh_profile.config import Settings
from mlmesh_profile.directory import Directory
from mlmesh_profile.reviewer import GrantReviewer
from mlmesh_profile.routes.workgroup import workgroup_routes
from mlmesh_profile.servicers.access import AccessServicer
from mlmesh_profile.servicers.authorization import AuthorizationServicer
from mlmesh_profile.servicers.kfam import KfamServicer
from mlmesh_profile.servicers.profile import ProfileServicer
from mlmesh_profile.store import ProfileStore


def build(settings: Settings) -> ServiceDefinition:
    """Opens the database, gives the local user their profile, and makes the service."""
    engine = create_engine(settings.resolved_database_url)
    migrate(engine, "mlmesh_profile")
    store = ProfileStore(
        engine,
        max_profiles_per_user=settings.max_profiles_per_user,
        max_contributors_per_profile=settings.max_contributors_per_profile,
    )
    administrators = settings.administrator_names
    reviewer = GrantReviewer(store, administrators, freshness_seconds=settings.freshness_seconds)
    directory = Directory(
        store,
        administrators,
        registration=settings.registration,
        automatic=settings.automatic_profiles,
        changed=reviewer.expire,
    )
    if settings.local_profile:
        directory.ensure_local_profile(settings.local_user, settings.default_namespace)
    return ServiceDefinition(
        name="profile",
        servicers=[
            Servicer(
                access_pb2.DESCRIPTOR.services_by_name["AccessService"],
                access_pb2_grpc.add_AccessServiceServicer_to_server,
                AccessServicer(reviewer),
            ),
            Servicer(
                profile_pb2.DESCRIPTOR.services_by_name["ProfileService"],
                profile_pb2_grpc.add_ProfileServiceServicer_to_server,
                ProfileServicer(directory),
            ),
            Servicer(
                kfam_pb2.DESCRIPTOR.services_by_name["AccessManagementService"],
                kfam_pb2_grpc.add_AccessManagementServiceServicer_to_server,
                KfamServicer(directory),
            ),
            Servicer(
                external_auth_pb2.DESCRIPTOR.services_by_name["Authorization"],
                external_auth_pb2_grpc.add_AuthorizationServicer_to_server,
                AuthorizationServicer(reviewer),
            ),
        ],
        access=ACCESS,
        http_routes=workgroup_routes(directory),
        reviewer=reviewer,
    )
