"""What the router reads off a serialized request is what the real parser reads."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_serving.codecs import scan


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    monkeypatch.setattr(scan, "SMALL", -1)


TENSORS = st.builds(
    oip.ModelInferRequest.InferInputTensor,
    name=st.text(max_size=8),
    datatype=st.text(max_size=8),
    shape=st.lists(st.integers(-(1 << 40), 1 << 40), max_size=3),
)
REQUESTS = st.builds(
    oip.ModelInferRequest,
    model_name=st.text(max_size=200),
    model_version=st.text(max_size=5),
    id=st.text(max_size=5),
    inputs=st.lists(TENSORS, max_size=3),
    raw_input_contents=st.lists(st.binary(max_size=300), max_size=3),
)
# Fields that nobody knows, of each wire type; a number written longer than it need be; groups.
ODD = st.sampled_from(
    [
        b"",
        b"\x78\x05",
        b"\x79" + b"x" * 8,
        b"\x7d" + b"x" * 4,
        b"\x7a\x03abc",
        b"\x0a\x81\x00y",
        b"\x8a\x00\x01z",
        b"\x7b\x7c",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(REQUESTS, ODD), min_size=1, max_size=3))
def test_names_are_those_that_the_parser_finds(pieces):
    body = b"".join(request.SerializeToString() + odd for request, odd in pieces)  # the last of each field counts
    expected = oip.ModelInferRequest.FromString(body)
    assert scan.read_head(body) == (expected.model_name, expected.model_version, expected.id)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(REQUESTS, ODD), min_size=1, max_size=3))
def test_what_is_cut_is_the_request_in_pieces(pieces):
    body = b"".join(request.SerializeToString() + odd for request, odd in pieces)
    found = scan.cut(body)
    if found is not None:
        again = oip.ModelInferRequest.FromString(found.head)
        again.id = found.id
        again.raw_input_contents.extend(bytes(raw) for raw in found.raw)
        assert again == oip.ModelInferRequest.FromString(body)


def test_a_usual_request_is_cut():
    request = oip.ModelInferRequest(model_name="m", id="7", raw_input_contents=[b"x" * 20_000, b"y"])
    found = scan.cut(request.SerializeToString())
    assert found is not None and (found.id, [len(raw) for raw in found.raw]) == ("7", [20_000, 1])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_of_any_bytes_it_refuses_only_what_the_parser_refuses(body):
    try:
        expected = oip.ModelInferRequest.FromString(body)
    except DecodeError:
        return  # the worker parses all of it, and refuses it
    assert scan.read_head(body) == (expected.model_name, expected.model_version, expected.id)
    scan.cut(body)


@pytest.mark.parametrize("body", [b"\x0a", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x3a\xff\xff\xff\xff\x07x"])
def test_broken_messages_are_refused(body):
    with pytest.raises(InvalidArgument):
        scan.read_head(body)


def test_a_request_of_endless_fields_is_refused():
    with pytest.raises(InvalidArgument, match="at most 4096"):
        scan.read_head(b"\x3a\x00" * 5000)
