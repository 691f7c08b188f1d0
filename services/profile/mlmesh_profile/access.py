"""What each RPC asks for."""

from typing import Any

from mlmesh_kit.access import PUBLIC, Access, AccessTable


def _profile_of_name(request: Any) -> str:
    return _second(request.name)


def _profile_of_parent(request: Any) -> str:
    return _second(request.parent)


def _second(name: str) -> str:
    """Gives NS of profiles/NS/...; a name of another form is refused by the RPC itself."""
    parts = name.split("/")
    return parts[1] if len(parts) > 1 else ""


ACCESS: AccessTable = {
    "mlmesh.profile.v1.ProfileService": {
        "CreateProfile": Access("create", "profiles"),
        "ImportProfile": Access("create", "profiles"),
        "GetProfile": Access("get", "profiles", namespace=_profile_of_name),
        "ListProfiles": Access("list", "profiles"),
        "DeleteProfile": Access("delete", "profiles", namespace=_profile_of_name),
        "CreateContributor": Access("create", "contributors", namespace=_profile_of_parent),
        "ListContributors": Access("list", "contributors", namespace=_profile_of_parent),
        "DeleteContributor": Access("delete", "contributors", namespace=_profile_of_name),
        "ListAuditEntries": Access("list", "auditentries", namespace=_profile_of_parent),
        "GetUser": Access("get", "users"),
    },
    # Answers about the caller only, unless an administrator asks: see servicers/access.py.
    "mlmesh.profile.v1.AccessService": {"ReviewAccess": PUBLIC},
    "kubeflow.kfam.v1.AccessManagementService": {
        "Index": PUBLIC,
        "CreateProfile": Access("create", "profiles"),
        "DeleteProfile": Access("delete", "profiles", namespace="profile"),
        "CreateBinding": Access("create", "contributors", namespace="referredNamespace"),
        "DeleteBinding": Access("delete", "contributors", namespace="referredNamespace"),
        "ReadBindings": Access("list", "bindings"),
        "QueryClusterAdmin": Access("get", "users"),
        "Metrics": Access("get", "metrics"),
    },
    # Envoy asks on behalf of the user whose request it holds.
    "envoy.service.auth.v3.Authorization": {"Check": PUBLIC},
}
