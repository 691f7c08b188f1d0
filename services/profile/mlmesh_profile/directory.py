"""What can be done with profiles: the rules, above the store and below the doors (KFAM, mlmesh.profile.v1)."""

import logging
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from mlmesh_kit.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from mlmesh_kit.names import check_name

from mlmesh_profile.grants import Grants
from mlmesh_profile.profile import (
    SYSTEM,
    AuditEntry,
    Contributor,
    Profile,
    check_metadata,
    check_spec,
    check_user,
    own_profile_names,
)
from mlmesh_profile.role import Role
from mlmesh_profile.store import ProfileStore

logger = logging.getLogger(__name__)

MAX_BINDINGS = 20_000
"""Bindings in one answer; KFAM has no pages."""


class Directory:
    """Profiles and who contributes to them.

    That the caller may use the verb at all has been decided by the access check; what is decided here depends on more
    than (user, verb, resource, namespace).

    Args:
        store: Keeps them.
        administrators: Users who may do everything.
        registration: Whether users may make profiles of their own.
        automatic: Whether a user who logs in and owns no profile is given one.
        changed: Called after each change, before the caller has the answer.
    """

    def __init__(
        self,
        store: ProfileStore,
        administrators: Collection[str],
        *,
        registration: bool = True,
        automatic: bool = False,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._administrators = frozenset(administrators)
        self._registration = registration
        self._automatic = automatic
        self._changed = changed

    def is_administrator(self, user: str) -> bool:
        """Tells whether the configuration names `user` an administrator."""
        return user in self._administrators

    def create_profile(self, profile: Profile, actor: str) -> Profile:
        """Makes a profile; with no owner named, the actor's.

        Raises:
            InvalidArgument: A name, a label or an annotation is not valid.
            PermissionDenied: Only administrators make profiles for others, or at all where registration is off.
            AlreadyExists: There is one of that name.
            ResourceExhausted: The owner has as many as they may.
        """
        check_name(profile.name, field="metadata.name")
        wanted = replace(profile, owner=profile.owner or actor, uid=str(uuid.uuid4()))
        check_user(wanted.owner, field="spec.owner.name")
        check_metadata(wanted.labels, field="metadata.labels")
        check_metadata(wanted.annotations, field="metadata.annotations")
        check_spec(wanted.spec, field="spec")
        administrator = self.is_administrator(actor)
        if not administrator and wanted.owner != actor:
            raise PermissionDenied(f"{actor} may make profiles of their own only, not for {wanted.owner}")
        if not administrator and not self._registration:
            raise PermissionDenied("profiles are made by administrators here; ask one")
        made = self._store.create_profile(wanted, actor, may_reuse=administrator)
        self._changed()
        return made

    def create_own_profile(self, user: str, actor: str) -> Profile:
        """Makes a profile for `user`, named after them; gives the one of that name where they own it already.

        Raises:
            AlreadyExists: Both names that are tried belong to others.
        """
        for name in own_profile_names(user):
            try:
                made = self._store.create_profile(Profile(name, user, str(uuid.uuid4())), actor, may_reuse=False)
            except AlreadyExists:
                if self._owns(user, name):
                    return self._store.get_profile(name)
            else:
                self._changed()
                return made
        raise AlreadyExists("profile", name)

    def own_profile(self, user: str) -> str:
        """Gives the name of the profile that is named after the user and theirs.

        Raises:
            NotFound: They have none.
        """
        for name in own_profile_names(user):
            if self._owns(user, name):
                return name
        raise NotFound("profile", own_profile_names(user)[0])

    def _owns(self, user: str, name: str) -> bool:
        return self._store.load_grants(user)[1].roles.get(name) is Role.OWNER

    def log_in(self, user: str) -> Grants:
        """Gives what the caller has been granted; where profiles are made automatically, after making their first."""
        _, grants = self._store.load_grants(user)
        if not self._automatic or Role.OWNER in grants.roles.values():
            return grants
        self.create_own_profile(user, SYSTEM)
        return self._store.load_grants(user)[1]

    @property
    def registration(self) -> bool:
        """Whether users may make profiles of their own."""
        return self._registration

    def ensure_local_profile(self, user: str, name: str) -> None:
        """Gives the local user their profile if they own none yet. Replicas may do so at the same time."""
        _, grants = self._store.load_grants(user)
        if Role.OWNER in grants.roles.values():
            return
        profile = Profile(check_name(name, field="default_namespace"), user, str(uuid.uuid4()))
        try:
            self._store.create_profile(profile, SYSTEM, may_reuse=False)
        except AlreadyExists:
            if self._store.get_profile(name).owner != user:
                logger.warning("the local user has no profile: %r is somebody else's", name)
        else:
            self._changed()

    def get_profile(self, name: str) -> Profile:
        """Gives a profile, or raises NotFound."""
        return self._store.get_profile(check_name(name, field="name"))

    def list_profiles(self, actor: str, limit: int, after: str) -> Sequence[Profile]:
        """Gives what the actor owns or contributes to, an administrator all, by name, beyond `after`."""
        return self._store.list_profiles(None if self.is_administrator(actor) else actor, limit, after)

    def delete_profile(self, name: str, actor: str) -> None:
        """Deletes a profile with its contributors, or raises NotFound."""
        self._store.delete_profile(check_name(name, field="name"), actor)
        self._changed()

    def create_contributor(self, contributor: Contributor, actor: str) -> Contributor:
        """Gives a user a role.

        Raises:
            InvalidArgument: The namespace or the user is not valid.
            NotFound, AlreadyExists, ResourceExhausted: See the store.
        """
        check_name(contributor.namespace, field="referredNamespace")
        check_user(contributor.user, field="user.name")
        made = self._store.create_contributor(contributor, actor)
        self._changed()
        return made

    def delete_contributor(self, contributor: Contributor, actor: str) -> None:
        """Takes a role away, or raises NotFound."""
        check_name(contributor.namespace, field="referredNamespace")
        check_user(contributor.user, field="user.name")
        self._store.delete_contributor(contributor, actor)
        self._changed()

    def list_contributors(self, namespace: str, limit: int, after: tuple[str, int]) -> Sequence[Contributor]:
        """Gives a profile's contributors in order of user and role, beyond `after`; NotFound if there is no profile."""
        self.get_profile(namespace)
        return self._store.list_contributors(namespace, limit, after)

    def list_bindings(self, actor: str, *, user: str, namespace: str, role: str) -> Sequence[Contributor]:
        """Gives the bindings that match and that the actor may see; a foreign namespace's are as a missing one's.

        Args:
            actor: Who asks.
            user: Only theirs, when not empty.
            namespace: Only of this one, when not empty.
            role: Only this one (admin, edit, view), when not empty.

        Raises:
            ResourceExhausted: There are too many for one answer.
        """
        within: Sequence[str] | None = None
        if not self.is_administrator(actor) and user != actor:
            within = list(self._store.load_grants(actor)[1].roles)
            if namespace:
                within = [namespace] if namespace in within else []
        found = self._store.list_bindings(user=user, namespace=namespace, within=within, limit=MAX_BINDINGS + 1)
        if len(found) > MAX_BINDINGS:
            raise ResourceExhausted(f"more than {MAX_BINDINGS} bindings match; name a user or a namespace")
        return [binding for binding in found if not role or binding.role.label == role.removeprefix("kubeflow-")]

    def grants(self, user: str, actor: str) -> Grants:
        """Gives what a user has been granted; an administrator may ask about anybody.

        Raises:
            PermissionDenied: It is somebody else.
        """
        self.check_may_ask(user, actor)
        return self._store.load_grants(user)[1]

    def check_may_ask(self, user: str, actor: str) -> None:
        """Raises PermissionDenied unless `user` is the actor, or the actor an administrator."""
        check_user(user, field="user")
        if user != actor and not self.is_administrator(actor):
            raise PermissionDenied(f"{actor} may ask about themselves only")

    def list_audit(self, namespace: str, limit: int, before: int) -> Sequence[AuditEntry]:
        """Gives the changes of a profile ("-": of all), the latest first, with numbers below `before`."""
        if namespace != "-":
            check_name(namespace, field="parent")
        return self._store.list_audit(None if namespace == "-" else namespace, limit, before)


def check_page_size(size: int) -> int:
    """Gives the page size to use: 100 for 0, at most 1000.

    Raises:
        InvalidArgument: It is negative.
    """
    if size < 0:
        raise InvalidArgument("must not be negative", field="page_size")
    return min(size or 100, 1000)
