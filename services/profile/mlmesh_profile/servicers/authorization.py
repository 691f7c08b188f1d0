"""envoy.service.auth.v3.Authorization: what Envoy's ext_authz filter asks before a request goes on."""

import json
from typing import Any

from envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationServicer as GeneratedServicer
from envoy.type.v3.http_status_pb2 import HttpStatus
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from mlmesh_kit.errors import HTTP_STATUS, PermissionDenied
from mlmesh_kit.identity import USER_HEADER

from mlmesh_profile.gate import coarse_question
from mlmesh_profile.reviewer import GrantReviewer


class AuthorizationServicer(GeneratedServicer):  # type: ignore[misc]
    """Lets a request pass if it has a user who is a member of the namespace in its path.

    Args:
        reviewer: Decides.
    """

    def __init__(self, reviewer: GrantReviewer) -> None:
        self._reviewer = reviewer

    async def Check(self, request: CheckRequest, context: Any) -> CheckResponse:
        http: AttributeContext.HttpRequest = request.attributes.request.http
        user = http.headers.get(USER_HEADER, "")
        for key, caller in context.invocation_metadata():
            if key == USER_HEADER and caller != user:  # not Envoy's own question: a user's, through the ingress
                raise PermissionDenied("a check is answered to the user it is about")
        if not user:
            return _denied(StatusCode.UNAUTHENTICATED, "log in first")
        question = coarse_question(http.method, http.path)
        if not question.namespace:
            return _allowed()
        decision = await self._reviewer.review(user, question.verb, "requests", question.namespace, "")
        if decision.allowed:
            return _allowed()
        return _denied(
            StatusCode.PERMISSION_DENIED,
            f"{user} may not {question.verb} in namespace {question.namespace!r}: {decision.reason}",
        )


def _allowed() -> CheckResponse:
    return CheckResponse(status=Status(code=_number(StatusCode.OK)), ok_response=OkHttpResponse())


def _denied(code: StatusCode, message: str) -> CheckResponse:
    body = {"error": message, "code": _number(code), "message": message, "details": []}
    denied = DeniedHttpResponse(body=json.dumps(body))
    denied.status.CopyFrom(HttpStatus(code=HTTP_STATUS[code]))
    header = denied.headers.add().header
    header.key, header.value = "content-type", "application/json"
    return CheckResponse(status=Status(code=_number(code), message=message), denied_response=denied)


def _number(code: StatusCode) -> int:
    number: int = code.value[0]
    return number
