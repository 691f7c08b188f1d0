"""InferenceServices and their revisions in the database."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from mlmesh_kit.database import read, run_transaction
from mlmesh_kit.errors import AlreadyExists, FailedPrecondition, NotFound

from mlmesh_serving.manifest.template import canary_of, promoted, template_of
from mlmesh_serving.tables import INFERENCE_SERVICES as SERVICES
from mlmesh_serving.tables import REVISIONS
from mlmesh_serving.traffic.names import revision_name
from mlmesh_serving.traffic.plan import RolloutState
from mlmesh_serving.traffic.settings import LATEST, WHOLE, Target, Traffic, traffic_from_json, traffic_to_json

REVISIONS_KEPT = 10


@dataclass(frozen=True, slots=True)
class StoredService:
    """An InferenceService as it is kept.

    Attributes:
        revision: Number of the newest revision, from 1.
        unloaded: A client has unloaded the model; it stays so until it is loaded or changed.
        traffic: What an operator has said of its requests.
        rollout: What is remembered of its traffic.
    """

    namespace: str
    name: str
    manifest: Mapping[str, Any]
    revision: int
    unloaded: bool
    traffic: Traffic = field(default_factory=Traffic)
    rollout: RolloutState = field(default_factory=lambda: RolloutState(0))

    @property
    def canary_percent(self) -> int | None:
        """canaryTrafficPercent of the manifest."""
        return canary_of(self.manifest)


@dataclass(frozen=True, slots=True)
class StoredRevision:
    """What was served at a time; it never changes.

    Attributes:
        number: From 1, never given twice.
        manifest: That it was made of.
        created_ms: When it was made, milliseconds since the epoch.
    """

    namespace: str
    name: str
    number: int
    manifest: Mapping[str, Any]
    created_ms: int


class ServingStore:
    """Reads and writes InferenceServices.

    Args:
        engine: Of the service's database.
        kept: Newest revisions of each InferenceService that are kept, beside those that get requests.
    """

    def __init__(self, engine: sa.Engine, kept: int = REVISIONS_KEPT) -> None:
        self._engine = engine
        self._kept = kept

    def create(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> StoredService:
        """Adds one, with revision 1; a name that was used before goes on counting.

        Raises:
            AlreadyExists: There is one of this name.
        """

        def write(connection: sa.Connection) -> StoredService:
            revision = self._next_revision(connection, namespace, name)
            values = {"namespace": namespace, "name": name, "manifest": json.dumps(manifest), "revision": revision}
            connection.execute(sa.insert(SERVICES).values(**values, unloaded=False))
            connection.execute(sa.insert(REVISIONS).values(**values, created_ms=time.time_ns() // 1_000_000))
            return _get(connection, namespace, name)

        try:
            return run_transaction(self._engine, write)
        except sa.exc.IntegrityError as error:
            raise AlreadyExists("inferenceservice", name) from error

    def update(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> StoredService:
        """Takes a new manifest; where what is served changes, as a new revision (see `template_of`).

        A new revision, or another canary percentage, gives the shares of requests back to the manifest.

        Raises:
            NotFound: There is none of this name.
        """

        def write(connection: sa.Connection) -> StoredService:
            old = _get(connection, namespace, name)
            values: dict[str, Any] = {"manifest": json.dumps(manifest), "unloaded": False}
            changes = template_of(manifest) != template_of(self._newest(connection, old).manifest)
            if changes or canary_of(manifest) != old.canary_percent:
                values["traffic"] = _dumped(Traffic((), old.traffic.rules, old.traffic.sticky, old.traffic.shadow))
            if changes:
                values["revision"] = self._next_revision(connection, namespace, name)
                connection.execute(
                    sa.insert(REVISIONS).values(
                        namespace=namespace,
                        name=name,
                        revision=values["revision"],
                        manifest=values["manifest"],
                        created_ms=time.time_ns() // 1_000_000,
                    )
                )
            connection.execute(sa.update(SERVICES).where(_is(namespace, name)).values(**values))
            stored = _get(connection, namespace, name)
            self._collect(connection, stored)
            return stored

        return run_transaction(self._engine, write)

    def set_traffic(self, namespace: str, name: str, traffic: Traffic) -> StoredService:
        """Keeps what an operator has said of the requests.

        Raises:
            NotFound: There is none of this name, or no revision of a number that is named.
        """
        return self._change_traffic(namespace, name, lambda stored: (traffic, stored.manifest))

    def promote(self, namespace: str, name: str, revision: int = LATEST) -> StoredService:
        """Gives all requests to a revision; for the newest that is what a manifest without a canary percentage says.

        Raises:
            NotFound: There is none of this name, or no such revision.
        """

        def change(stored: StoredService) -> tuple[Traffic, Mapping[str, Any]]:
            newest = revision in {LATEST, stored.revision}
            old = stored.traffic
            targets = () if newest else (Target(revision, WHOLE),)
            return Traffic(targets, old.rules, old.sticky, old.shadow), promoted(stored.manifest)

        return self._change_traffic(namespace, name, change)

    def roll_back(self, namespace: str, name: str, revision: int = 0) -> StoredService:
        """Gives all requests to an earlier revision, and takes header rules and the shadow away.

        Args:
            namespace: Of the InferenceService.
            name: Of the InferenceService.
            revision: 0: of a canary, the revision that was rolled out before it; else the one rolled out before that.

        Raises:
            NotFound: There is none of this name, or no such revision.
            FailedPrecondition: There is no earlier revision.
        """

        def change(stored: StoredService) -> tuple[Traffic, Mapping[str, Any]]:
            target = revision or _earlier(stored)
            return Traffic((Target(target, WHOLE),), sticky=stored.traffic.sticky), stored.manifest

        return self._change_traffic(namespace, name, change)

    def put_back(self, before: StoredService, after: StoredService) -> StoredService:
        """Undoes a change of traffic, unless there was another meanwhile.

        Args:
            before: What was.
            after: What it was changed to.

        Raises:
            NotFound: There is none of this name.
        """

        def change(stored: StoredService) -> tuple[Traffic, Mapping[str, Any]]:
            untouched = (stored.traffic, stored.manifest) == (after.traffic, after.manifest)
            back = before if untouched else stored
            return back.traffic, back.manifest

        return self._change_traffic(before.namespace, before.name, change)

    def record_rollout(self, namespace: str, name: str, state: RolloutState) -> None:
        """Remembers how far a rollout has come; nothing happens if the InferenceService is gone."""

        def write(connection: sa.Connection) -> None:
            values = {
                "rolled_out": state.rolled_out,
                "previous": state.previous,
                "buckets": json.dumps(state.buckets) if state.buckets else None,
            }
            connection.execute(sa.update(SERVICES).where(_is(namespace, name)).values(**values))

        run_transaction(self._engine, write)

    def set_unloaded(self, namespace: str, name: str, unloaded: bool) -> StoredService:
        """Remembers that a model was loaded or unloaded.

        Raises:
            NotFound: There is none of this name.
        """

        def write(connection: sa.Connection) -> StoredService:
            connection.execute(sa.update(SERVICES).where(_is(namespace, name)).values(unloaded=unloaded))
            return _get(connection, namespace, name)

        return run_transaction(self._engine, write)

    def delete(self, namespace: str, name: str) -> None:
        """Removes one; its newest revision stays, since numbers are never given twice.

        Raises:
            NotFound: There is none of this name.
        """

        def write(connection: sa.Connection) -> None:
            old = _get(connection, namespace, name)
            connection.execute(sa.delete(SERVICES).where(_is(namespace, name)))
            connection.execute(sa.delete(REVISIONS).where(_of(namespace, name), REVISIONS.c.revision != old.revision))

        run_transaction(self._engine, write)

    def get(self, namespace: str, name: str) -> StoredService:
        """Reads one.

        Raises:
            NotFound: There is none of this name.
        """
        with read(self._engine) as connection:
            return _get(connection, namespace, name)

    def list(self) -> list[StoredService]:
        """Reads all, by namespace and name."""
        with read(self._engine) as connection:
            rows = connection.execute(sa.select(SERVICES).order_by(SERVICES.c.namespace, SERVICES.c.name))
            return [_stored(row) for row in rows]

    def revision(self, namespace: str, name: str, number: int) -> StoredRevision:
        """Reads a revision.

        Raises:
            NotFound: There is no such InferenceService, or no such revision of it.
        """
        with read(self._engine) as connection:
            _get(connection, namespace, name)
            return self._revision(connection, namespace, name, number)

    def revisions(
        self, namespace: str, name: str, *, before: int | None = None, most: int = 100
    ) -> Sequence[StoredRevision]:
        """Reads revisions, the newest first.

        Args:
            namespace: Of the InferenceService.
            name: Of the InferenceService.
            before: Only those with lower numbers; None: all.
            most: So many at most.

        Raises:
            NotFound: There is no such InferenceService.
        """
        with read(self._engine) as connection:
            _get(connection, namespace, name)
            query = sa.select(REVISIONS).where(_of(namespace, name)).order_by(REVISIONS.c.revision.desc()).limit(most)
            if before is not None:
                query = query.where(REVISIONS.c.revision < before)
            return [_made(row) for row in connection.execute(query)]

    def _change_traffic(
        self, namespace: str, name: str, change: Callable[[StoredService], tuple[Traffic, Mapping[str, Any]]]
    ) -> StoredService:
        def write(connection: sa.Connection) -> StoredService:
            traffic, manifest = change(_get(connection, namespace, name))
            for number in sorted(traffic.revisions() - {LATEST}):
                self._revision(connection, namespace, name, number)
            values = {"traffic": _dumped(traffic), "manifest": json.dumps(manifest)}
            connection.execute(sa.update(SERVICES).where(_is(namespace, name)).values(**values))
            return _get(connection, namespace, name)

        return run_transaction(self._engine, write)

    def _collect(self, connection: sa.Connection, stored: StoredService) -> None:
        """Removes revisions that nobody needs: neither of the newest, nor asked for, nor one to roll back to."""
        mine = _of(stored.namespace, stored.name)
        newest = connection.scalars(
            sa.select(REVISIONS.c.revision).where(mine).order_by(REVISIONS.c.revision.desc()).limit(self._kept)
        )
        state = stored.rollout
        needed = {*newest, stored.revision, state.rolled_out, state.previous, *stored.traffic.revisions()}
        connection.execute(sa.delete(REVISIONS).where(mine, REVISIONS.c.revision.not_in(needed)))

    def _newest(self, connection: sa.Connection, stored: StoredService) -> StoredRevision:
        return self._revision(connection, stored.namespace, stored.name, stored.revision)

    @staticmethod
    def _revision(connection: sa.Connection, namespace: str, name: str, number: int) -> StoredRevision:
        row = connection.execute(
            sa.select(REVISIONS).where(_of(namespace, name), REVISIONS.c.revision == number)
        ).first()
        if row is None:
            raise NotFound("revision", revision_name(name, number))
        return _made(row)

    @staticmethod
    def _next_revision(connection: sa.Connection, namespace: str, name: str) -> int:
        last = connection.scalar(sa.select(sa.func.max(REVISIONS.c.revision)).where(_of(namespace, name)))
        return int(last or 0) + 1


def _earlier(stored: StoredService) -> int:
    state = stored.rollout
    spread = any(0 < target.percent < WHOLE for target in stored.traffic.targets)
    on_the_way = not stored.traffic.targets and state.rolled_out != stored.revision
    earlier = state.rolled_out if spread or on_the_way else state.previous
    if not earlier:
        raise FailedPrecondition(
            f"inferenceservice {stored.name!r} has no earlier revision that got all requests; name a revision"
        )
    return earlier


def _is(namespace: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(SERVICES.c.namespace == namespace, SERVICES.c.name == name)


def _of(namespace: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(REVISIONS.c.namespace == namespace, REVISIONS.c.name == name)


def _get(connection: sa.Connection, namespace: str, name: str) -> StoredService:
    row = connection.execute(sa.select(SERVICES).where(_is(namespace, name))).first()
    if row is None:
        raise NotFound("inferenceservice", name)
    return _stored(row)


def _dumped(traffic: Traffic) -> str:
    return json.dumps(traffic_to_json(traffic))


def _stored(row: Any) -> StoredService:
    buckets = tuple(json.loads(row.buckets)) if row.buckets else ()
    return StoredService(
        namespace=row.namespace,
        name=row.name,
        manifest=json.loads(row.manifest),
        revision=row.revision,
        unloaded=bool(row.unloaded),
        traffic=traffic_from_json(json.loads(row.traffic)) if row.traffic else Traffic(),
        rollout=RolloutState(row.revision, row.rolled_out, row.previous, buckets),
    )


def _made(row: Any) -> StoredRevision:
    return StoredRevision(row.namespace, row.name, row.revision, json.loads(row.manifest), row.created_ms)
