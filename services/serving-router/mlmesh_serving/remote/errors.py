"""What a remote server's failure is to our client."""

from collections.abc import Mapping

import grpc
import orjson
from mlmesh_kit import errors
from mlmesh_kit.errors import ServiceError

_MAX_MESSAGE = 500
_MAX_RETRY_SECONDS = 3600.0

_BY_CODE: dict[grpc.StatusCode, type[ServiceError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.ABORTED: errors.Aborted,
    grpc.StatusCode.OUT_OF_RANGE: errors.OutOfRange,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.CANCELLED: errors.Unavailable,  # by the server, as it ends: nobody here has cancelled it
}
_BY_HTTP: dict[int, grpc.StatusCode] = {
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


def of_status(code: grpc.StatusCode, message: str, stage: str, retry_after: float | None = None) -> ServiceError:
    """Gives the error of a gRPC status: the same code, and the stage before the message.

    Args:
        code: As the remote server sent it; one that it should not send (OK, UNKNOWN, DATA_LOSS) is INTERNAL.
        message: As the remote server sent it.
        stage: Who it is, for our client.
        retry_after: Seconds after which it asks to be tried again.
    """
    text = f"{stage}: {_printable(message) or code.name}"
    kind = _BY_CODE.get(code, errors.Internal)
    if kind in (errors.ResourceExhausted, errors.Unavailable):
        return kind(text, retry_after_seconds=retry_after)
    if kind in (errors.NotFound, errors.AlreadyExists):
        return kind(message=text)
    return kind(text)


def of_response(status: int, headers: Mapping[str, str], body: bytes, stage: str) -> ServiceError:
    """Gives the error of an HTTP answer that is not 200.

    Args:
        status: Of HTTP.
        headers: Retry-After is read.
        body: Its `error`, `message` or `detail` is told on, as it is JSON.
        stage: Who answered.
    """
    retry_after: float | None = None
    given = headers.get("Retry-After", "")
    if given.isascii() and given.isdigit():
        retry_after = min(float(given), _MAX_RETRY_SECONDS)
    code = _BY_HTTP.get(status, grpc.StatusCode.INTERNAL)
    return of_status(code, _message(body) or f"it answered HTTP {status}", stage, retry_after)


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


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text[:_MAX_MESSAGE]).strip()
