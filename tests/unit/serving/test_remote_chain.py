"""Chains of backends: what each stage is asked, by each door."""

import asyncio

import orjson
import pytest
from mlmesh_kit.errors import Internal, InvalidArgument, Unavailable, Unimplemented
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.remote.chain import ChainBackend


class Stage:
    """A backend that answers what a function makes of the request."""

    def __init__(self, answer, ready: int = 1) -> None:
        self._answer = answer
        self.ready = ready
        self.in_flight = 0
        self.asked: list[WireRequest] = []
        self.replicas = 0
        self.closed = False

    def submit(self, request: WireRequest):
        self.asked.append(request)

        async def run() -> WireAnswer:
            found = self._answer(request)
            if isinstance(found, Exception):
                raise found
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.ensure_future(run())

    async def scale(self, replicas: int) -> None:
        self.replicas = replicas

    async def close(self, grace_seconds: float) -> None:
        self.closed = True


def grpc_stage(number: float) -> Stage:
    """Adds a number to the inputs, and names the outputs after it."""

    def answer(request: WireRequest) -> WireAnswer:
        message = oip.ModelInferRequest.FromString(request.body)
        result = oip.ModelInferResponse(model_name=message.model_name, model_version="x", id=message.id)
        for tensor in message.inputs:
            made = result.outputs.add(name=f"{tensor.name}+{number:g}", datatype="FP64", shape=tensor.shape)
            made.contents.fp64_contents.extend(value + number for value in tensor.contents.fp64_contents)
        return WireAnswer(result.SerializeToString())

    return Stage(answer)


def ask(stages: list[Stage], request: WireRequest) -> WireAnswer:
    async def run() -> WireAnswer:
        return await ChainBackend(stages).submit(request)

    return asyncio.run(run())


def test_grpc_goes_from_stage_to_stage() -> None:
    message = oip.ModelInferRequest(model_name="m", model_version="1", id="7")
    message.inputs.add(name="x", datatype="FP64", shape=[2]).contents.fp64_contents.extend([1, 2])
    message.outputs.add(name="x+1+2+3")
    message.parameters["p"].string_param = "kept"
    request = WireRequest(Door.GRPC, "m", message.SerializeToString(), headers={"a": "b"}, deadline=9.0)
    stages = [grpc_stage(1), grpc_stage(2), grpc_stage(3)]
    answer = oip.ModelInferResponse.FromString(ask(stages, request).body)
    assert answer.id == "7" and list(answer.outputs[0].contents.fp64_contents) == [7, 8]
    asked = [oip.ModelInferRequest.FromString(stage.asked[0].body) for stage in stages]
    assert [[output.name for output in one.outputs] for one in asked] == [[], [], ["x+1+2+3"]]
    assert [one.inputs[0].name for one in asked] == ["x", "x+1", "x+1+2"]
    assert all(one.parameters["p"].string_param == "kept" and one.id == "7" for one in asked)
    for stage in stages:
        assert (stage.asked[0].headers, stage.asked[0].deadline, stage.asked[0].model) == ({"a": "b"}, 9.0, "m")


def v2_stage(name: str) -> Stage:
    def answer(request: WireRequest) -> WireAnswer:
        length = len(request.body) if request.json_length is None else request.json_length
        document = orjson.loads(request.body[:length])
        outputs = [{**tensor, "name": name} for tensor in document["inputs"]]
        head = orjson.dumps({"model_name": "other", "model_version": "4", "outputs": outputs})
        binary = request.body[length:]
        return WireAnswer(head + binary, len(head) if binary else None)

    return Stage(answer)


def test_rest_v2_goes_from_stage_to_stage_with_its_binary_tensors() -> None:
    tensor = {"name": "x", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": 2}}
    head = orjson.dumps({"id": "7", "inputs": [tensor], "outputs": [{"name": "post"}], "parameters": {"p": 1}})
    stages = [v2_stage("pre"), v2_stage("model")]
    answer = ask(stages, WireRequest(Door.REST_V2, "m", head + b"\x01\x02", len(head)))
    assert answer.json_length is not None and answer.body[answer.json_length :] == b"\x01\x02"
    first, second = (stage.asked[0] for stage in stages)
    assert orjson.loads(first.body[: first.json_length]) == {"id": "7", "inputs": [tensor], "parameters": {"p": 1}}
    expected = {
        "id": "7", "parameters": {"p": 1}, "outputs": [{"name": "post"}], "inputs": [{**tensor, "name": "pre"}],
    }  # fmt: skip
    assert orjson.loads(second.body[: second.json_length]) == expected
    assert second.body[second.json_length :] == b"\x01\x02"


def test_rest_v1_goes_from_stage_to_stage() -> None:
    stages = [
        Stage(lambda r: WireAnswer(orjson.dumps({"predictions": [[len(orjson.loads(r.body)["instances"])]]}))),
        Stage(lambda r: WireAnswer(b'{"predictions": ["last"]}')),
    ]
    answer = ask(stages, WireRequest(Door.REST_V1, "m", b'{"instances": [1, 2], "signature_name": "s"}'))
    assert answer.body == b'{"predictions": ["last"]}'
    assert orjson.loads(stages[1].asked[0].body) == {"instances": [[2]], "signature_name": "s"}


@pytest.mark.parametrize(
    ("door", "body", "answer"),
    [
        (Door.GRPC, b"\x0a\x01m", b"\x0a\xff"),
        (Door.REST_V2, b'{"inputs": []}', b"{"),
        (Door.REST_V2, b'{"inputs": []}', b'{"outputs": 3}'),
        (Door.REST_V1, b'{"instances": []}', b"[]"),
        (Door.REST_V1, b'{"instances": []}', b"{}"),
    ],
)
def test_a_stage_that_answers_nonsense_is_not_the_clients_fault(door: Door, body: bytes, answer: bytes) -> None:
    last = Stage(lambda r: WireAnswer(b""))
    with pytest.raises(Internal, match="a stage gave no valid answer"):
        ask([Stage(lambda r: WireAnswer(answer)), last], WireRequest(door, "m", body))
    assert not last.asked


def test_errors_end_the_chain() -> None:
    last = Stage(lambda r: WireAnswer(b""))
    with pytest.raises(Unavailable, match="not now"):
        ask([Stage(lambda r: Unavailable("not now")), last], WireRequest(Door.REST_V1, "m", b"{}"))
    with pytest.raises(InvalidArgument, match="body: must be JSON"):
        ask([last, last], WireRequest(Door.REST_V2, "m", b"{"))
    with pytest.raises(Unimplemented, match="not explained"):
        ask([last, last], WireRequest(Door.EXPLAIN, "m", b"{}"))
    assert not last.asked


def test_one_stage_is_asked_as_the_client_asked() -> None:
    only = Stage(lambda r: WireAnswer(r.body))
    request = WireRequest(Door.EXPLAIN, "m", b"anything")
    assert ask([only], request).body == b"anything" and only.asked == [request]


def test_a_chain_is_as_ready_as_its_stages_and_closes_them() -> None:
    async def run() -> None:
        given_up = asyncio.Event()

        async def hang() -> WireAnswer:
            try:
                await asyncio.sleep(60)
            finally:
                given_up.set()
            return WireAnswer(b"")

        stages = [Stage(lambda r: hang(), ready=1), Stage(lambda r: hang(), ready=3)]
        chain = ChainBackend(stages)
        assert chain.ready == 1
        stages[0].ready = 0
        assert chain.ready == 0
        await chain.scale(2)
        assert [stage.replicas for stage in stages] == [2, 2]
        pending = chain.submit(WireRequest(Door.REST_V1, "m", b"{}"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert chain.in_flight == 1
        await chain.close(0)
        assert pending.cancelled() and given_up.is_set() and all(stage.closed for stage in stages)
        with pytest.raises(Unavailable, match="no more requests"):
            chain.submit(WireRequest(Door.REST_V1, "m", b"{}"))

    asyncio.run(run())
