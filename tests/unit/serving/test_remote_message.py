"""The scanner of serialized requests and answers, held to what protobuf's own parser makes of the same bytes."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_serving.remote.message import next_request, read_text, renamed, without_wanted_outputs

TEXT = st.text(max_size=200)


def varint(value: int, padding: int = 0) -> bytes:
    """Writes a varint, with more bytes than it needs if asked."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    for _ in range(padding):
        parts[-1] |= 0x80
        parts.append(0)
    return bytes(parts)


def field(number: int, wire: int, value: bytes) -> bytes:
    return varint(number << 3 | wire) + value


def text_field(number: int, data: bytes, padding: int = 0) -> bytes:
    return varint(number << 3 | 2) + varint(len(data), padding) + data


LEAVES = st.one_of(
    st.builds(lambda n, v: field(n, 0, varint(v)), st.integers(8, 1 << 20), st.integers(0, (1 << 64) - 1)),
    st.builds(lambda n, v: field(n, 1, v), st.integers(8, 40), st.binary(min_size=8, max_size=8)),
    st.builds(lambda n, v: field(n, 5, v), st.integers(8, 40), st.binary(min_size=4, max_size=4)),
    st.builds(text_field, st.integers(8, 300), st.binary(max_size=300), st.integers(0, 2)),
    # The name's number with a value that is no string: an unknown field.
    st.builds(lambda v: field(1, 0, varint(v)), st.integers(0, 1000)),
)
GROUPS = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda n, parts: field(n, 3, b"".join(parts)) + field(n, 4, b""),
        st.integers(8, 40),
        st.lists(inner, max_size=3),
    ),
    max_leaves=5,
)


@st.composite
def requests(draw) -> bytes:
    """Draws requests whose fields come in any order and more than once, unknown ones among them."""
    known = []
    for _ in range(draw(st.integers(0, 3))):
        known.append(text_field(1, draw(TEXT).encode(), draw(st.integers(0, 2))))
    for _ in range(draw(st.integers(0, 2))):
        known.append(text_field(2, draw(TEXT).encode()))
    for name in draw(st.lists(TEXT, max_size=2)):
        made = oip.ModelInferRequest(id=name)
        made.parameters["p"].int64_param = 3
        made.inputs.add(name=name, datatype="FP32", shape=[1, -1]).contents.fp32_contents.append(1.5)
        made.outputs.add(name=name)
        made.raw_input_contents.append(draw(st.binary(max_size=400)))
        known.append(made.SerializeToString())
    return b"".join(draw(st.permutations(known + draw(st.lists(GROUPS, max_size=4)))))


def canonical(message) -> bytes:
    return message.SerializeToString(deterministic=True)


@given(requests(), TEXT, st.one_of(st.none(), TEXT))
def test_renaming_is_what_the_parser_would_have_done(request: bytes, model: str, version: str | None) -> None:
    expected = oip.ModelInferRequest.FromString(request)
    assert read_text(request, 1) == expected.model_name
    assert read_text(request, 2) == expected.model_version
    expected.model_name = model
    if version is not None:
        expected.model_version = version
    assert canonical(oip.ModelInferRequest.FromString(renamed(request, model, version))) == canonical(expected)


@given(requests())
def test_wanted_outputs_are_left_out(request: bytes) -> None:
    expected = oip.ModelInferRequest.FromString(request)
    expected.ClearField("outputs")
    assert canonical(oip.ModelInferRequest.FromString(without_wanted_outputs(request))) == canonical(expected)


@given(st.binary(max_size=60))
def test_what_the_parser_takes_the_scanner_takes(data: bytes) -> None:
    try:
        expected = oip.ModelInferRequest.FromString(data)
    except DecodeError:
        return
    expected.model_name, expected.model_version = "m", ""
    assert canonical(oip.ModelInferRequest.FromString(renamed(data, "m"))) == canonical(expected)


@given(requests(), st.data())
def test_a_cut_message_is_refused_or_reads_as_the_parser_reads_it(request: bytes, data) -> None:
    cut = request[: data.draw(st.integers(0, len(request)))]
    try:
        found = renamed(cut, "m")
    except InvalidArgument:
        with pytest.raises(DecodeError):
            oip.ModelInferRequest.FromString(cut)
        return
    try:
        expected = oip.ModelInferRequest.FromString(cut)
    except DecodeError:  # within a tensor, which is the server's to find
        with pytest.raises(DecodeError):
            oip.ModelInferRequest.FromString(found)
        return
    expected.model_name, expected.model_version = "m", ""
    assert canonical(oip.ModelInferRequest.FromString(found)) == canonical(expected)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",  # no length
        b"\x0a\x05ab",  # a length beyond the end
        b"\x0a\xff\xff\xff\xff\x0f",  # of 4 GiB
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # and far more
        b"\x02\x00",  # field 0
        b"\x43\x08\x01",  # a group that does not end
        b"\x43\x4c",  # that another ends
        b"\x44",  # an end of nothing
        b"\x46",  # wire type 6
        b"\x43" * 200,  # nested without end
        b"\x09\x01",  # 8 bytes, of which there is one
    ],
)
def test_malformed_messages_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        oip.ModelInferRequest.FromString(data)
    with pytest.raises(InvalidArgument, match="not a valid message"):
        renamed(data, "m")


@given(st.lists(st.binary(max_size=300), max_size=3), TEXT, st.booleans())
def test_the_answer_of_a_stage_is_the_request_to_the_next(raw: list[bytes], text: str, last: bool) -> None:
    answer = oip.ModelInferResponse(model_name="pre", model_version="3", id="its own", raw_output_contents=raw)
    answer.parameters["of the answer"].string_param = "dropped"
    typed = answer.outputs.add(name=text, datatype="INT64", shape=[2])
    typed.contents.int64_contents.extend([1, 2])
    typed.parameters["content_type"].string_param = "np"
    request = oip.ModelInferRequest(model_name="m", id="7", raw_input_contents=[b"old"])
    request.parameters["p"].bool_param = True
    request.inputs.add(name="old")
    request.outputs.add(name="wanted")

    found = oip.ModelInferRequest.FromString(
        next_request(answer.SerializeToString(), request.SerializeToString(), last=last)
    )

    expected = oip.ModelInferRequest(model_name="m", id="7", raw_input_contents=raw)
    expected.parameters["p"].bool_param = True
    tensor = expected.inputs.add(name=text, datatype="INT64", shape=[2])
    tensor.contents.int64_contents.extend([1, 2])
    tensor.parameters["content_type"].string_param = "np"
    if last:
        expected.outputs.add(name="wanted")
    assert found == expected
