"""Requests of Katib's protocol that mean nothing: always an answer that says what is wrong, never a fault of ours."""

from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from integration.katib.client import Client
from mlmesh_katib.algorithms import ALGORITHMS
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc

OURS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE}
WORDS = [
    *ALGORITHMS, "medianstop", "x", "y", "0", "1", "-1", "2.5", "1e308", "nan", "inf", "", "random_state", "r_l", "eta",
    "resource_name", "start_step", "n_population", "population_size", "min_trials_required", "none", "{}", "[1", "\x00",
]  # fmt: skip
TEXTS = st.sampled_from(WORDS) | st.text(max_size=8)


def value_of(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return message_of(field.message_type, depth - 1)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_STRING:
        return TEXTS
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.cpp_type in {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}:
        return st.floats()
    return st.sampled_from([0, 1, 2, 5, -1, 2**31 - 1, -(2**31)])


@st.composite
def message_of(draw: st.DrawFn, descriptor: Descriptor, depth: int = 7) -> Message:
    made = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.message_type is not None and (depth == 0 or field.message_type.GetOptions().map_entry):
            continue
        if draw(st.integers(0, 4)) == 0:
            continue
        if field.is_repeated:
            for value in draw(st.lists(value_of(field, depth), max_size=3)):
                if field.message_type is not None:
                    getattr(made, field.name).add().CopyFrom(value)
                else:
                    getattr(made, field.name).append(value)
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(draw(value_of(field, depth)))
        else:
            setattr(made, field.name, draw(value_of(field, depth)))
    return made


def asked(call: grpc.UnaryUnaryMultiCallable, request: Message) -> None:
    try:
        call(request, timeout=30)
    except grpc.RpcError as error:
        assert error.code() not in OURS, (error.code(), error.details(), request)
        assert error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED, request


FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(request=message_of(api_pb2.GetSuggestionsRequest.DESCRIPTOR))
@example(request=api_pb2.GetSuggestionsRequest(current_request_number=2**31 - 1))
def test_suggestions(client: Client, request: api_pb2.GetSuggestionsRequest) -> None:
    asked(client.suggestion.GetSuggestions, request)


@FUZZ
@given(request=message_of(api_pb2.ValidateAlgorithmSettingsRequest.DESCRIPTOR))
def test_algorithm_settings(client: Client, request: api_pb2.ValidateAlgorithmSettingsRequest) -> None:
    asked(client.suggestion.ValidateAlgorithmSettings, request)


@FUZZ
@given(request=message_of(api_pb2.GetEarlyStoppingRulesRequest.DESCRIPTOR))
def test_early_stopping_rules(client: Client, request: api_pb2.GetEarlyStoppingRulesRequest) -> None:
    asked(api_pb2_grpc.EarlyStoppingStub(client.channel).GetEarlyStoppingRules, request)
