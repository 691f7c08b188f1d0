"""Marks: what was built on bad data."""

import re

import grpc
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.identity import current_caller
from mlmesh_kit.paging import decode_page_token, encode_page_token
from mlmesh_protos.mlmesh.metadata.v1 import mark_pb2

from mlmesh_metadata.clock import now_ms
from mlmesh_metadata.kinds import ARTIFACT, EXECUTION
from mlmesh_metadata.marks import check_mark, downstream_of, get_mark, mark_downstream, undo_mark
from mlmesh_metadata.store import Session, Store
from mlmesh_metadata.store.marks import MarkRow

_NAME = re.compile(r"marks/([1-9][0-9]{0,8})")
_MAX_PAGE = 100


class MarkRpcs:
    """RPCs of LineageService."""

    _store: Store

    def MarkDownstream(self, request: mark_pb2.MarkDownstreamRequest, context: grpc.ServicerContext) -> mark_pb2.Mark:
        if request.validate_only:
            with self._store.read() as session:
                check_mark(session, request.artifact_id, request.reason)
                found = downstream_of(session, ARTIFACT, request.artifact_id)
            return mark_pb2.Mark(
                artifact_id=request.artifact_id,
                reason=request.reason,
                artifact_count=len(found[ARTIFACT]),
                execution_count=len(found[EXECUTION]),
            )
        now, creator = now_ms(), current_caller().user

        def change(session: Session) -> mark_pb2.Mark:
            made = mark_downstream(session, request.artifact_id, request.reason, creator, now)
            return _message(session, made)

        return self._store.write(change)

    def GetMark(self, request: mark_pb2.GetMarkRequest, context: grpc.ServicerContext) -> mark_pb2.Mark:
        with self._store.read() as session:
            return _message(session, get_mark(session, _id(request.name)))

    def ListMarks(
        self, request: mark_pb2.ListMarksRequest, context: grpc.ServicerContext
    ) -> mark_pb2.ListMarksResponse:
        if not 0 <= request.page_size <= _MAX_PAGE:
            raise InvalidArgument(f"must be 0 to {_MAX_PAGE}", field="page_size")
        size = request.page_size or _MAX_PAGE
        query = ["marks", request.show_undone]
        before = decode_page_token(request.page_token, query)
        if not (before is None and not request.page_token) and type(before) is not int:
            raise InvalidArgument("must be a token from an earlier answer to the same list request", field="page_token")
        with self._store.read() as session:
            found = session.marks.page(size + 1, before, with_undone=request.show_undone)
            answer = mark_pb2.ListMarksResponse(marks=[_message(session, mark) for mark in found[:size]])
        if len(found) > size:
            answer.next_page_token = encode_page_token(found[size - 1].id, query)
        return answer

    def UndoMark(self, request: mark_pb2.UndoMarkRequest, context: grpc.ServicerContext) -> mark_pb2.Mark:
        now, mark_id = now_ms(), _id(request.name)
        return self._store.write(lambda session: _message(session, undo_mark(session, mark_id, now)))


def _id(name: str) -> int:
    found = _NAME.fullmatch(name)
    if found is None:
        raise InvalidArgument("must be marks/{mark}", field="name")
    return int(found[1])


def _message(session: Session, mark: MarkRow) -> mark_pb2.Mark:
    answer = mark_pb2.Mark(
        name=f"marks/{mark.id}",
        artifact_id=mark.artifact_id,
        reason=mark.reason,
        creator=mark.creator,
        artifact_count=session.marks.count(mark.id, ARTIFACT),
        execution_count=session.marks.count(mark.id, EXECUTION),
    )
    answer.create_time.FromMilliseconds(mark.create_time)
    if mark.undo_time is not None:
        answer.undo_time.FromMilliseconds(mark.undo_time)
    return answer
