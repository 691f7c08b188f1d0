"""mlmesh.metadata.v1.RetentionService."""

import re
from typing import Any

import grpc
from google.protobuf import duration_pb2, empty_pb2
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.identity import current_caller
from mlmesh_kit.paging import decode_page_token, encode_page_token
from mlmesh_protos.mlmesh.metadata.v1 import retention_pb2, retention_pb2_grpc, tombstone_pb2

from mlmesh_metadata.clock import now_ms
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, KINDS
from mlmesh_metadata.retention import (
    DELETED,
    UNDONE,
    apply_plan,
    check_policy,
    check_policy_id,
    create_policy,
    get_plan,
    get_policy,
    make_plan,
    policy_id_of,
)
from mlmesh_metadata.store import Session, Store
from mlmesh_metadata.store.retention import PlanRow, PolicyRow
from mlmesh_metadata.store.tombstones import TombstoneRow
from mlmesh_metadata.tombstones import check_deletion, delete_nodes, tombstone_message, tombstone_of

_PLAN = re.compile(r"retentionPlans/([1-9][0-9]{0,8})")
_MAX_PAGE = 1000
_DEFAULT_PAGE = 100
_BY_NAME = {kind.name: kind for kind in KINDS}
_NAMES = {kind.number: kind.name for kind in KINDS}
_GIVEN = ("node_kind", "type", "filter", "older_than", "keep_latest", "latest_in", "include_used")


class RetentionServicer(retention_pb2_grpc.RetentionServiceServicer):
    """Deletes by id and by rules."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def DeleteNodes(
        self, request: tombstone_pb2.DeleteNodesRequest, context: grpc.ServicerContext
    ) -> tombstone_pb2.DeleteNodesResponse:
        ids = {
            ARTIFACT: set(request.artifact_ids),
            EXECUTION: set(request.execution_ids),
            CONTEXT: set(request.context_ids),
        }
        if request.validate_only:
            with self._store.read() as session:
                found = check_deletion(session, ids, request.reason)
                known = [row for kind in KINDS for _, row in sorted(session.tombstones.of(kind, ids[kind]).items())]
                deleted = {(row.kind, row.node_id): row for row in known}
                rows = [
                    deleted.get((kind.number, node.id), tombstone_of(kind, node, request.reason, "", 0))
                    for kind, nodes in found.items()
                    for node in nodes
                ]
                return tombstone_pb2.DeleteNodesResponse(tombstones=_tombstones(session, rows))
        now, deleter = now_ms(), current_caller().user

        def change(session: Session) -> tombstone_pb2.DeleteNodesResponse:
            rows = delete_nodes(session, ids, request.reason, deleter, now)
            return tombstone_pb2.DeleteNodesResponse(tombstones=_tombstones(session, rows))

        return self._store.write(change)

    def ListTombstones(
        self, request: tombstone_pb2.ListTombstonesRequest, context: grpc.ServicerContext
    ) -> tombstone_pb2.ListTombstonesResponse:
        size = _page_size(request.page_size, 100)
        before = _position(request.page_token, "tombstones")
        with self._store.read() as session:
            found = session.tombstones.page(size + 1, before)
            shown = _tombstones(session, [row for _, row in found[:size]])
        answer = tombstone_pb2.ListTombstonesResponse(tombstones=shown)
        if len(found) > size:
            answer.next_page_token = encode_page_token(found[size - 1][0], "tombstones")
        return answer

    def CreateRetentionPolicy(
        self, request: retention_pb2.CreateRetentionPolicyRequest, context: grpc.ServicerContext
    ) -> retention_pb2.RetentionPolicy:
        policy_id = check_policy_id(request.retention_policy_id, "retention_policy_id")
        policy = _row(policy_id, request.retention_policy, current_caller().user, now_ms())
        return _policy(self._store.write(lambda session: create_policy(session, policy)))

    def GetRetentionPolicy(
        self, request: retention_pb2.GetRetentionPolicyRequest, context: grpc.ServicerContext
    ) -> retention_pb2.RetentionPolicy:
        policy_id = policy_id_of(request.name, "name")
        with self._store.read() as session:
            return _policy(get_policy(session, policy_id))

    def ListRetentionPolicies(
        self, request: retention_pb2.ListRetentionPoliciesRequest, context: grpc.ServicerContext
    ) -> retention_pb2.ListRetentionPoliciesResponse:
        with self._store.read() as session:
            found = session.retention.policies()
        return retention_pb2.ListRetentionPoliciesResponse(retention_policies=[_policy(row) for row in found])

    def UpdateRetentionPolicy(
        self, request: retention_pb2.UpdateRetentionPolicyRequest, context: grpc.ServicerContext
    ) -> retention_pb2.RetentionPolicy:
        policy_id = policy_id_of(request.retention_policy.name, "retention_policy.name")
        for index, path in enumerate(request.update_mask.paths):
            if path not in _GIVEN:
                raise InvalidArgument(f"must be one of {', '.join(_GIVEN)}", field=f"update_mask.paths[{index}]")
        now, user = now_ms(), current_caller().user

        def change(session: Session) -> PolicyRow:
            if request.allow_missing and session.retention.policy(policy_id) is None:
                return create_policy(session, _row(policy_id, request.retention_policy, user, now))
            stored = get_policy(session, policy_id, lock=True)
            wanted = request.retention_policy
            if request.update_mask.paths:
                wanted = _policy(stored)
                for path in request.update_mask.paths:
                    wanted.ClearField(path)  # type: ignore[arg-type]
                    part = retention_pb2.RetentionPolicy()
                    part.CopyFrom(request.retention_policy)
                    for other in set(_FIELDS) - {path}:
                        part.ClearField(other)  # type: ignore[arg-type]
                    wanted.MergeFrom(part)
            row = _row(policy_id, wanted, stored.creator, now)._replace(create_time=stored.create_time)
            check_policy(row)
            session.retention.update_policy(row)
            return row

        return _policy(self._store.write(change))

    def DeleteRetentionPolicy(
        self, request: retention_pb2.DeleteRetentionPolicyRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        policy_id = policy_id_of(request.name, "name")

        def change(session: Session) -> None:
            get_policy(session, policy_id)
            session.retention.delete_policy(policy_id)

        self._store.write(change)
        return empty_pb2.Empty()

    def PlanRetention(
        self, request: retention_pb2.PlanRetentionRequest, context: grpc.ServicerContext
    ) -> retention_pb2.RetentionPlan:
        ids = [
            policy_id_of(name, f"retention_policies[{index}]") for index, name in enumerate(request.retention_policies)
        ]
        now, creator = now_ms(), current_caller().user
        return self._store.write(lambda session: _plan(session, make_plan(session, ids, creator, now)))

    def GetRetentionPlan(
        self, request: retention_pb2.GetRetentionPlanRequest, context: grpc.ServicerContext
    ) -> retention_pb2.RetentionPlan:
        plan_id = _plan_id(request.name, "name")
        with self._store.read() as session:
            return _plan(session, get_plan(session, plan_id))

    def ListRetentionItems(
        self, request: retention_pb2.ListRetentionItemsRequest, context: grpc.ServicerContext
    ) -> retention_pb2.ListRetentionItemsResponse:
        plan_id = _plan_id(request.parent, "parent")
        size = _page_size(request.page_size, _MAX_PAGE)
        after = _position(request.page_token, request.parent)
        with self._store.read() as session:
            get_plan(session, plan_id)
            found = session.retention.items(plan_id, -1 if after is None else after, size + 1)
        answer = retention_pb2.ListRetentionItemsResponse()
        for item in found[:size]:
            answer.retention_items.add(
                node_kind=_NAMES[item.kind],
                node_id=item.node_id,
                type=item.type,
                node_name=item.node_name,
                retention_policy=f"retentionPolicies/{item.policy}",
                reason=item.reason,
                outcome=item.outcome,
            )
        if len(found) > size:
            answer.next_page_token = encode_page_token(found[size - 1].position, request.parent)
        return answer

    def ApplyRetentionPlan(
        self, request: retention_pb2.ApplyRetentionPlanRequest, context: grpc.ServicerContext
    ) -> retention_pb2.RetentionPlan:
        plan_id = _plan_id(request.name, "name")
        apply_plan(self._store, plan_id, current_caller().user, now_ms())
        with self._store.read() as session:
            return _plan(session, get_plan(session, plan_id))


_FIELDS = tuple(retention_pb2.RetentionPolicy.DESCRIPTOR.fields_by_name)


def _tombstones(session: Session, rows: list[TombstoneRow]) -> list[tombstone_pb2.Tombstone]:
    types = session.tombstones.type_names(rows)
    return [tombstone_message(row, types.get((row.kind, row.node_id), "")) for row in rows]


def _row(policy_id: str, given: retention_pb2.RetentionPolicy, creator: str, now: int) -> PolicyRow:
    if given.node_kind not in _BY_NAME:
        raise InvalidArgument(f"must be one of {', '.join(_BY_NAME)}", field="retention_policy.node_kind")
    return PolicyRow(
        id=policy_id,
        kind=_BY_NAME[given.node_kind].number,
        type=given.type,
        filter=given.filter,
        older_than_ms=_milliseconds(given.older_than) if given.HasField("older_than") else 0,
        keep_latest=given.keep_latest,
        latest_in=given.latest_in,
        include_used=given.include_used,
        creator=creator,
        create_time=now,
        update_time=now,
    )


def _milliseconds(given: duration_pb2.Duration) -> int:
    milliseconds = given.seconds * 1000 + given.nanos // 1_000_000
    if milliseconds <= 0:
        raise InvalidArgument("must be at least a millisecond", field="retention_policy.older_than")
    return milliseconds


def _policy(row: PolicyRow) -> retention_pb2.RetentionPolicy:
    answer = retention_pb2.RetentionPolicy(
        name=f"retentionPolicies/{row.id}",
        node_kind=_NAMES[row.kind],
        type=row.type,
        filter=row.filter,
        keep_latest=row.keep_latest,
        latest_in=row.latest_in,
        include_used=row.include_used,
        creator=row.creator,
    )
    if row.older_than_ms:
        answer.older_than.FromMilliseconds(row.older_than_ms)
    answer.create_time.FromMilliseconds(row.create_time)
    answer.update_time.FromMilliseconds(row.update_time)
    return answer


def _plan(session: Session, row: PlanRow) -> retention_pb2.RetentionPlan:
    counts = session.retention.counts(row.id)
    total = sum(counts.values())
    deleted = counts.get(DELETED, 0)
    answer = retention_pb2.RetentionPlan(
        name=f"retentionPlans/{row.id}",
        creator=row.creator,
        node_count=total,
        truncated=row.truncated,
        deleted_count=deleted,
        skipped_count=total - deleted - counts.get(UNDONE, 0),
    )
    answer.create_time.FromMilliseconds(row.create_time)
    answer.expire_time.FromMilliseconds(row.expire_time)
    if row.apply_time is not None:
        answer.apply_time.FromMilliseconds(row.apply_time)
    return answer


def _plan_id(name: str, field: str) -> int:
    found = _PLAN.fullmatch(name)
    if found is None:
        raise InvalidArgument("must be retentionPlans/{plan}", field=field)
    return int(found[1])


def _page_size(given: int, most: int) -> int:
    if not 0 <= given <= most:
        raise InvalidArgument(f"must be 0 to {most}", field="page_size")
    return given or min(_DEFAULT_PAGE, most)


def _position(token: str, query: Any) -> int | None:
    position = decode_page_token(token, query)
    if not token:
        return None
    if type(position) is not int or not 0 <= position < 2**31:
        raise InvalidArgument("must be a token from an earlier answer to the same list request", field="page_token")
    return position
