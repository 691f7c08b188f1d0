"""Retention policies, the nodes that they let go, and plans."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from mlmesh_kit.errors import AlreadyExists, InvalidArgument
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.filtering import Expression
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, INPUTS, OUTPUTS, Kind
from mlmesh_metadata.own_tables import retention_items as items
from mlmesh_metadata.own_tables import retention_plans as plans
from mlmesh_metadata.own_tables import retention_policies as policies
from mlmesh_metadata.store.filters import condition
from mlmesh_metadata.store.rows import chunks, tables_of
from mlmesh_metadata.store.tombstones import not_deleted
from mlmesh_metadata.tables import associations, attributions, contexts, events, parent_contexts, types


class PolicyRow(NamedTuple):
    """A rule; see RetentionPolicy. 0 and "" are what is not said."""

    id: str
    kind: int
    type: str
    filter: str
    older_than_ms: int
    keep_latest: int
    latest_in: str
    include_used: bool
    creator: str
    create_time: int
    update_time: int


class PlanRow(NamedTuple):
    """A dry run. Times are in milliseconds since the epoch; `apply_time` is None until all is done."""

    id: int
    creator: str
    create_time: int
    expire_time: int
    apply_time: int | None
    truncated: bool


class ItemRow(NamedTuple):
    """A node of a dry run.

    Args:
        position: In the plan, from 0.
        kind: Number of the node's kind.
        node_id: Its id.
        type: Name of its type.
        node_name: What it is called.
        policy: Id of the rule that lets it go.
        reason: Why that rule does.
        include_used: Whether it may go even if it is used.
        updated: Its last_update_time_since_epoch then.
        outcome: A number of RetentionOutcome.
    """

    position: int
    kind: int
    node_id: int
    type: str
    node_name: str
    policy: str
    reason: str
    include_used: bool
    updated: int
    outcome: int


class RetentionRows:
    """Policies and plans, in one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def policies(self) -> list[PolicyRow]:
        """Gives all policies, by id."""
        return [PolicyRow(*row) for row in self._connection.execute(sa.select(policies).order_by(policies.c.id))]

    def policy(self, policy_id: str, *, lock: bool = False) -> PolicyRow | None:
        """Gives a policy.

        Args:
            policy_id: Its id.
            lock: Keep others from changing it until the transaction ends.
        """
        query = sa.select(policies).where(policies.c.id == policy_id)
        row = self._connection.execute(query.with_for_update() if lock else query).first()
        return PolicyRow(*row) if row else None

    def insert_policy(self, policy: PolicyRow) -> None:
        """Stores a policy.

        Raises:
            AlreadyExists: There is one of this id.
        """
        try:
            self._connection.execute(sa.insert(policies).values(policy._asdict()))
        except sa.exc.IntegrityError as error:
            raise AlreadyExists("retention policy", f"retentionPolicies/{policy.id}") from error

    def update_policy(self, policy: PolicyRow) -> None:
        """Changes a policy."""
        self._connection.execute(sa.update(policies).where(policies.c.id == policy.id).values(policy._asdict()))

    def delete_policy(self, policy_id: str) -> bool:
        """Removes a policy; tells whether there was one."""
        return bool(self._connection.execute(sa.delete(policies).where(policies.c.id == policy_id)).rowcount)

    def candidates(
        self, kind: Kind, policy: PolicyRow, wanted: Expression | None, now: int, limit: int
    ) -> list[tuple[int, str, int]]:
        """Gives the nodes that a policy lets go: id, name, time of the last change; by id.

        Args:
            kind: The policy's.
            policy: The rule.
            wanted: Its filter, parsed.
            now: Milliseconds since the epoch.
            limit: How many at most.

        Raises:
            InvalidArgument: The database cannot calculate what the filter says.
        """
        c = tables_of(kind).nodes.c
        of_type = [c.type_id.in_(_types_named(kind, policy.type)), not_deleted(kind, c.id)]
        if wanted is not None:
            of_type.append(condition(self._connection, kind, wanted))
        query = sa.select(c.id, c.name, c.last_update_time_since_epoch).where(*of_type)
        if policy.older_than_ms:
            query = query.where(c.last_update_time_since_epoch < now - policy.older_than_ms)
        if policy.keep_latest:
            latest = _latest(kind, policy, of_type)
            query = query.where(c.id.not_in(sa.select(latest.c.id).where(latest.c.place <= policy.keep_latest)))
        if not policy.include_used:
            query = query.where(_unused(kind))
        try:
            found = self._connection.execute(query.order_by(c.id).limit(limit)).all()
        except sa.exc.DataError as error:
            message = f"the filter of retentionPolicies/{policy.id} cannot be calculated"
            raise InvalidArgument(message, field="retention_policies") from error
        return [(row[0], row[1] or "", row[2]) for row in found]

    def unused(self, kind: Kind, ids: Collection[int]) -> set[int]:
        """Gives those of some nodes that nothing that is not deleted hangs on."""
        c = tables_of(kind).nodes.c
        return {
            row[0]
            for some in chunks(sorted(ids))
            for row in self._connection.execute(sa.select(c.id).where(c.id.in_(some), _unused(kind)))
        }

    def insert_plan(self, creator: str, now: int, expire_time: int, *, truncated: bool) -> int:
        """Stores a plan; gives its id."""
        values = {"creator": creator, "create_time": now, "expire_time": expire_time, "truncated": truncated}
        result = self._connection.execute(sa.insert(plans).values(values))
        assert result.inserted_primary_key is not None
        return int(result.inserted_primary_key[0])

    def insert_items(self, plan_id: int, rows: Sequence[ItemRow]) -> None:
        """Stores a plan's nodes."""
        if rows:
            self._connection.execute(sa.insert(items), [{"plan_id": plan_id, **row._asdict()} for row in rows])

    def plan(self, plan_id: int, *, lock: bool = False) -> PlanRow | None:
        """Gives a plan.

        Args:
            plan_id: Its id.
            lock: Keep others from applying it until the transaction ends.
        """
        query = sa.select(plans).where(plans.c.id == plan_id)
        row = self._connection.execute(query.with_for_update() if lock else query).first()
        return PlanRow(*row) if row else None

    def counts(self, plan_id: int) -> dict[int, int]:
        """Says how many items of a plan have which outcome."""
        query = sa.select(items.c.outcome, sa.func.count()).where(items.c.plan_id == plan_id).group_by(items.c.outcome)
        return {row[0]: int(row[1]) for row in self._connection.execute(query)}

    def items(self, plan_id: int, after: int, limit: int, *, outcome: int | None = None) -> list[ItemRow]:
        """Gives items of a plan, in order.

        Args:
            plan_id: Of the plan.
            after: Only those behind this position; -1: all.
            limit: How many at most.
            outcome: Only those with this outcome; None: all.
        """
        columns = [items.c[name] for name in ItemRow._fields]
        query = sa.select(*columns).where(items.c.plan_id == plan_id, items.c.position > after)
        if outcome is not None:
            query = query.where(items.c.outcome == outcome)
        return [ItemRow(*row) for row in self._connection.execute(query.order_by(items.c.position).limit(limit))]

    def set_outcomes(self, plan_id: int, outcomes: Sequence[tuple[int, int]]) -> None:
        """Says what became of items, by position."""
        change = sa.update(items).where(items.c.plan_id == plan_id, items.c.position == sa.bindparam("at"))
        rows = [{"at": position, "became": outcome} for position, outcome in outcomes]
        self._connection.execute(change.values(outcome=sa.bindparam("became")), rows)

    def set_applied(self, plan_id: int, now: int) -> None:
        """Says that all items of a plan have their outcome."""
        self._connection.execute(sa.update(plans).where(plans.c.id == plan_id).values(apply_time=now))

    def forget_plans(self, before: int) -> None:
        """Removes plans that expired before a time (milliseconds since the epoch)."""
        old = list(self._connection.scalars(sa.select(plans.c.id).where(plans.c.expire_time < before)))
        for some in chunks(old):
            self._connection.execute(sa.delete(items).where(items.c.plan_id.in_(some)))
            self._connection.execute(sa.delete(plans).where(plans.c.id.in_(some)))


def _types_named(kind: Kind, name: str) -> sa.Select[Any]:
    """Gives the ids of all versions of a type."""
    return sa.select(types.c.id).where(types.c.type_kind == kind.number, types.c.name == name)


def _latest(kind: Kind, policy: PolicyRow, of_type: Sequence[sa.ColumnElement[bool]]) -> sa.Subquery:
    """Gives ids of nodes with their places, the newest first: among all, or in each context of a type."""
    owned = tables_of(kind)
    c = owned.nodes.c
    newest = (c.create_time_since_epoch.desc(), c.id.desc())
    if not policy.latest_in:
        return sa.select(c.id, sa.func.row_number().over(order_by=newest).label("place")).where(*of_type).subquery()
    assert owned.members is not None
    typed = sa.select(contexts.c.id).where(contexts.c.type_id.in_(_types_named(CONTEXT, policy.latest_in)))
    within = (
        sa.select(owned.member_column.label("node_id"), owned.members.c.context_id)
        .where(owned.members.c.context_id.in_(typed))
        .subquery()
    )
    place = sa.func.row_number().over(partition_by=within.c.context_id, order_by=newest).label("place")
    joined = owned.nodes.outerjoin(within, within.c.node_id == c.id)
    return sa.select(c.id, place).select_from(joined).where(*of_type).subquery()


def _unused(kind: Kind) -> sa.ColumnElement[bool]:
    """Gives the condition that nothing that is not deleted hangs on a node.

    What hangs on it: of an artifact the executions that used it, of an execution the artifacts that it made (and what
    it has yet to do), of a context its members and children.
    """
    node_id = tables_of(kind).nodes.c.id
    if kind is ARTIFACT:
        return ~_linked(
            events.c.artifact_id == node_id,
            events.c.type.in_(sorted(INPUTS)),
            not_deleted(EXECUTION, events.c.execution_id),
        )
    if kind is EXECUTION:
        state = tables_of(kind).nodes.c.last_known_state
        unfinished = state.in_([mlpb.Execution.NEW, mlpb.Execution.RUNNING])
        makes = _linked(
            events.c.execution_id == node_id,
            events.c.type.in_(sorted(OUTPUTS)),
            not_deleted(ARTIFACT, events.c.artifact_id),
        )
        return sa.and_(sa.or_(state.is_(None), ~unfinished), ~makes)
    return sa.and_(
        ~_linked(attributions.c.context_id == node_id, not_deleted(ARTIFACT, attributions.c.artifact_id)),
        ~_linked(associations.c.context_id == node_id, not_deleted(EXECUTION, associations.c.execution_id)),
        ~_linked(parent_contexts.c.parent_context_id == node_id, not_deleted(CONTEXT, parent_contexts.c.context_id)),
    )


def _linked(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return sa.select(sa.literal(1)).where(*conditions).exists()
