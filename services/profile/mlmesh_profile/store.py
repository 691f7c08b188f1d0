"""Keeps profiles, contributors and the audit log. Every change writes its audit entry and raises the access version
in the same transaction: what is in force and what the log says cannot part.
"""

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mlmesh_kit.database import read, run_transaction
from mlmesh_kit.errors import AlreadyExists, NotFound, ResourceExhausted
from sqlalchemy import Connection, Engine, Select, and_, delete, func, insert, or_, select, union_all, update
from sqlalchemy.exc import IntegrityError

from mlmesh_profile.grants import Grants
from mlmesh_profile.profile import AuditEntry, Contributor, Profile
from mlmesh_profile.role import Role
from mlmesh_profile.tables import audit_entries, contributors, profiles, versions


class ProfileStore:
    """Profiles in a database.

    Args:
        engine: Of the kit; its schema is up to date.
        max_profiles_per_user: Beyond which a user's next profile is refused.
        max_contributors_per_profile: Beyond which a profile's next contributor is refused.
    """

    def __init__(
        self, engine: Engine, *, max_profiles_per_user: int = 100, max_contributors_per_profile: int = 1000
    ) -> None:
        self._engine = engine
        self._max_profiles = max_profiles_per_user
        self._max_contributors = max_contributors_per_profile

    def create_profile(self, profile: Profile, actor: str, *, may_reuse: bool) -> Profile:
        """Adds a profile.

        Args:
            profile: What to add; the time is set here.
            actor: Who does it.
            may_reuse: Whether the name may be that of a deleted profile of somebody else, whose resources in other
                services the new owner would see.

        Raises:
            AlreadyExists: There is one of that name, or (`may_reuse` false) was, of somebody else.
            ResourceExhausted: The owner has as many as they may.
        """
        now = _now_us()

        def change(connection: Connection) -> None:
            _raise_version(connection)
            if _exists(connection, profile.name):
                raise AlreadyExists("profile", profile.name)
            if not may_reuse and _last_owner(connection, profile.name) not in {None, profile.owner}:
                raise AlreadyExists("profile", profile.name)
            owned = select(func.count()).select_from(profiles).where(profiles.c.owner == profile.owner)
            if connection.execute(owned).scalar_one() >= self._max_profiles:
                raise ResourceExhausted(f"{profile.owner} owns {self._max_profiles} profiles, which is the most")
            row = {
                "name": profile.name,
                "owner": profile.owner,
                "uid": profile.uid,
                "created_us": now,
                "labels": _dump(profile.labels),
                "annotations": _dump(profile.annotations),
                "spec": _dump(profile.spec),
            }
            with _conflict("profile", profile.name):
                connection.execute(insert(profiles).values(row))
            _log(connection, AuditEntry(0, now, actor, "profile.create", profile.name, profile.owner, None))

        run_transaction(self._engine, change)
        return self.get_profile(profile.name)

    def get_profile(self, name: str) -> Profile:
        """Gives the profile of that name.

        Raises:
            NotFound: There is none.
        """
        with read(self._engine) as connection:
            row = connection.execute(select(profiles).where(profiles.c.name == name)).mappings().first()
        if row is None:
            raise NotFound("profile", name)
        return _profile(row)

    def delete_profile(self, name: str, actor: str) -> None:
        """Deletes a profile and its contributors.

        Raises:
            NotFound: There is none.
        """
        now = _now_us()

        def change(connection: Connection) -> None:
            _raise_version(connection)
            owner = connection.execute(select(profiles.c.owner).where(profiles.c.name == name)).scalar_one_or_none()
            if owner is None:
                raise NotFound("profile", name)
            connection.execute(delete(contributors).where(contributors.c.namespace == name))
            connection.execute(delete(profiles).where(profiles.c.name == name))
            _log(connection, AuditEntry(0, now, actor, "profile.delete", name, owner, None))

        run_transaction(self._engine, change)

    def list_profiles(self, user: str | None, limit: int, after: str) -> Sequence[Profile]:
        """Gives profiles in order of their names.

        Args:
            user: Only those they own or contribute to; None: all.
            limit: The most to give.
            after: Only names beyond this one.
        """
        query: Select[Any] = select(profiles)
        if user is not None:
            # Each half is one range of one index; the names are few, and the profiles are fetched by key.
            owned = select(profiles.c.name).where(profiles.c.owner == user)
            shared = select(contributors.c.namespace).where(contributors.c.user == user)
            query = query.where(profiles.c.name.in_(union_all(owned, shared)))
        query = query.where(profiles.c.name > after).order_by(profiles.c.name).limit(limit)
        with read(self._engine) as connection:
            return [_profile(row) for row in connection.execute(query).mappings()]

    def create_contributor(self, contributor: Contributor, actor: str) -> Contributor:
        """Gives a user a role.

        Raises:
            NotFound: There is no such profile.
            AlreadyExists: They have that role, or own the profile.
            ResourceExhausted: The profile has as many as it may.
        """
        now = _now_us()
        namespace, user = contributor.namespace, contributor.user

        def change(connection: Connection) -> None:
            _raise_version(connection)
            owner = connection.execute(
                select(profiles.c.owner).where(profiles.c.name == namespace)
            ).scalar_one_or_none()
            if owner is None:
                raise NotFound("profile", namespace)
            if owner == user:
                raise AlreadyExists(message=f"{user} owns the profile {namespace!r}")
            number = select(func.count()).select_from(contributors).where(contributors.c.namespace == namespace)
            if connection.execute(number).scalar_one() >= self._max_contributors:
                raise ResourceExhausted(f"{namespace!r} has {self._max_contributors} contributors, which is the most")
            row = {"namespace": namespace, "user": user, "role": int(contributor.role), "created_us": now}
            with _conflict("contributor", f"{contributor.role.label}-{user}"):
                connection.execute(insert(contributors).values(row))
            _log(connection, AuditEntry(0, now, actor, "contributor.create", namespace, user, contributor.role))

        run_transaction(self._engine, change)
        return Contributor(namespace, user, contributor.role, now)

    def delete_contributor(self, contributor: Contributor, actor: str) -> None:
        """Takes a role away.

        Raises:
            NotFound: They do not have it.
        """
        now = _now_us()

        def change(connection: Connection) -> None:
            _raise_version(connection)
            done = connection.execute(
                delete(contributors).where(
                    contributors.c.namespace == contributor.namespace,
                    contributors.c.user == contributor.user,
                    contributors.c.role == int(contributor.role),
                )
            )
            if done.rowcount == 0:
                raise NotFound("contributor", f"{contributor.role.label}-{contributor.user}")
            _log(
                connection,
                AuditEntry(
                    0, now, actor, "contributor.delete", contributor.namespace, contributor.user, contributor.role
                ),
            )

        run_transaction(self._engine, change)

    def list_contributors(self, namespace: str, limit: int, after: tuple[str, int] = ("", 0)) -> Sequence[Contributor]:
        """Gives a profile's contributors in order of user and role, beyond `after`."""
        user, role = after
        columns = contributors.c
        query = (
            select(contributors)
            .where(columns.namespace == namespace)
            .where(or_(columns.user > user, and_(columns.user == user, columns.role > role)))
            .order_by(columns.user, columns.role)
            .limit(limit)
        )
        with read(self._engine) as connection:
            return [_contributor(row) for row in connection.execute(query).mappings()]

    def list_bindings(
        self, *, user: str = "", namespace: str = "", within: Sequence[str] | None = None, limit: int
    ) -> Sequence[Contributor]:
        """Gives bindings as KFAM knows them: contributors, and each owner as OWNER.

        Args:
            user: Only theirs, when not empty.
            namespace: Only of this one, when not empty.
            within: Only of these namespaces; None: of all.
            limit: The most to give.
        """
        found: list[Contributor] = []
        with read(self._engine) as connection:
            for query, role in (
                (select(profiles.c.name.label("namespace"), profiles.c.owner.label("user"), profiles.c.created_us), 4),
                (select(contributors), None),
            ):
                names, users = query.selected_columns["namespace"], query.selected_columns["user"]
                narrowed = query.where(users == user) if user else query
                narrowed = narrowed.where(names == namespace) if namespace else narrowed
                narrowed = narrowed.where(names.in_(within)) if within is not None else narrowed
                for row in connection.execute(narrowed.order_by(names, users).limit(limit)).mappings():
                    found.append(
                        _contributor(row)
                        if role is None
                        else Contributor(row["namespace"], row["user"], Role(role), row["created_us"])
                    )
        found.sort(key=lambda binding: (binding.namespace, -binding.role, binding.user))
        return found[:limit]

    def list_audit(self, namespace: str | None, limit: int, before: int = 2**63 - 1) -> Sequence[AuditEntry]:
        """Gives changes, the latest first: of one profile (None: of all), with numbers below `before`."""
        numbers = audit_entries.c.number
        query = select(audit_entries).where(numbers < before).order_by(numbers.desc()).limit(limit)
        if namespace is not None:
            query = query.where(audit_entries.c.namespace == namespace)
        with read(self._engine) as connection:
            return [_entry(row) for row in connection.execute(query).mappings()]

    def version(self) -> int:
        """See `reviewer.GrantSource`."""
        with read(self._engine) as connection:
            return _version(connection)

    def load_grants(self, user: str) -> tuple[int, Grants]:
        """See `reviewer.GrantSource`."""
        owned = select(profiles.c.name).where(profiles.c.owner == user).order_by(profiles.c.created_us, profiles.c.name)
        shared = (
            select(contributors.c.namespace, contributors.c.role)
            .where(contributors.c.user == user)
            .order_by(contributors.c.created_us, contributors.c.namespace)
        )
        with read(self._engine) as connection:
            version = _version(connection)  # first: what is read after it is at least as new
            owned_names = list(connection.execute(owned).scalars())
            shared_rows = list(connection.execute(shared))
        roles: dict[str, Role] = {}
        for name, role in shared_rows:
            roles[name] = max(Role(role), roles.get(name, Role.VIEW))
        roles.update(dict.fromkeys(owned_names, Role.OWNER))
        default = next(iter(owned_names), "") or next((name for name, _ in shared_rows), "")
        return version, Grants(user, roles, default)

    def load_existence(self, name: str) -> tuple[int, bool]:
        """See `reviewer.GrantSource`."""
        with read(self._engine) as connection:
            return _version(connection), _exists(connection, name)


def _raise_version(connection: Connection) -> None:
    """Comes first in every change: the row lock it takes makes changes take turns, on every database."""
    connection.execute(update(versions).where(versions.c.id == 1).values(version=versions.c.version + 1))


def _version(connection: Connection) -> int:
    found: int = connection.execute(select(versions.c.version).where(versions.c.id == 1)).scalar_one()
    return found


def _exists(connection: Connection, name: str) -> bool:
    return connection.execute(select(profiles.c.name).where(profiles.c.name == name)).first() is not None


def _last_owner(connection: Connection, name: str) -> str | None:
    query = (
        select(audit_entries.c.user)
        .where(audit_entries.c.namespace == name, audit_entries.c.action == "profile.delete")
        .order_by(audit_entries.c.number.desc())
        .limit(1)
    )
    return connection.execute(query).scalar_one_or_none()


def _log(connection: Connection, entry: AuditEntry) -> None:
    row = dataclasses.asdict(entry)
    del row["number"]  # the database counts
    row["role"] = None if entry.role is None else int(entry.role)
    connection.execute(insert(audit_entries).values(row))


@contextmanager
def _conflict(kind: str, name: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise AlreadyExists(kind, name) from error


def _now_us() -> int:
    return time.time_ns() // 1000


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)


def _profile(row: Any) -> Profile:
    return Profile(
        name=row["name"],
        owner=row["owner"],
        uid=row["uid"],
        created_us=row["created_us"],
        labels=json.loads(row["labels"]),
        annotations=json.loads(row["annotations"]),
        spec=json.loads(row["spec"]),
    )


def _contributor(row: Any) -> Contributor:
    return Contributor(row["namespace"], row["user"], Role(row["role"]), row["created_us"])


def _entry(row: Any) -> AuditEntry:
    role = None if row["role"] is None else Role(row["role"])
    return AuditEntry(row["number"], row["at_us"], row["actor"], row["action"], row["namespace"], row["user"], role)
