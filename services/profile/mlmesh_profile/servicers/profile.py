"""mlmesh.profile.v1.ProfileService."""

from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.identity import current_caller
from mlmesh_kit.names import check_name, parse_resource
from mlmesh_kit.paging import decode_page_token, encode_page_token
from mlmesh_protos.mlmesh.profile.v1 import profile_pb2 as pb
from mlmesh_protos.mlmesh.profile.v1.profile_pb2_grpc import ProfileServiceServicer

from mlmesh_profile.directory import Directory, check_page_size
from mlmesh_profile.grants import Grants
from mlmesh_profile.manifest import read_manifest
from mlmesh_profile.profile import AuditEntry, Contributor, Profile, check_user
from mlmesh_profile.role import Role, role_named

MAX_MEMBERSHIPS = 1000
MAX_NUMBER = 2**63 - 1


class ProfileServicer(ProfileServiceServicer):
    """Translates profiles, contributors and audit entries.

    Args:
        directory: Does what is asked.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def CreateProfile(self, request: pb.CreateProfileRequest, context: Any) -> pb.Profile:
        wanted = Profile(
            name=check_name(request.profile_id, field="profile_id"),
            owner=request.profile.owner,
            labels=dict(request.profile.labels),
            annotations=dict(request.profile.annotations),
        )
        return self._create(wanted)

    def ImportProfile(self, request: pb.ImportProfileRequest, context: Any) -> pb.Profile:
        return self._create(read_manifest(request.manifest.data))

    def _create(self, wanted: Profile) -> pb.Profile:
        caller = current_caller().user
        made = self._directory.create_profile(wanted, caller)
        return _profile(made, self._directory.grants(caller, caller))

    def GetProfile(self, request: pb.GetProfileRequest, context: Any) -> pb.Profile:
        caller = current_caller().user
        found = self._directory.get_profile(_profile_id(request.name, field="name"))
        return _profile(found, self._directory.grants(caller, caller))

    def ListProfiles(self, request: pb.ListProfilesRequest, context: Any) -> pb.ListProfilesResponse:
        caller = current_caller().user
        size = check_page_size(request.page_size)
        after = _position(request.page_token, ["profiles", caller], start="")
        found = self._directory.list_profiles(caller, size + 1, after)
        grants = self._directory.grants(caller, caller)
        page = found[:size]
        token = encode_page_token(page[-1].name, ["profiles", caller]) if len(found) > size else ""
        return pb.ListProfilesResponse(profiles=[_profile(one, grants) for one in page], next_page_token=token)

    def DeleteProfile(self, request: pb.DeleteProfileRequest, context: Any) -> Empty:
        self._directory.delete_profile(_profile_id(request.name, field="name"), current_caller().user)
        return Empty()

    def CreateContributor(self, request: pb.CreateContributorRequest, context: Any) -> pb.Contributor:
        contributor = Contributor(
            namespace=_profile_id(request.parent, field="parent"),
            user=check_user(request.contributor.user, field="contributor.user"),
            role=_role_of(request.contributor.role),
        )
        return _contributor(self._directory.create_contributor(contributor, current_caller().user))

    def ListContributors(self, request: pb.ListContributorsRequest, context: Any) -> pb.ListContributorsResponse:
        namespace = _profile_id(request.parent, field="parent")
        size = check_page_size(request.page_size)
        user, role = _position(request.page_token, ["contributors", namespace], start=["", 0])
        found = self._directory.list_contributors(namespace, size + 1, (user, role))
        page = found[:size]
        token = ""
        if len(found) > size:
            token = encode_page_token([page[-1].user, int(page[-1].role)], ["contributors", namespace])
        return pb.ListContributorsResponse(contributors=[_contributor(one) for one in page], next_page_token=token)

    def DeleteContributor(self, request: pb.DeleteContributorRequest, context: Any) -> Empty:
        self._directory.delete_contributor(_contributor_of(request.name), current_caller().user)
        return Empty()

    def ListAuditEntries(self, request: pb.ListAuditEntriesRequest, context: Any) -> pb.ListAuditEntriesResponse:
        namespace = "-" if request.parent == "profiles/-" else _profile_id(request.parent, field="parent")
        size = check_page_size(request.page_size)
        before = _position(request.page_token, ["audit", namespace], start=MAX_NUMBER)
        found = self._directory.list_audit(namespace, size + 1, before)
        page = found[:size]
        token = encode_page_token(page[-1].number, ["audit", namespace]) if len(found) > size else ""
        return pb.ListAuditEntriesResponse(audit_entries=[_entry(one) for one in page], next_page_token=token)

    def GetUser(self, request: pb.GetUserRequest, context: Any) -> pb.User:
        caller = current_caller().user
        user = request.name.removeprefix("users/")
        user = caller if user == "me" else check_user(user, field="name")
        grants = self._directory.log_in(caller) if user == caller else self._directory.grants(user, caller)
        memberships = [
            pb.Membership(namespace=name, role=_role(role), owner=role is Role.OWNER)
            for name, role in sorted(grants.roles.items())[:MAX_MEMBERSHIPS]
        ]
        return pb.User(
            name=f"users/{user}",
            administrator=self._directory.is_administrator(user),
            default_namespace=grants.default_namespace,
            memberships=memberships,
        )


def _position(token: str, query: list[str], *, start: Any) -> Any:
    """Reads where a page begins. The token's content is the client's word: its types are checked against `start`."""
    found = decode_page_token(token, query)
    if found is None:
        return start
    if not _same_types(found, start):
        raise InvalidArgument("must be a token from an earlier answer to the same list request", field="page_token")
    return found


def _same_types(found: object, start: object) -> bool:
    if isinstance(start, list):
        return (
            isinstance(found, list)
            and len(found) == len(start)
            and all(_same_types(one, other) for one, other in zip(found, start, strict=True))
        )
    return type(found) is type(start) and (not isinstance(found, int) or 0 <= found <= MAX_NUMBER)


def _profile_id(name: str, *, field: str) -> str:
    return check_name(parse_resource(name, "profiles/{profile}", field)["profile"], field)


def _contributor_of(name: str) -> Contributor:
    parts = parse_resource(name, "profiles/{profile}/contributors/{contributor}")
    role, _, user = parts["contributor"].partition("-")
    return Contributor(
        namespace=check_name(parts["profile"]),
        user=check_user(user, field="name"),
        role=role_named(role, field="name"),
    )


def _role_of(role: "pb.Role.ValueType") -> Role:
    if role not in {pb.ROLE_VIEW, pb.ROLE_EDIT, pb.ROLE_ADMIN}:
        raise InvalidArgument("must be ROLE_VIEW, ROLE_EDIT or ROLE_ADMIN", field="contributor.role")
    return Role(role)


def _role(role: Role | None) -> "pb.Role.ValueType":
    return pb.ROLE_UNSPECIFIED if role is None else pb.Role.Value(f"ROLE_{role.label.upper()}")


def _time(us: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(us)
    return stamp


def _profile(profile: Profile, grants: Grants) -> pb.Profile:
    return pb.Profile(
        name=f"profiles/{profile.name}",
        owner=profile.owner,
        labels=profile.labels,
        annotations=profile.annotations,
        uid=profile.uid,
        create_time=_time(profile.created_us),
        caller_role=_role(grants.roles.get(profile.name)),
    )


def _contributor(contributor: Contributor) -> pb.Contributor:
    return pb.Contributor(
        name=f"profiles/{contributor.namespace}/contributors/{contributor.role.label}-{contributor.user}",
        user=contributor.user,
        role=_role(contributor.role),
        create_time=_time(contributor.created_us),
    )


def _entry(entry: AuditEntry) -> pb.AuditEntry:
    return pb.AuditEntry(
        name=f"profiles/{entry.namespace}/auditEntries/{entry.number}",
        create_time=_time(entry.at_us),
        actor=entry.actor,
        action=entry.action,
        user=entry.user,
        role=_role(entry.role),
    )
