"""What a user of tritonclient does with a server that gives its inputs back: `python triton_steps.py HOST:PORT`.

Runs in the environment of the stock client. Prints one JSON object: each step's answer.
"""

import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def tensor(data: Any) -> Any:
    made = triton.InferInput("x", list(data.shape), "FP32")
    made.set_data_from_numpy(data)
    return made


def main(address: str) -> dict[str, Any]:
    keepalive = triton.KeepAliveOptions(keepalive_time_ms=50, keepalive_permit_without_calls=True)
    client = triton.InferenceServerClient(address, keepalive_options=keepalive)
    small = np.arange(8, dtype=np.float32)
    large = np.arange(8 << 20, dtype=np.float32)  # 32 MiB
    found: dict[str, Any] = {"live": client.is_server_live()}
    for algorithm in (None, "gzip", "deflate"):
        answer = client.infer("m", [tensor(small)], compression_algorithm=algorithm, request_id="r1")
        found[f"small {algorithm}"] = answer.as_numpy("x").tolist() == small.tolist()
    found["large"] = bool((client.infer("m", [tensor(large)]).as_numpy("x") == large).all())
    told = client.infer("m", [tensor(small)], headers={"x-told": "by a header"})
    found["told"] = told.get_response().parameters["told"].string_param
    try:
        client.infer("slow", [tensor(small)], client_timeout=0.2)
    except InferenceServerException as error:
        found["deadline"] = error.status()
    try:
        client.infer("nothing", [tensor(small)])
    except InferenceServerException as error:
        found["nothing"] = [error.status(), error.message()]
    answers: queue.Queue[Any] = queue.Queue()
    call = client.async_infer("slow", [tensor(small)], callback=lambda result, error: answers.put(error))
    call.cancel()
    found["cancelled"] = "CANCELLED" in str(answers.get(timeout=10).status())
    for _ in range(50):
        client.async_infer("m", [tensor(small)], callback=lambda result, error: answers.put(error))
    found["async"] = [answers.get(timeout=10) for _ in range(50)] == [None] * 50
    client.start_stream(callback=lambda result, error: answers.put(error or result.as_numpy("x").tolist()))
    for number in range(20):
        client.async_stream_infer("m", [tensor(small + number)])
    found["stream"] = [answers.get(timeout=10) for _ in range(20)] == [(small + n).tolist() for n in range(20)]
    client.stop_stream()
    client.close()
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
