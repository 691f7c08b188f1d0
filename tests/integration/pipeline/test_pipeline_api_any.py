"""Whatever a client sends, the answer is one of the API's: never an internal error."""

from typing import Any

import grpc
import pytest
from google.protobuf import descriptor, message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import (
    auth_pb2,
    experiment_pb2,
    filter_pb2,
    healthz_pb2,
    pipeline_pb2,
    recurring_run_pb2,
    report_pb2,
    run_pb2,
    visualization_pb2,
)

_FILES = (
    auth_pb2,
    experiment_pb2,
    filter_pb2,
    healthz_pb2,
    pipeline_pb2,
    recurring_run_pb2,
    report_pb2,
    run_pb2,
    visualization_pb2,
)
METHODS = [
    method for file in _FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
]
_OURS = {"INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "UNAVAILABLE", "DATA_LOSS"}
_Field = descriptor.FieldDescriptor
_TEXT = st.sampled_from(
    [
        "",
        "a",
        "default",
        "x\0y",
        "\u00e4\U0001f600",
        "x" * 300,
        "x" * 20_000,
        "../../etc",
        "\n",
        "2.1.0",
        "{}",
        "{",
        "name",
    ]
) | st.text(max_size=10)
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    _Field.TYPE_STRING: _TEXT,
    _Field.TYPE_BOOL: st.booleans(),
    _Field.TYPE_INT32: st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, -1]),
    _Field.TYPE_INT64: st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 60]),
    _Field.TYPE_DOUBLE: st.floats(),
    _Field.TYPE_BYTES: st.binary(max_size=5),
    _Field.TYPE_ENUM: st.integers(-1, 12),
}


@st.composite
def _messages(draw: st.DrawFn, kind: descriptor.Descriptor, depth: int = 0) -> Any:
    message = message_factory.GetMessageClass(kind)()
    for field in kind.fields:
        if depth > 4 or not draw(st.integers(0, 2 if depth else 5)):
            continue
        if field.message_type is None:
            values = _SCALARS[field.type]
            if field.is_repeated:
                getattr(message, field.name).extend(draw(st.lists(values, max_size=2)))
            else:
                setattr(message, field.name, draw(values))
        elif field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            for key in draw(st.sets(_TEXT, max_size=2)):
                if value.message_type is None:
                    getattr(message, field.name)[key] = draw(_TEXT)
                else:
                    getattr(message, field.name)[key].CopyFrom(draw(_messages(value.message_type, depth + 1)))
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(_messages(field.message_type, depth + 1), max_size=2)))
        else:
            getattr(message, field.name).CopyFrom(draw(_messages(field.message_type, depth + 1)))
    return message


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_request_is_an_internal_error(client, method):
    call = client.channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )

    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(request=_messages(method.input_type))
    def ask(request: Any) -> None:
        try:
            call(request, timeout=30)
        except grpc.RpcError as error:
            assert error.code().name not in _OURS, (error.code(), error.details(), request)
            assert "Traceback" not in error.details()

    ask()
