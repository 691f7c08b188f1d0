"""Every error has a code, every code an HTTP status, and details survive the way."""

import inspect

import grpc
import pytest
from google.rpc import error_details_pb2
from mlmesh_kit import errors
from mlmesh_kit.errors import HTTP_STATUS, InvalidArgument, NotFound, ResourceExhausted, ServiceError, to_status
from mlmesh_kit.http_errors import error_body, error_response

PUBLIC = [
    kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind)
    and issubclass(kind, ServiceError)
    and kind is not ServiceError
    and not name.startswith("_")
]


def test_every_code_has_an_http_status() -> None:
    assert set(HTTP_STATUS) == set(grpc.StatusCode)


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_its_own_and_carries_its_message(kind: type[ServiceError]) -> None:
    error = kind(message="what went wrong")  # type: ignore[call-arg]
    status = to_status(error)
    assert (status.code, status.message) == (error.code.value[0], "what went wrong")
    assert [other for other in PUBLIC if other.code is error.code] == [kind]
    assert error_response(error).status_code == HTTP_STATUS[error.code] >= 400


def test_violations_are_listed_each() -> None:
    error = InvalidArgument.of([("a", "must be 1"), ("b.c", "is missing")])
    bad = error_details_pb2.BadRequest()
    assert to_status(error).details[0].Unpack(bad)
    assert [(v.field, v.description) for v in bad.field_violations] == error.violations
    assert error.message == "a: must be 1; b.c: is missing"
    assert InvalidArgument.of([]).message == "invalid request"
    assert InvalidArgument("no field").details == []


def test_the_json_of_an_error_has_what_each_client_reads() -> None:
    body = error_body(NotFound("run", "r1"))
    assert body["error"] == body["message"] == "run 'r1' not found"
    assert body["code"] == 5
    assert body["details"][0]["resource_name"] == "r1"


def test_waits_are_told_twice() -> None:
    error = ResourceExhausted("full", retry_after_seconds=1.4)
    assert error_response(error).headers["retry-after"] == "1"
    assert "retry-after" not in error_response(ResourceExhausted("full")).headers
