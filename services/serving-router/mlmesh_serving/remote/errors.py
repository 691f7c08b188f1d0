"""What an HTTP server's failure is to our client."""

from collections.abc import Mapping

import grpc
import orjson
from google.rpc import status_pb2
from mlmesh_kit.errors import ServiceError, from_status

_MAX_MESSAGE = 500
_MAX_RETRY_SECONDS = 3600.0

_CODES: dict[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The other statuses are INTERNAL."""


def of_response(status: int, headers: Mapping[str, str], body: bytes, stage: str) -> ServiceError:
    """Gives the error of an HTTP answer that is not 200.

    Args:
        status: Of HTTP.
        headers: Names in lower case; Retry-After is read.
        body: Its `error`, `message` or `detail` is told on, as it is JSON.
        stage: Who answered.
    """
    code: int = _CODES.get(status, grpc.StatusCode.INTERNAL).value[0]
    text = f"{stage}: {printable(_message(body)) or f'it answered HTTP {status}'}"
    error = from_status(status_pb2.Status(code=code, message=text))
    given = headers.get("retry-after", "")
    if given.isascii() and given.isdigit() and hasattr(error, "retry_after_seconds"):
        error.retry_after_seconds = min(float(given[:9]), _MAX_RETRY_SECONDS)
    return error


def _message(body: bytes) -> str:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    for key in ("error", "message", "detail"):
        value = found.get(key) if isinstance(found, dict) else None
        if isinstance(value, dict):  # OpenAI's form
            value = value.get("message")
        if isinstance(value, str) and value:
            return value
    return ""


def printable(text: str) -> str:
    """Gives a message of another server as it may be shown: its beginning, without control characters."""
    return "".join(character if character.isprintable() else " " for character in text[:_MAX_MESSAGE]).strip()
