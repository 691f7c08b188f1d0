"""Requests of all doors, answered together by one chain."""

import asyncio
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_serving.backend import Door
from mlmesh_serving.chain import Chain
from mlmesh_serving.predictors.base import Predictor
from mlmesh_serving.stage import Stage
from mlmesh_serving.tensor import Limits, TensorInfo
from mlmesh_serving.workers.engine import Engine

LIMITS = Limits(100_000, 8)


class Doubler(Predictor):
    """Doubles; remembers how many rows it was given; 13 breaks it, 7 it refuses."""

    platform = "test"

    def __init__(self):
        self.rows = []

    @classmethod
    def load(cls, model, options):
        raise NotImplementedError

    def predict(self, arrays):
        (data,) = arrays.values()
        self.rows.append(len(data))
        if (data == 13).any():
            raise RuntimeError("nobody may see this")
        if (data == 7).any():
            raise ValueError("sevens are not taken")
        return {"y": data * 2}

    @property
    def inputs(self):
        return [TensorInfo("x", "FP64", (-1, 2))]

    @property
    def outputs(self):
        return []


def engine(predictor=None, **stages):
    return Engine(Chain(predictor or Doubler(), **stages, max_rows=100), "3", LIMITS)


def grpc(value, *, rows=1, raw=True, width=2, wanted=()):
    data = np.full((rows, width), float(value))
    request = oip.ModelInferRequest(model_name="m", id=str(value), outputs=[{"name": name} for name in wanted])
    tensor = request.inputs.add(name="x", datatype="FP64", shape=data.shape)
    if raw:
        request.raw_input_contents.append(data.tobytes())
    else:
        tensor.contents.fp64_contents.extend(data.ravel())
    return Door.GRPC, request.SerializeToString(), None


def v2(value, *, binary=False):
    data = np.full((1, 2), float(value))
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, 2]}
    body = {"id": str(value), "inputs": [tensor]}
    if not binary:
        tensor["data"] = data.ravel().tolist()
        return Door.REST_V2, json.dumps(body).encode(), None
    tensor["parameters"] = {"binary_data_size": data.nbytes}
    body["parameters"] = {"binary_data_output": True}
    head = json.dumps(body).encode()
    return Door.REST_V2, head + data.tobytes(), len(head)


def v1(value):
    return Door.REST_V1, json.dumps({"instances": [[value, value]]}).encode(), None


def ask(engine, *requests, deadline=0.0):
    jobs = [
        engine.take(number, door, "m", body, length, deadline) for number, (door, body, length) in enumerate(requests)
    ]
    replies = engine.answer(jobs)
    assert [reply.number for reply in replies] == list(range(len(requests)))
    return [(reply.code, b"".join(reply.answer.parts), reply.answer.json_length) for reply in replies]


def number_of(request, answer):
    """Reads the first number of an answer, by the door."""
    code, body, json_length = answer
    assert code == 0, body
    if request[0] is Door.GRPC:
        message = oip.ModelInferResponse.FromString(body)
        assert (message.model_name, message.model_version) == ("m", "3") and message.outputs[0].name == "y"
        if message.raw_output_contents:
            return np.frombuffer(message.raw_output_contents[0])[0]
        return message.outputs[0].contents.fp64_contents[0]
    if request[0] is Door.REST_V1:
        return json.loads(body)["predictions"][0][0]
    content = json.loads(body[:json_length])
    assert (content["model_name"], content["model_version"]) == ("m", "3")
    return content["outputs"][0]["data"][0] if json_length is None else np.frombuffer(body[json_length:])[0]


def test_requests_of_all_doors_share_a_batch():
    model = Doubler()
    requests = [grpc(1), grpc(2, raw=False), v2(3), v2(4, binary=True), grpc(6, rows=3)]
    answers = ask(engine(model), *requests)
    assert [number_of(*pair) for pair in zip(requests, answers, strict=True)] == [2, 4, 6, 8, 12]
    assert model.rows == [7]


def test_v1_has_a_name_of_its_own_for_its_input():
    request = v1(5)
    assert number_of(request, ask(engine(), request)[0]) == 10


def error_of(answer):
    return answer[0], json.loads(answer[1])["message"]


def test_each_gets_its_own_error_and_the_others_their_answers():
    requests = [grpc(1), grpc(7), grpc(13), grpc(1, width=3), grpc(1, wanted=["z"]), (Door.GRPC, b"\x0a", None), v2(2)]
    found = ask(engine(), *requests)
    assert (number_of(requests[0], found[0]), number_of(requests[6], found[6])) == (2, 4)
    errors = [error_of(answer) for answer in found[1:6]]
    assert [code for code, _ in errors] == [3, 13, 3, 3, 3]
    words = ("sevens are not taken", "RuntimeError", "[-1, 2], got [1, 3]", "no output 'z'", "not a valid message")
    for (_, message), word in zip(errors, words, strict=True):
        assert word in message
    assert "nobody" not in errors[1][1]


def test_a_passed_deadline_is_not_computed():
    model = Doubler()
    late = time.monotonic() - 1
    assert error_of(ask(engine(model), grpc(1), deadline=late)[0])[0] == 4
    assert model.rows == []


def test_stages_see_each_request_alone_and_the_model_all():
    seen = []

    def centre(x: np.ndarray) -> np.ndarray:
        seen.append(len(x))
        return x - x.mean() + 1

    model = Doubler()
    requests = [grpc(1), grpc(100, rows=2)]
    found = ask(engine(model, preprocessor=Stage("preprocessor", centre, takes_mapping=False)), *requests)
    assert [number_of(*pair) for pair in zip(requests, found, strict=True)] == [2, 2]
    assert (seen, model.rows) == ([1, 2], [3])


def test_async_stages_run_side_by_side():
    both = asyncio.Barrier(2)

    async def wait_for_the_other(y: np.ndarray) -> np.ndarray:
        await asyncio.wait_for(both.wait(), 10)
        if y[0, 0] == 4:
            raise ValueError("no fours")
        return y

    stage = Stage("postprocessor", wait_for_the_other, takes_mapping=False)
    first, second = ask(engine(postprocessor=stage), grpc(1), grpc(2))
    assert number_of(grpc(1), first) == 2
    assert error_of(second)[0] == 3 and "no fours" in error_of(second)[1]


def test_large_tensors_pass_whole():
    request = grpc(3, rows=30_000)
    code, body, _ = ask(engine(), request)[0]
    message = oip.ModelInferResponse.FromString(body)
    assert code == 0 and message.id == "3"
    assert np.array_equal(np.frombuffer(message.raw_output_contents[0]).reshape(-1, 2), np.full((30_000, 2), 6.0))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | VALUES,
        "datatype": st.sampled_from(["FP64", "BYTES", "INT8", "BOOL"]) | VALUES,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | VALUES,
        "data": st.lists(st.floats(0, 9), max_size=6) | VALUES,
        "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-1, 40)) | VALUES,
    },
)
BODIES = st.fixed_dictionaries(
    {},
    optional={"inputs": st.lists(TENSORS, max_size=3) | VALUES, "instances": VALUES, "outputs": VALUES, "id": VALUES},
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([Door.REST_V2, Door.REST_V1]), BODIES, st.binary(max_size=40))
def test_json_of_any_form_is_answered_or_refused(door, body, more):
    head = json.dumps(body).encode()
    bad, good = ask(engine(), (door, head + more, len(head)), grpc(1))
    assert bad[0] in {0, 3} and number_of(grpc(1), good) == 2


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_broken_protobufs_are_answered_or_refused(data):
    body = bytearray(grpc(data.draw(st.integers(0, 9)), rows=2, raw=data.draw(st.booleans()))[1])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position] = data.draw(st.integers(0, 255))
    bad, good = ask(engine(), (Door.GRPC, bytes(body[: data.draw(st.integers(1, len(body)))]), None), grpc(1))
    assert bad[0] in {0, 3} and number_of(grpc(1), good) == 2


@pytest.mark.parametrize("door", list(Door))
def test_of_nothing_comes_an_error(door):
    (answer,) = ask(engine(), (door, b"", None))
    assert answer[0] == (12 if door is Door.EXPLAIN else 3)
