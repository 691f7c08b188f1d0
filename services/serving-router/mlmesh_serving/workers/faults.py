"""Errors as they pass from a worker to the router."""

from typing import Any

import grpc
import orjson
from mlmesh_kit import errors
from mlmesh_kit.errors import Internal, InvalidArgument, ServiceError

_CLASSES: dict[int, type[ServiceError]] = {
    kind.code.value[0]: kind
    for kind in (
        errors.Aborted,
        errors.DeadlineExceeded,
        errors.FailedPrecondition,
        errors.Internal,
        errors.OutOfRange,
        errors.PermissionDenied,
        errors.ResourceExhausted,
        errors.Unavailable,
        errors.Unimplemented,
    )
}


def encode_fault(error: ServiceError) -> tuple[int, bytes]:
    """Gives an error's status code, and the rest of it as JSON."""
    content: dict[str, Any] = {"message": error.message}
    if isinstance(error, InvalidArgument) and error.violations:
        content["violations"] = error.violations
    code: int = error.code.value[0]
    return code, orjson.dumps(content)


def decode_fault(code: int, body: bytes) -> ServiceError:
    """Gives the error again, to be raised in the router."""
    content = orjson.loads(body)
    message: str = content["message"]
    if code == grpc.StatusCode.INVALID_ARGUMENT.value[0]:
        violations = [(field, text) for field, text in content.get("violations", ())]
        error = InvalidArgument.of(violations) if violations else InvalidArgument(message)
        error.message = message
        return error
    if code == grpc.StatusCode.NOT_FOUND.value[0]:
        return errors.NotFound(message=message)
    return _CLASSES.get(code, Internal)(message)
