"""What a user of tritonclient does, over gRPC and over HTTP, as a list of answers.

Runs in the environment of the stock client, never in ours: `python scenarios.py grpc|http HOST:PORT MODEL CHAINED`.
MODEL takes the four lengths of an iris and gives its class; CHAINED has a preprocessor and a postprocessor, and gives
label (BYTES) and probabilities. Prints one JSON object: each step's answer, or the status of its error.
"""

import json
import queue
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

FLOWERS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]])


class Recorder:
    """Runs steps and keeps what each answered."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}

    def step(self, name: str, call: Callable[[], Any]) -> Any:
        """Runs a step; its error is an answer too."""
        assert name not in self.answers, name
        try:
            value = call()
        except InferenceServerException as error:
            self.answers[name] = {"status": error.status(), "message": error.message()}
            return None
        self.answers[name] = value
        return value


def tensor(module: Any, data: np.ndarray, name: str = "x", datatype: str = "FP64", **options: Any) -> Any:
    made = module.InferInput(name, list(data.shape), datatype)
    made.set_data_from_numpy(data, **options)
    return made


def run(module: Any, client: Any, model: str, chained: str, over_http: bool) -> dict[str, Any]:
    r = Recorder()
    as_json = {} if over_http else {"as_json": True}
    r.step("live", client.is_server_live)
    r.step("ready", client.is_server_ready)
    r.step("model ready", lambda: client.is_model_ready(model))
    r.step("unknown model ready", lambda: client.is_model_ready("nothing"))
    r.step("server metadata", lambda: sorted(client.get_server_metadata(**as_json)))
    r.step("model metadata", lambda: client.get_model_metadata(model, **as_json)["name"])
    r.step("unknown model metadata", lambda: client.get_model_metadata("nothing", **as_json))

    def predict(name: str = model, data: np.ndarray = FLOWERS, output: str = "predict", **options: Any) -> Any:
        answer = client.infer(name, [tensor(module, data)], **options)
        return answer.as_numpy(output).tolist()

    r.step("infer", predict)
    r.step("one flower", lambda: predict(data=FLOWERS[:1]))
    r.step("request id", lambda: response_id(client.infer(model, [tensor(module, FLOWERS)], request_id="my-id")))
    wanted = [module.InferRequestedOutput("predict")]
    r.step("wanted output", lambda: predict(outputs=wanted))
    nothing = [module.InferRequestedOutput("nothing")]
    r.step("unknown output", lambda: predict(outputs=nothing))
    r.step("parameters", lambda: predict(parameters={"note": "x", "number": 1}))
    r.step(
        "whole numbers",
        lambda: (
            client.infer(model, [tensor(module, FLOWERS.astype(np.float32), datatype="FP32")])
            .as_numpy("predict")
            .tolist()
        ),
    )
    r.step("chained", lambda: predict(chained, output="probabilities", data=2 * FLOWERS))
    r.step(
        "BYTES come back",
        lambda: [
            text.decode() for text in client.infer(chained, [tensor(module, 2 * FLOWERS)]).as_numpy("label").ravel()
        ],
    )
    both = [module.InferRequestedOutput(name) for name in ("probabilities", "label")]
    r.step("both outputs", lambda: names(client.infer(chained, [tensor(module, FLOWERS)], outputs=both), over_http))
    if over_http:
        r.step(
            "JSON in, JSON out",
            lambda: (
                client.infer(
                    model,
                    [tensor(module, FLOWERS, binary_data=False)],
                    outputs=[module.InferRequestedOutput("predict", binary_data=False)],
                )
                .as_numpy("predict")
                .tolist()
            ),
        )
        r.step("compressed", lambda: predict(request_compression_algorithm="gzip"))
        futures = [client.async_infer(model, [tensor(module, FLOWERS)]) for _ in range(8)]
        r.step("async", lambda: [future.get_result().as_numpy("predict").tolist() for future in futures])
    else:
        answers: queue.Queue[Any] = queue.Queue()
        for _ in range(8):
            client.async_infer(model, [tensor(module, FLOWERS)], lambda result, error: answers.put((result, error)))
        found = [answers.get(timeout=30) for _ in range(8)]
        r.step("async", lambda: [result.as_numpy("predict").tolist() for result, error in found if error is None])
        client.start_stream(lambda result, error: answers.put((result, error)))
        for name in (model, "nothing", model):
            client.async_stream_infer(name, [tensor(module, FLOWERS)])
        streamed = [answers.get(timeout=30) for _ in range(3)]
        client.stop_stream()
        r.step("stream", lambda: ["error" if e else result.as_numpy("predict").tolist() for result, e in streamed])

    r.step("unknown model", lambda: predict("nothing"))
    r.step("unknown version", lambda: predict(model_version="99"))
    r.step("wrong width", lambda: predict(data=np.ones((2, 3))))
    r.step("wrong rank", lambda: predict(data=np.ones((2, 2, 4))))
    r.step(
        "text for numbers",
        lambda: client.infer(model, [tensor(module, np.array([[b"a"] * 4], dtype=np.object_), datatype="BYTES")]),
    )
    r.step("refused by the preprocessor", lambda: predict(chained, data=-FLOWERS))
    r.step("no inputs", lambda: client.infer(model, []))
    r.step("still there", predict)

    index = r.step("index", lambda: index_of(client, as_json))
    r.step("index names both", lambda: [name in index for name in (model, chained)])
    r.step("unload", lambda: client.unload_model(model))
    r.step("unloaded is not ready", lambda: client.is_model_ready(model))
    r.step("unloaded", predict)
    r.step("load", lambda: client.load_model(model))
    r.step("loaded is ready", lambda: client.is_model_ready(model))
    r.step("loaded", predict)
    r.step("load unknown", lambda: client.load_model("nothing"))
    r.answers.pop("index")
    return r.answers


def index_of(client: Any, as_json: dict[str, Any]) -> list[str]:
    found = client.get_model_repository_index(**as_json)
    return [entry["name"] for entry in (found.get("models", []) if isinstance(found, dict) else found)]


def response_id(answer: Any) -> str:
    response = answer.get_response()
    return str(response["id"] if isinstance(response, dict) else response.id)


def names(answer: Any, over_http: bool) -> list[str]:
    response = answer.get_response()
    return [
        output["name"] if over_http else output.name
        for output in (response["outputs"] if over_http else response.outputs)
    ]


def main() -> None:
    protocol, address, model, chained = sys.argv[1:]
    module = tritonclient.http if protocol == "http" else tritonclient.grpc
    with module.InferenceServerClient(address) as client:
        answers = run(module, client, model, chained, protocol == "http")
    json.dump(answers, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
