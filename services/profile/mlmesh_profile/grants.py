"""What one user has been granted, and the decision that follows from it. Pure: no database, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlmesh_kit.access import Decision

from mlmesh_profile.role import Role, needed

EVERYBODY = frozenset(
    {("create", "profiles"), ("list", "profiles"), ("list", "bindings"), ("get", "users"), ("get", "metrics")}
)
"""What every user may ask outside of a namespace; the answer holds only what is theirs to see."""

OWN_RESOURCES = frozenset({"profiles", "contributors", "auditentries"})
"""What administrators may use in a namespace that does not exist, to be told so."""

_NOT_YOURS = "no such namespace, or not one of theirs"


@dataclass(frozen=True, slots=True)
class Grants:
    """What a user owns and contributes to.

    Attributes:
        user: The user.
        roles: Namespace → highest role.
        default_namespace: Meant where a request names none: of those the user owns the first made, else the first
            they were added to; empty when there is none.
    """

    user: str
    roles: Mapping[str, Role]
    default_namespace: str


def decide(grants: Grants, verb: str, resource: str, namespace: str) -> Decision:
    """Decides for a user who is no administrator. A foreign namespace and a missing one answer alike."""
    if not namespace and (verb, resource) in EVERYBODY:
        return Decision(True, "", grants.default_namespace)
    where = namespace or grants.default_namespace
    if not where:
        return Decision(False, "they have no profile yet; create one", "")
    role = grants.roles.get(where)
    if role is None:
        return Decision(False, _NOT_YOURS, where)
    least = needed(verb, resource)
    if role < least:
        return Decision(False, f"that needs the role {least.name.lower()}; theirs is {role.name.lower()}", where)
    return Decision(True, "", where)


def decide_administrator(grants: Grants, verb: str, resource: str, namespace: str, *, exists: bool) -> Decision:
    """Decides for an administrator: everything, in every namespace that exists."""
    if not namespace and (verb, resource) in EVERYBODY:
        return Decision(True, "", grants.default_namespace)
    where = namespace or grants.default_namespace
    if not where:
        return Decision(False, "name a namespace: they have no profile of their own", "")
    if exists or resource in OWN_RESOURCES:
        return Decision(True, "", where)
    return Decision(False, f"namespace {where!r} does not exist", where)
