"""The errors that domain code raises, and what clients see of them.

Each class is one canonical code (https://google.aip.dev/193). The interceptor and the HTTP routes turn them into
a `google.rpc.Status`; domain code knows nothing of gRPC beyond the code's name.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

MessageT = TypeVar("MessageT", bound=Message)


class ServiceError(Exception):
    """An error that is meant for the client.

    Args:
        message: What went wrong, in words for the caller. Never holds secrets, paths or stack traces.
        details: `google.rpc` detail messages, packed into the status.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, *, details: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = list(details)


class InvalidArgument(ServiceError):
    """The request is wrong whatever the state: the client must change it.

    Args:
        message: What was expected.
        field: Path of the field at fault, as the client wrote it (`spec.maxTrialCount`).
    """

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, message: str, *, field: str = "") -> None:
        self.violations: list[tuple[str, str]] = [(field, message)] if field else []
        text = f"{field}: {message}" if field else message
        super().__init__(text, details=_bad_request(self.violations))

    @classmethod
    def of(cls, violations: Iterable[tuple[str, str]]) -> "InvalidArgument":
        """Makes one error of several (field, what was expected) pairs."""
        found = list(violations)
        error = cls("; ".join(f"{field}: {text}" for field, text in found) or "invalid request")
        error.violations = found
        error.details = _bad_request(found)
        return error


def _bad_request(violations: Sequence[tuple[str, str]]) -> list[object]:
    if not violations:
        return []
    found = [error_details_pb2.BadRequest.FieldViolation(field=f, description=d) for f, d in violations]
    return [error_details_pb2.BadRequest(field_violations=found)]


class _ResourceError(ServiceError):
    _text = "{kind} {name!r}"

    def __init__(self, kind: str = "", name: object = "", *, message: str = "") -> None:
        text = message or self._text.format(kind=kind, name=str(name))
        info = error_details_pb2.ResourceInfo(resource_type=kind, resource_name=str(name), description=text)
        super().__init__(text, details=[info] if kind else [])


class NotFound(_ResourceError):
    """There is no such resource, or the caller may not know that there is."""

    code = grpc.StatusCode.NOT_FOUND
    _text = "{kind} {name!r} not found"


class AlreadyExists(_ResourceError):
    """A resource of this name or key exists."""

    code = grpc.StatusCode.ALREADY_EXISTS
    _text = "{kind} {name!r} already exists"


class FailedPrecondition(ServiceError):
    """The state does not allow it; retrying without changing the state will not help."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class PermissionDenied(ServiceError):
    """The caller is known and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(ServiceError):
    """The caller is not known."""

    code = grpc.StatusCode.UNAUTHENTICATED


class Aborted(ServiceError):
    """Concurrent change; the client may read again and retry."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(ServiceError):
    """Past the valid range (a byte range, a page)."""

    code = grpc.StatusCode.OUT_OF_RANGE


class Unimplemented(ServiceError):
    """Not served."""

    code = grpc.StatusCode.UNIMPLEMENTED


class DeadlineExceeded(ServiceError):
    """The time allowed was not enough."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Internal(ServiceError):
    """A fault of ours. Raise it only where there is something useful to tell; else let the exception escape."""

    code = grpc.StatusCode.INTERNAL


class _Retryable(ServiceError):
    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds
        details: list[object] = []
        if retry_after_seconds is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(retry_after_seconds * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        super().__init__(message, details=details)


class ResourceExhausted(_Retryable):
    """A quota or a limit is used up."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(_Retryable):
    """Not now: the client should retry with backoff."""

    code = grpc.StatusCode.UNAVAILABLE


HTTP_STATUS: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
"""Google's mapping of canonical codes to HTTP (google/rpc/code.proto)."""


def to_status(error: ServiceError) -> status_pb2.Status:
    """Gives the error as a `google.rpc.Status`, details packed."""
    packed = []
    for detail in error.details:
        if isinstance(detail, any_pb2.Any):  # of another server: passed on as it came
            packed.append(detail)
            continue
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)  # type: ignore[arg-type]
        packed.append(wrapped)
    code: int = error.code.value[0]
    return status_pb2.Status(code=code, message=error.message, details=packed)


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_CLASSES: dict[grpc.StatusCode, type[ServiceError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        PermissionDenied,
        Unauthenticated,
        Aborted,
        OutOfRange,
        Unimplemented,
        DeadlineExceeded,
        Internal,
        ResourceExhausted,
        Unavailable,
    )
}


def from_status(status: status_pb2.Status) -> ServiceError:
    """Gives the error that another server has answered with; the inverse of `to_status`.

    Args:
        status: Its code is not OK. An unknown code is UNKNOWN.
    """
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    kind = _CLASSES.get(code, ServiceError)
    error = kind.__new__(kind)
    ServiceError.__init__(error, status.message, details=status.details)
    error.code = code
    if isinstance(error, InvalidArgument):
        error.violations = [
            (violation.field, violation.description)
            for found in _unpacked(status, error_details_pb2.BadRequest)
            for violation in found.field_violations
        ]
    if isinstance(error, _Retryable):
        waits = [found.retry_delay.ToNanoseconds() / 1e9 for found in _unpacked(status, error_details_pb2.RetryInfo)]
        error.retry_after_seconds = waits[0] if waits else None
    return error


def _unpacked(status: status_pb2.Status, kind: type[MessageT]) -> list[MessageT]:
    """Gives the details of one kind; those that cannot be read are left out."""
    found = []
    for detail in status.details:
        if detail.Is(kind.DESCRIPTOR):
            message = kind()
            try:
                detail.Unpack(message)
            except DecodeError:
                continue
            found.append(message)
    return found
