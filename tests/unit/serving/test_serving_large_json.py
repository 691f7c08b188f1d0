"""Large JSON requests are read as small ones are: the same tensors, the same errors."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlmesh_kit.errors import InvalidArgument
from mlmesh_serving.codecs import json as codec
from mlmesh_serving.codecs.large_json import LARGE, Numbers, parse_large
from mlmesh_serving.tensor import Limits

LIMITS = Limits(max_elements=1000, max_tensors=4)
NUMBERS = st.integers(-(2**65), 2**65) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-200, 300)
LEAVES = NUMBERS | st.booleans() | st.none() | st.text(max_size=3)
DATATYPES = st.sampled_from(["FP64", "FP32", "FP16", "INT64", "INT8", "UINT64", "UINT8", "BOOL", "BYTES", "FP8"])


def tensors(data: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    shape = st.just([3]) | st.just([1, 3]) | st.lists(st.integers(-1, 4), max_size=3)
    return st.fixed_dictionaries(
        {"name": st.sampled_from(["x", "y", "["]), "datatype": DATATYPES, "shape": shape, "data": data}
    )


FLAT = tensors(st.lists(NUMBERS, min_size=3, max_size=3))
ODD = tensors(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=6))


def decoded(body: dict[str, Any]) -> list[tuple[str, Any]] | str:
    try:
        found = codec.decode_v2(body, memoryview(b""), LIMITS)
    except InvalidArgument as error:
        return f"{error.violations}"
    return [(one.name, one.data.dtype, one.data.shape, one.data.tobytes()) for one in found]


@given(
    st.lists(FLAT | ODD, max_size=2),
    st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), LEAVES, max_size=2),
)
@example([{"name": "x", "datatype": "INT64", "shape": [3], "data": [1, [2], 3]}], {})
@example([{"name": "x", "datatype": "UINT64", "shape": [1], "data": [2**64 - 1]}], {"id": "["})
@example([], {"id": -(2**63) - 1})
def test_the_same_tensors_and_the_same_errors(inputs: list[dict[str, Any]], others: dict[str, Any]) -> None:
    body = json.dumps({**others, "inputs": inputs}).encode()
    try:
        plain = codec.parse(body)
    except InvalidArgument:  # integers beyond 64 bits
        assert parse_large(body) is None or decoded(parse_large(body) or {}) is not None
        return
    large = parse_large(body)
    if large is not None:
        assert decoded(large) == decoded(plain)


@given(st.lists(tensors(st.lists(st.integers(-(2**63), 2**63) | st.floats(-1e300, 1e300), max_size=4)), max_size=3))
def test_flat_lists_are_read_this_way(inputs: list[dict[str, Any]]) -> None:
    body = json.dumps({"inputs": [{**one, "name": "x"} for one in inputs], "outputs": [{"name": "y"}]}).encode()
    large = parse_large(body)
    assert large is not None and [type(one["data"]) for one in large["inputs"]] == [Numbers] * len(inputs)


def test_of_a_key_that_is_there_twice_the_last_holds() -> None:
    body = b'{"inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "data": [1], "data": [2]}]}'
    assert parse_large(body) is None and codec.parse(body)["inputs"][0]["data"] == [2]


@given(st.binary(max_size=60))
def test_what_is_no_request_is_left_alone(body: bytes) -> None:
    assert parse_large(body) is None or isinstance(codec.parse(body), dict)


def test_a_large_request_is_read_without_python_numbers() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 10_000], "data": values.tolist()}
    body = json.dumps({"inputs": [tensor], "outputs": [{"name": "y"}]}).encode()
    assert len(body) > LARGE
    found = codec.parse_v2(body)
    assert not isinstance(found["inputs"][0]["data"], list) and found["outputs"] == [{"name": "y"}]
    (read,) = codec.decode_v2(found, memoryview(b""), Limits(max_elements=10_000, max_tensors=1))
    assert read.data.dtype == np.float32 and (read.data == values).all()
    with pytest.raises(InvalidArgument, match="10000"):
        tensor["shape"] = [1, 9_999]
        codec.decode_v2(codec.parse_v2(json.dumps({"inputs": [tensor]}).encode()), memoryview(b""), Limits(20_000, 1))
