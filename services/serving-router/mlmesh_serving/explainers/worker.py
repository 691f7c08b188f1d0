"""The process that explains: one request after the other. Asks the model through the router, in batches.

Run as `python -m mlmesh_serving.explainers.worker SOCKET`.
"""

import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from mlmesh_kit.errors import FailedPrecondition, Internal, InvalidArgument, ServiceError
from numpy.typing import NDArray

from mlmesh_serving.codecs import json as codec
from mlmesh_serving.codecs.raw import encode_raw
from mlmesh_serving.companion import read_frame, send_frame
from mlmesh_serving.explainers import kinds
from mlmesh_serving.explainers.base import Explainer
from mlmesh_serving.explainers.plan import ExplainerPlan
from mlmesh_serving.observers.detectors.reference import read_table
from mlmesh_serving.tensor import NUMPY_OF, Limits, Tensor
from mlmesh_serving.workers.faults import decode_fault, encode_fault

logger = logging.getLogger(__name__)

_LIMITS = Limits(max_elements=16_000_000, max_tensors=64)


class GivenUp(Exception):
    """Nobody waits for the explanation any more."""


class Worker:
    """Explains for one model.

    Args:
        connection: To the router.
        plan: What to do.
        explainer: How.
    """

    def __init__(self, connection: socket.socket, plan: ExplainerPlan, explainer: Explainer) -> None:
        self._connection = connection
        self._plan = plan
        self._explainer = explainer

    def serve(self) -> None:
        """Serves until the router is gone."""
        while True:
            kind, content = read_frame(self._connection)
            if kind == kinds.EXPLAIN:
                self._answer(content)
            # else: a prediction that was asked for by a request that is over

    def _answer(self, content: bytes) -> None:
        number, json_length, length = kinds.REQUEST.unpack_from(content)
        start = kinds.REQUEST.size + length
        model = content[kinds.REQUEST.size : start].decode()
        code, body = 0, b""
        try:
            given = memoryview(content)[start:]
            body = self._explain(number, model, given, len(given) if json_length == kinds.ALL_JSON else json_length)
        except ServiceError as error:
            code, body = encode_fault(error)
        except GivenUp:
            code, body = encode_fault(Internal("nobody waits for it"))
        except Exception as error:
            logger.error("explaining failed", exc_info=error)
            code, body = encode_fault(Internal(f"the explainer raised {type(error).__name__}; the log has it"))
        send_frame(self._connection, kinds.EXPLAINED, kinds.EXPLAINED_HEAD.pack(number, code), body)

    def _explain(self, number: int, model: str, content: memoryview, json_length: int) -> bytes:
        body = codec.parse(content[:json_length])
        is_v2 = "inputs" in body
        if is_v2:
            tensors = codec.decode_v2(body, content[json_length:], _LIMITS)
            if len(tensors) != 1:
                raise InvalidArgument(f"must hold one tensor, got {len(tensors)}", field="inputs")
            tensor = tensors[0]
        else:
            tensor = codec.decode_v1(body, _LIMITS)
        rows, shape = self._rows(tensor, "inputs[0]" if is_v2 else "instances")
        asking = _Asking(self._connection, self._plan, number, tensor.name, shape)
        found = self._explainer.explain(rows, asking.predict, body)
        return _encode_v2(model, body, found) if is_v2 else _encode_v1(found, self._plan)

    def _rows(self, tensor: Tensor, field: str) -> tuple[NDArray[Any], tuple[int, ...]]:
        if tensor.data.dtype.kind not in "biuf":
            raise InvalidArgument("must be numbers", field=field)
        count = len(tensor.data) if tensor.data.ndim else 0
        if not 1 <= count <= self._plan.max_instances:
            raise InvalidArgument(f"must be 1 to {self._plan.max_instances} instances, got {count}", field=field)
        rows = tensor.data.reshape(count, -1).astype(np.float64)
        names = self._plan.feature_names
        if names and len(names) != rows.shape[1]:
            raise InvalidArgument(f"must have {len(names)} features, got {rows.shape[1]}", field=field)
        return rows, tensor.data.shape[1:]


class _Asking:
    """Asks the model for one request, within the limits of it."""

    def __init__(
        self, connection: socket.socket, plan: ExplainerPlan, number: int, name: str, shape: tuple[int, ...]
    ) -> None:
        self._connection = connection
        self._plan = plan
        self._number = number
        self._name = plan.input_name or name
        self._dtype = NUMPY_OF[plan.input_datatype or "FP64"]
        self._shape = shape
        self._left = plan.max_predictions

    def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
        """See Predict.

        Raises:
            InvalidArgument: The request needs too many predictions.
            FailedPrecondition: The model's answer is no numbers.
        """
        rows = np.atleast_2d(np.asarray(rows))
        self._left -= len(rows)
        if self._left < 0:
            raise InvalidArgument(
                f"needs more than {self._plan.max_predictions} predictions: ask for fewer instances", field="instances"
            )
        step = self._plan.batch_rows
        return np.concatenate([self._ask(rows[start : start + step]) for start in range(0, len(rows), step)])

    def _ask(self, rows: NDArray[Any]) -> NDArray[Any]:
        tensor = Tensor(self._name, rows.astype(self._dtype).reshape(len(rows), *self._shape))
        raw = encode_raw(tensor)
        described = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.data.shape,
            "parameters": {"binary_data_size": len(raw)},
        }
        head = orjson.dumps({"inputs": [described], "parameters": {"binary_data_output": True}})
        asked = kinds.PREDICT_HEAD.pack(self._number, len(head))
        send_frame(self._connection, kinds.PREDICT, asked, head, bytes(raw))
        kind, content = read_frame(self._connection)
        if kind != kinds.PREDICTED:
            raise GivenUp
        code, length = kinds.PREDICTED_HEAD.unpack_from(content)
        body = content[kinds.PREDICTED_HEAD.size :]
        if code:
            raise decode_fault(code, body)
        return self._output(body, len(body) if length == kinds.ALL_JSON else length, len(rows))

    def _output(self, body: bytes, length: int, count: int) -> NDArray[Any]:
        view = memoryview(body)
        answer = codec.parse(view[:length])
        outputs = codec.decode_v2({"inputs": answer.get("outputs")}, view[length:], _LIMITS)
        wanted = [output for output in outputs if not self._plan.output or output.name == self._plan.output]
        if not wanted:
            raise FailedPrecondition(f"{self._plan.field}: the model has no output {self._plan.output!r}")
        data = wanted[0].data
        if data.dtype.kind not in "biuf" or data.ndim == 0 or len(data) != count:
            raise FailedPrecondition(
                f"the output {wanted[0].name!r} ({wanted[0].datatype} {list(data.shape)}) cannot be explained: "
                "it must be numbers, one row for each instance"
            )
        return data.reshape(count, -1).astype(np.float64)


def _encode_v1(found: dict[str, Any], plan: ExplainerPlan) -> bytes:
    if plan.feature_names:
        found["feature_names"] = list(plan.feature_names)
    return _dump({"explanations": {key: _squeezed(value) for key, value in found.items()}})


def _squeezed(value: Any) -> Any:
    """Gives an array of one output without the dimension of the outputs."""
    if isinstance(value, np.ndarray) and value.ndim > 1 and value.shape[-1] == 1:
        return np.ascontiguousarray(value[..., 0])
    return value


def _encode_v2(model: str, body: Mapping[str, Any], found: dict[str, Any]) -> bytes:
    """Gives arrays as outputs, and what is no array as parameters."""
    outputs, parameters = [], {}
    for key, value in found.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            data = _squeezed(value).astype(np.float64)
            outputs.append({"name": key, "datatype": "FP64", "shape": data.shape, "data": data.ravel()})
        else:
            parameters[key] = value
    answer = {"model_name": model, "outputs": outputs, "parameters": parameters}
    if isinstance(body.get("id"), str):
        answer["id"] = body["id"]
    return _dump(answer)


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except (orjson.JSONEncodeError, TypeError) as error:
        raise Internal(f"the explainer gave what JSON cannot hold: {error}") from error


def make_explainer(plan: ExplainerPlan) -> Explainer:
    """Loads what a plan says.

    Raises:
        FailedPrecondition: Something is missing, or cannot be loaded.
    """
    background = None
    if plan.background:
        background = read_table(Path(plan.background_path), plan.input_name, f"{plan.field}.storageUri")
        if background.dtype.kind not in "biuf" or not np.isfinite(background).all():
            raise FailedPrecondition(f"{plan.field}.storageUri: must hold finite numbers")
        background = background.astype(np.float64)
    if plan.method == "python":
        from mlmesh_serving.explainers.python import PythonExplainer

        return PythonExplainer(Path(plan.code_path), plan.target)
    if plan.method == "permutation":
        from mlmesh_serving.explainers.importance import PermutationImportance

        return PermutationImportance(plan.repeats, plan.loss)
    if plan.method == "occlusion":
        from mlmesh_serving.explainers.occlusion import Occlusion

        assert background is not None
        return Occlusion(background)
    from mlmesh_serving.explainers.shapley import Shapley

    return Shapley(plan.algorithm, background, _load_model(plan), plan.samples)


def _load_model(plan: ExplainerPlan) -> Any:
    """Loads the model itself; a pickle runs code: the router has checked that it may be trusted."""
    if not plan.model:
        return None
    import joblib

    path = Path(plan.model_path)
    suffixes = (".joblib", ".pkl", ".pickle")
    found = [path] if path.is_file() else [file for file in path.iterdir() if file.suffix in suffixes]
    if len(found) != 1 or not found[0].resolve().is_relative_to(path.resolve()):
        raise FailedPrecondition(f"{plan.field}: the model's folder must hold exactly one model file")
    try:
        return joblib.load(found[0])
    except Exception as error:
        raise FailedPrecondition(f"{found[0].name} cannot be loaded: {type(error).__name__}") from error


def main() -> None:
    """Runs the process."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(sys.argv[1])
        try:
            _, content = read_frame(connection)
            plan = ExplainerPlan.from_message(orjson.loads(content))
            try:
                explainer = make_explainer(plan)
            except ServiceError as error:
                code, body = encode_fault(error)
                send_frame(connection, kinds.FAILED, bytes([code]), body)
                return
            send_frame(connection, kinds.READY)
            Worker(connection, plan, explainer).serve()
        except (EOFError, OSError):
            pass  # the router is gone
    sys.stderr.flush()
    os._exit(0)  # whatever threads the user's code has left


if __name__ == "__main__":
    main()
