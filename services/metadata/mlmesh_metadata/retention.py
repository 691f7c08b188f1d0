"""Retention: rules that say what may go, dry runs, and how these are carried out. See docs/decisions/0027."""

import datetime
import re
from collections.abc import Sequence

from mlmesh_kit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted

from mlmesh_metadata.filtering import parse_filter
from mlmesh_metadata.kinds import CONTEXT, KINDS
from mlmesh_metadata.reserved import is_deleted
from mlmesh_metadata.store import Session, Store
from mlmesh_metadata.store.retention import ItemRow, PlanRow, PolicyRow
from mlmesh_metadata.tombstones import tombstone_of

MAX_POLICIES = 100
MAX_NODES = 10_000
"""In one plan."""
MAX_LATEST = 10_000
MAX_FILTER_CHARACTERS = 10_000
MAX_AGE_MS = 1000 * 86_400_000 * 365
VALID_MS = 24 * 3_600_000
KEPT_MS = 30 * 86_400_000
"""So long after a plan has expired it can still be read."""
BATCH = 250
"""Nodes that are deleted in one transaction: others write in between."""
UNDONE, DELETED, CHANGED, USED, GONE = range(5)
"""Numbers of RetentionOutcome."""

_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
_BY_NUMBER = {kind.number: kind for kind in KINDS}


def policy_id_of(name: str, field: str) -> str:
    """Reads retentionPolicies/{policy}.

    Raises:
        InvalidArgument: It is none.
    """
    prefix, _, policy_id = name.partition("/")
    if prefix != "retentionPolicies":
        raise InvalidArgument("must be retentionPolicies/{policy}", field=field)
    return check_policy_id(policy_id, field)


def check_policy_id(policy_id: str, field: str) -> str:
    """Refuses what cannot be a policy's id.

    Raises:
        InvalidArgument: It cannot.
    """
    if not _ID.fullmatch(policy_id):
        message = "must be a lower-case letter, then up to 62 lower-case letters, digits and hyphens"
        raise InvalidArgument(message, field=field)
    return policy_id


def check_policy(policy: PolicyRow, field: str = "retention_policy") -> None:
    """Refuses a rule that is none.

    Args:
        policy: The rule.
        field: Where it is in the request.

    Raises:
        InvalidArgument: Names the field.
    """
    kind = _BY_NUMBER[policy.kind]
    if not 0 < len(policy.type) <= 255:
        raise InvalidArgument("is needed: the name of a type, at most 255 characters", field=f"{field}.type")
    if len(policy.filter) > MAX_FILTER_CHARACTERS:
        raise InvalidArgument(f"must be at most {MAX_FILTER_CHARACTERS} characters", field=f"{field}.filter")
    if policy.filter:
        parse_filter(policy.filter, kind, f"{field}.filter")
    if not 0 <= policy.older_than_ms <= MAX_AGE_MS:
        raise InvalidArgument("must be more than 0 and at most 1,000 years", field=f"{field}.older_than")
    if not 0 <= policy.keep_latest <= MAX_LATEST:
        raise InvalidArgument(f"must be 1 to {MAX_LATEST}, or 0 for none", field=f"{field}.keep_latest")
    if not policy.older_than_ms and not policy.keep_latest:
        message = "or keep_latest is needed: without them all nodes of the type would go"
        raise InvalidArgument(message, field=f"{field}.older_than")
    if policy.latest_in and (kind is CONTEXT or not policy.keep_latest or len(policy.latest_in) > 255):
        message = "must be the name of a type of contexts, for artifacts or executions, and go with keep_latest"
        raise InvalidArgument(message, field=f"{field}.latest_in")
    for name in ("type", "filter", "latest_in"):
        if "\0" in getattr(policy, name):
            raise InvalidArgument("must not have NUL characters", field=f"{field}.{name}")


def create_policy(session: Session, policy: PolicyRow) -> PolicyRow:
    """Stores a rule.

    Raises:
        InvalidArgument: It is none.
        AlreadyExists: There is one of this name.
        ResourceExhausted: There are 100.
    """
    check_policy(policy)
    known = session.retention.policies()
    if any(one.id == policy.id for one in known):
        raise AlreadyExists("retention policy", f"retentionPolicies/{policy.id}")
    if len(known) >= MAX_POLICIES:
        raise ResourceExhausted(f"there are {MAX_POLICIES} retention policies already; remove one first")
    session.retention.insert_policy(policy)
    return policy


def get_policy(session: Session, policy_id: str, *, lock: bool = False) -> PolicyRow:
    """Gives a rule.

    Raises:
        NotFound: There is none.
    """
    found = session.retention.policy(policy_id, lock=lock)
    if found is None:
        raise NotFound("retention policy", f"retentionPolicies/{policy_id}")
    return found


def make_plan(session: Session, policy_ids: Sequence[str], creator: str, now: int) -> PlanRow:
    """Finds what rules let go, and stores it.

    Args:
        session: Of a transaction that writes.
        policy_ids: Of the rules; none: all.
        creator: Who asks.
        now: Milliseconds since the epoch.

    Raises:
        NotFound: A rule does not exist.
        FailedPrecondition: There are no rules.
        InvalidArgument: The database cannot calculate a rule's filter.
    """
    wanted = [get_policy(session, policy_id) for policy_id in sorted(set(policy_ids))] or session.retention.policies()
    if not wanted:
        raise FailedPrecondition("there are no retention policies; make one first")
    session.retention.forget_plans(now - KEPT_MS)
    rows: dict[tuple[int, int], ItemRow] = {}
    truncated = False
    for policy in wanted:
        kind = _BY_NUMBER[policy.kind]
        expression = parse_filter(policy.filter, kind, "retention_policies") if policy.filter else None
        # What an earlier rule lets go is found again, so there must be room for it.
        found = session.retention.candidates(kind, policy, expression, now, MAX_NODES + len(rows) + 1)
        for node_id, name, updated in found:
            if (kind.number, node_id) in rows:
                continue
            if len(rows) >= MAX_NODES:
                truncated = True
                break
            rows[kind.number, node_id] = ItemRow(
                position=len(rows),
                kind=kind.number,
                node_id=node_id,
                type=policy.type,
                node_name=name,
                policy=policy.id,
                reason=_reason(policy, updated),
                include_used=policy.include_used,
                updated=updated,
                outcome=UNDONE,
            )
    plan_id = session.retention.insert_plan(creator, now, now + VALID_MS, truncated=truncated)
    session.retention.insert_items(plan_id, list(rows.values()))
    return get_plan(session, plan_id)


def get_plan(session: Session, plan_id: int, *, lock: bool = False) -> PlanRow:
    """Gives a plan.

    Raises:
        NotFound: There is none.
    """
    found = session.retention.plan(plan_id, lock=lock)
    if found is None:
        raise NotFound("retention plan", f"retentionPlans/{plan_id}")
    return found


def apply_plan(store: Store, plan_id: int, deleter: str, now: int) -> None:
    """Deletes what a plan says and may still go, in batches; what has its outcome already is passed over.

    Args:
        store: Where everything is.
        plan_id: Of the plan.
        deleter: Who says so.
        now: Milliseconds since the epoch.

    Raises:
        NotFound: There is no such plan.
        FailedPrecondition: It has expired.
    """

    def change(session: Session) -> bool:
        plan = get_plan(session, plan_id, lock=True)
        if plan.apply_time is not None:
            return False
        if plan.expire_time < now:
            raise FailedPrecondition(f"retentionPlans/{plan_id} has expired; plan again")
        batch = session.retention.items(plan_id, -1, BATCH, outcome=UNDONE)
        if not batch:
            session.retention.set_applied(plan_id, now)
            return False
        _apply(session, plan_id, batch, deleter, now)
        return True

    while store.write(change):
        pass


def _apply(session: Session, plan_id: int, batch: Sequence[ItemRow], deleter: str, now: int) -> None:
    outcomes = []
    for kind in KINDS:
        own = [item for item in batch if item.kind == kind.number]
        nodes = {node.id: node for node in session.nodes.by_ids(kind, [item.node_id for item in own])}
        unused = session.retention.unused(kind, nodes)
        going = []
        for item in own:
            node = nodes.get(item.node_id)
            if node is None or is_deleted(node):
                outcome = GONE
            elif node.last_update_time_since_epoch != item.updated:
                outcome = CHANGED
            elif not item.include_used and item.node_id not in unused:
                outcome = USED
            else:
                outcome = DELETED
                going.append(item)
            outcomes.append((item.position, outcome))
        buried = [nodes[item.node_id] for item in going]
        rows = [
            tombstone_of(kind, node, f"retentionPolicies/{item.policy}: {item.reason}", deleter, now)
            for node, item in zip(buried, going, strict=True)
        ]
        session.tombstones.bury(kind, buried, rows, now)
    session.retention.set_outcomes(plan_id, outcomes)


def _reason(policy: PolicyRow, updated: int) -> str:
    parts = []
    if policy.older_than_ms:
        moment = datetime.datetime.fromtimestamp(updated / 1000, datetime.UTC)
        parts.append(f"not changed since {moment:%Y-%m-%d %H:%M} UTC")
    if policy.keep_latest:
        within = f" of its {policy.latest_in}" if policy.latest_in else ""
        parts.append(f"not among the {policy.keep_latest} newest{within}")
    return ", ".join(parts)
