"""Whatever is done in whatever order, the store agrees with a model, and the audit log replays to what is in force."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.errors import AlreadyExists, NotFound
from mlmesh_profile.profile import AuditEntry, Contributor, Profile
from mlmesh_profile.role import Role
from mlmesh_profile.store import ProfileStore

NAMES = ["a", "b"]
USERS = ["x@x.org", "y@x.org", "Y@x.org"]
ROLES = [Role.VIEW, Role.EDIT, Role.ADMIN]

names, users = st.sampled_from(NAMES), st.sampled_from(USERS)
operations = st.one_of(
    st.tuples(st.just("make"), names, users),
    st.tuples(st.just("drop"), names),
    st.tuples(st.just("share"), names, users, st.sampled_from(ROLES)),
    st.tuples(st.just("unshare"), names, users, st.sampled_from(ROLES)),
)


class Model:
    """What ought to be."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.last_owners: dict[str, str] = {}
        self.roles: set[tuple[str, str, Role]] = set()

    def expect(self, operation: tuple[Any, ...]) -> bool:
        """Applies the operation; tells whether it ought to succeed."""
        kind, name, *rest = operation
        if kind == "make":
            if name in self.owners or self.last_owners.get(name, rest[0]) != rest[0]:
                return False
            self.owners[name] = rest[0]
        elif kind == "drop":
            if name not in self.owners:
                return False
            self.last_owners[name] = self.owners.pop(name)
            self.roles = {one for one in self.roles if one[0] != name}
        elif kind == "share":
            if name not in self.owners or self.owners[name] == rest[0] or (name, *rest) in self.roles:
                return False
            self.roles.add((name, *rest))
        else:
            if (name, *rest) not in self.roles:
                return False
            self.roles.remove((name, *rest))
        return True


def _apply(store: ProfileStore, operation: tuple[Any, ...], uid: str) -> bool:
    kind, name, *rest = operation
    try:
        if kind == "make":
            store.create_profile(Profile(name, rest[0], uid=uid), "z", may_reuse=False)
        elif kind == "drop":
            store.delete_profile(name, "z")
        elif kind == "share":
            store.create_contributor(Contributor(name, *rest), "z")
        else:
            store.delete_contributor(Contributor(name, *rest), "z")
    except (AlreadyExists, NotFound):
        return False
    return True


def _replay(entries: list[AuditEntry]) -> tuple[dict[str, str], set[tuple[str, str, Role | None]]]:
    owners: dict[str, str] = {}
    roles: set[tuple[str, str, Role | None]] = set()
    for entry in entries:
        if entry.action == "profile.create":
            owners[entry.namespace] = entry.user
        elif entry.action == "profile.delete":
            del owners[entry.namespace]
            roles = {one for one in roles if one[0] != entry.namespace}
        elif entry.action == "contributor.create":
            roles.add((entry.namespace, entry.user, entry.role))
        else:
            roles.remove((entry.namespace, entry.user, entry.role))
    return owners, roles


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(operations, max_size=25))
def test_the_store_agrees_with_the_model(tmp_path: Path, steps: list[tuple[Any, ...]]) -> None:
    database = tmp_path / f"{len(list(tmp_path.glob('*.db')))}.db"
    engine = create_engine(f"sqlite:///{database}")
    migrate(engine, "mlmesh_profile")
    store, model = ProfileStore(engine), Model()
    version, done = store.version(), 0
    for number, step in enumerate(steps):
        ought = model.expect(step)
        assert _apply(store, step, str(number)) == ought, step
        done += ought
        assert store.version() == version + done  # only what changes something raises it
    for user in USERS:
        wanted = {name: role for name, _, role in sorted(model.roles, key=lambda one: one[2]) if _ == user}
        wanted |= {name: Role.OWNER for name, owner in model.owners.items() if owner == user}
        assert store.load_grants(user)[1].roles == wanted
    bindings = {(one.namespace, one.user, one.role) for one in store.list_bindings(limit=1000)}
    assert bindings == model.roles | {(name, owner, Role.OWNER) for name, owner in model.owners.items()}
    assert _replay(list(reversed(store.list_audit(None, 1000)))) == (model.owners, model.roles)
    engine.dispose()
