"""Roles, and what each allows: Kubeflow's ClusterRoles kubeflow-view, kubeflow-edit and kubeflow-admin."""

from enum import IntEnum

from mlmesh_kit.errors import InvalidArgument


class Role(IntEnum):
    """What a contributor may do; the higher includes the lower."""

    VIEW = 1
    EDIT = 2
    ADMIN = 3
    OWNER = 4

    @property
    def label(self) -> str:
        """KFAM's word for it; an owner's binding says admin, as the profile controller writes it."""
        return Role(min(self, Role.ADMIN)).name.lower()


BINDABLE = {role.label: role for role in (Role.VIEW, Role.EDIT, Role.ADMIN)}

READ_VERBS = frozenset({"get", "list", "watch", "infer", "readArtifact"})
"""Verbs that change nothing. A verb that is not here, known or not, needs EDIT."""

MEMBERSHIP_RESOURCES = frozenset({"contributors", "auditentries", "quotas", "serviceaccounts", "tokens"})
"""What says who may: changing it needs ADMIN."""


def role_named(text: str, *, field: str) -> Role:
    """Reads a role as KFAM writes it (admin) or as its ClusterRole (kubeflow-admin).

    Raises:
        InvalidArgument: It is neither.
    """
    role = BINDABLE.get(text.removeprefix("kubeflow-"))
    if role is None:
        raise InvalidArgument("must be admin, edit or view", field=field)
    return role


def needed(verb: str, resource: str) -> Role:
    """Gives the lowest role that may use `verb` on `resource` in a namespace."""
    if resource == "profiles":
        return Role.VIEW if verb in READ_VERBS else Role.OWNER
    if resource == "auditentries":
        return Role.ADMIN
    if verb in READ_VERBS:
        return Role.VIEW
    return Role.ADMIN if resource in MEMBERSHIP_RESOURCES else Role.EDIT
