"""Errors as HTTP has them: Google's status in JSON."""

from typing import Any

from google.protobuf import json_format
from starlette.responses import JSONResponse

from mlmesh_kit.errors import HTTP_STATUS, ServiceError, to_status

_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 409: 6, 413: 8, 415: 3, 429: 8}


def plain_error(http_status: int, text: str) -> dict[str, Any]:
    """Gives the JSON of an error that has no code of ours: HTTP's own."""
    return {"error": text, "code": _CODES.get(http_status, 2), "message": text, "details": []}


def error_body(error: ServiceError) -> dict[str, Any]:
    """Gives the JSON that a client gets: Google's status, and `error`, which KFP's and OIP's clients read."""
    status = json_format.MessageToDict(to_status(error), preserving_proto_field_name=True)
    return {
        "error": error.message,
        "code": error.code.value[0],
        "message": error.message,
        "details": status.get("details", []),
    }


def error_response(error: ServiceError) -> JSONResponse:
    """Gives the error as a response with Google's HTTP status and, where it has one, Retry-After."""
    headers = {}
    wait = getattr(error, "retry_after_seconds", None)
    if wait is not None:
        headers["Retry-After"] = str(max(1, round(wait)))
    return JSONResponse(error_body(error), status_code=HTTP_STATUS[error.code], headers=headers)
