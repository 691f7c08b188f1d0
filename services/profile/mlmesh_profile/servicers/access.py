"""mlmesh.profile.v1.AccessService: the question that every service asks."""

from typing import Any

from mlmesh_kit.errors import PermissionDenied
from mlmesh_kit.identity import current_caller
from mlmesh_protos.mlmesh.profile.v1.access_pb2 import ReviewAccessRequest, ReviewAccessResponse
from mlmesh_protos.mlmesh.profile.v1.access_pb2_grpc import AccessServiceServicer

from mlmesh_profile.reviewer import GrantReviewer


class AccessServicer(AccessServiceServicer):
    """Answers on the event loop: what it needs is in memory nearly always.

    Args:
        reviewer: Decides.
    """

    def __init__(self, reviewer: GrantReviewer) -> None:
        self._reviewer = reviewer

    async def ReviewAccess(self, request: ReviewAccessRequest, context: Any) -> ReviewAccessResponse:
        caller = current_caller().user
        if caller != request.user and not self._reviewer.is_administrator(caller):
            raise PermissionDenied("a review is answered to the user it is about")
        decision = await self._reviewer.review(
            request.user, request.verb, request.resource, request.namespace, request.name
        )
        return ReviewAccessResponse(allowed=decision.allowed, reason=decision.reason, namespace=decision.namespace)
