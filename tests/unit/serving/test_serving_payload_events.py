"""Payloads as CloudEvents: types, attributes, contents, and what is never logged."""

import base64

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.manifest import LoggerMode, LoggerSpec
from mlmesh_serving.observers.cloudevent import CloudEvent
from mlmesh_serving.observers.contents import answer_tensors, request_tensors
from mlmesh_serving.observers.observation import Observation
from mlmesh_serving.observers.payload_logger import PayloadLogger, event_id
from mlmesh_serving.observers.redaction import Redaction
from mlmesh_serving.observers.subject import Subject
from mlmesh_serving.tensor import Limits

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a machine may be busy

LIMITS = Limits(max_elements=1000, max_tensors=8)
V1 = WireRequest(Door.REST_V1, "iris", b'{"instances": [[1, 2]]}')
V1_ANSWER = WireAnswer(b'{"predictions": [0]}')


def events(request, answer=None, *, mode=LoggerMode.ALL, headers=(), annotations=None, redaction=None):
    spec = LoggerSpec(mode, "http://sink/", tuple(headers), annotations or {}, "f")
    subject = Subject("team", "iris", 4, "canary", logger=spec)
    logger = PayloadLogger(subject, spec, redaction or Redaction(), LIMITS)
    observation = Observation(1, 1_700_000_000.25, request, answer)
    made = logger.events(observation, "id-1")
    assert len(made) <= logger.wanted(observation)
    return made


def test_events_have_the_attributes_of_kserves_logger():
    asked, answered = events(V1, V1_ANSWER)
    assert asked.http_headers() == {
        "ce-specversion": "1.0",
        "ce-type": "org.kubeflow.serving.inference.request",
        "ce-source": "/namespaces/team/inferenceservices/iris/revisions/4",
        "ce-id": "id-1",
        "ce-time": "2023-11-14T22:13:20.250000Z",
        "ce-inferenceservicename": "iris",
        "ce-namespace": "team",
        "ce-component": "predictor",
        "ce-endpoint": "canary",
        "ce-metadata": "{}",
        "content-type": "application/json",
    }
    assert asked.data == V1.body
    assert answered.type == "org.kubeflow.serving.inference.response"
    assert (answered.id, answered.data) == ("id-1", V1_ANSWER.body)


@pytest.mark.parametrize(
    ("mode", "answer", "types"),
    [
        (LoggerMode.ALL, V1_ANSWER, ["request", "response"]),
        (LoggerMode.REQUEST, V1_ANSWER, ["request"]),
        (LoggerMode.RESPONSE, V1_ANSWER, ["response"]),
        (LoggerMode.ALL, None, ["request"]),
        (LoggerMode.RESPONSE, None, []),
    ],
)
def test_the_mode_says_what_is_logged_and_failures_have_no_answer(mode, answer, types):
    assert [event.type.rsplit(".", 1)[1] for event in events(V1, answer, mode=mode)] == types


def test_headers_and_annotations_go_along_but_never_secrets():
    secrets = {"authorization": "Bearer x", "cookie": "a=b", "kubeflow-userid": "me@here", "x-team-key": "k"}
    request = WireRequest(Door.REST_V1, "iris", V1.body, headers={**secrets, "x-trace": 'a "b" ü'})
    redaction = Redaction(headers=["X-Team-Key"])
    (asked,) = events(request, headers=[*secrets, "x-trace"], annotations={"owner": "ml"}, redaction=redaction)
    assert orjson.loads(asked.extensions["metadata"]) == {"x-trace": ['a "b" ü']}
    assert orjson.loads(asked.extensions["annotations"]) == {"owner": "ml"}
    header = asked.http_headers()["ce-metadata"]
    assert header.isascii() and " " not in header and '"' not in header


@patient
@given(st.text(max_size=40))
def test_every_attribute_survives_an_http_header(text):
    from urllib.parse import unquote

    value = CloudEvent("t", "s", text, 0, "application/json", b"").http_headers()["ce-id"]
    assert all(0x21 <= ord(c) <= 0x7E and c != '"' for c in value)
    assert unquote(value) == text.encode("utf-8", "replace").decode()


def infer_request(raw: bool, text: bytes = b"a") -> bytes:
    request = oip.ModelInferRequest(model_name="iris", id="7")
    request.parameters["seed"].int64_param = 3
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.inputs.add(name="t", datatype="BYTES", shape=[1])
    if raw:
        request.raw_input_contents.append(np.array([1.5, 2], "<f4").tobytes())
        request.raw_input_contents.append(len(text).to_bytes(4, "little") + text)
    else:
        request.inputs[0].contents.fp32_contents.extend([1.5, 2])
        request.inputs[1].contents.bytes_contents.append(text)
    return request.SerializeToString()


@pytest.mark.parametrize("raw", [True, False])
def test_grpc_payloads_are_logged_as_json(raw):
    response = oip.ModelInferResponse(model_name="iris", model_version="4", id="7")
    response.outputs.add(name="y", datatype="INT64", shape=[1])
    response.raw_output_contents.append(np.array([9], "<i8").tobytes())
    answer = WireAnswer(response.SerializeToString())
    request = WireRequest(Door.GRPC, "iris", infer_request(raw))
    asked, answered = events(request, answer)
    assert asked.content_type == answered.content_type == "application/json"
    assert orjson.loads(asked.data) == {
        "model_name": "iris",
        "id": "7",
        "parameters": {"seed": 3},
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]},
            {"name": "t", "datatype": "BYTES", "shape": [1], "data": ["a"]},
        ],
    }
    assert orjson.loads(answered.data)["outputs"] == [{"name": "y", "datatype": "INT64", "shape": [1], "data": [9]}]
    assert answer_tensors(Door.GRPC, answer, LIMITS)[0].data.tolist() == [9]
    assert request_tensors(request, LIMITS)[0].data.tolist() == [[1.5, 2.0]]


def test_what_json_cannot_hold_is_logged_as_it_came():
    body = infer_request(True, b"\xff\xfe")
    (asked,) = events(WireRequest(Door.GRPC, "iris", body))
    assert (asked.content_type, asked.data) == ("application/x-protobuf", body)
    line = orjson.loads(asked.to_json())
    assert base64.b64decode(line["data_base64"]) == body


def test_binary_tensors_are_logged_as_json():
    head = orjson.dumps(
        {"inputs": [{"name": "x", "datatype": "INT32", "shape": [2], "parameters": {"binary_data_size": 8}}]}
    )
    body = head + np.array([3, 4], "<i4").tobytes()
    (asked,) = events(WireRequest(Door.REST_V2, "iris", body, len(head)))
    assert orjson.loads(asked.data)["inputs"] == [{"name": "x", "datatype": "INT32", "shape": [2], "data": [3, 4]}]


def test_redacted_fields_are_found_at_any_depth_and_as_tensors():
    body = b'{"instances": [{"ssn": "1-2", "age": 3}], "meta": {"deep": [{"ssn": 5}]}}'
    redaction = Redaction(fields=["ssn"])
    (asked,) = events(WireRequest(Door.REST_V1, "iris", body), redaction=redaction)
    assert orjson.loads(asked.data) == {
        "instances": [{"ssn": "[redacted]", "age": 3}],
        "meta": {"deep": [{"ssn": "[redacted]"}]},
    }
    (asked,) = events(WireRequest(Door.GRPC, "iris", infer_request(True)), redaction=Redaction(fields=["x"]))
    assert [i["data"] for i in orjson.loads(asked.data)["inputs"]] == ["[redacted]", ["a"]]


@pytest.mark.parametrize(
    "request_",
    [
        WireRequest(Door.REST_V1, "iris", b'{"ssn": "1-2"'),
        WireRequest(Door.GRPC, "iris", infer_request(True, b"\xff")),
        WireRequest(Door.GRPC, "iris", b"\xff\xff"),
    ],
)
def test_where_fields_cannot_be_found_nothing_is_logged(request_):
    assert events(request_, redaction=Redaction(fields=["ssn"])) == []


@patient
@given(st.sampled_from(Door), st.binary(max_size=80), st.one_of(st.none(), st.integers(0, 80)))
def test_any_bytes_can_be_logged(door, body, length):
    request = WireRequest(door, "iris", body, length)
    asked, answered = events(request, WireAnswer(body, length))
    for event in (asked, answered):
        line = event.to_json()
        assert b"\n" not in line
        assert orjson.loads(line)["id"] == "id-1"


def test_the_id_is_the_callers_or_a_new_one():
    def made(value):
        return event_id(Observation(1, 0, WireRequest(Door.GRPC, "m", b"", headers={"ce-id": value}), None))

    assert made("abc") == "abc"
    assert len({made(""), made("x" * 257), made("a\nb"), made("")}) == 4
