"""ONNX models, computed by ONNX Runtime."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition
from numpy.typing import NDArray

from mlmesh_serving.predictors.base import Arrays, Predictor, cast, only, require
from mlmesh_serving.predictors.options import PredictorOptions
from mlmesh_serving.storage import LocalModel
from mlmesh_serving.tensor import NUMPY_OF, TensorInfo

logger = logging.getLogger(__name__)

SUFFIXES = (".onnx",)
_DATATYPES = {
    "tensor(bool)": "BOOL", "tensor(uint8)": "UINT8", "tensor(uint16)": "UINT16", "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64", "tensor(int8)": "INT8", "tensor(int16)": "INT16", "tensor(int32)": "INT32",
    "tensor(int64)": "INT64", "tensor(float16)": "FP16", "tensor(float)": "FP32", "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}  # fmt: skip
_MAX_WARM = 1_000_000


class OnnxPredictor(Predictor):
    """A session of ONNX Runtime on the CPU.

    Args:
        session: It.
        options: How.
        outputs: Names of the outputs that are given, and what they are called; None: all that are tensors.
    """

    platform = "onnx_onnxv1"

    def __init__(self, session: Any, options: PredictorOptions, outputs: Mapping[str, str] | None = None) -> None:
        self._session = session
        self._inputs = [_info(node) for node in session.get_inputs()]
        for node, info in zip(session.get_inputs(), self._inputs, strict=True):
            if info is None:
                raise FailedPrecondition(
                    f"the input {node.name!r} is a {node.type}, which is no tensor of the protocol"
                )
        found = session.get_outputs()
        if outputs is not None:
            found = [node for node in found if node.name in outputs]
        # A dictionary for each row (ZipMap), as converters of scikit-learn make them unless told otherwise, is none.
        given = [(node, info) for node in found if (info := _info(node)) is not None]
        if not given:
            raise FailedPrecondition("the model gives no tensor")
        self._taken = [node.name for node, _ in given]
        names = [(outputs or {}).get(name, name) for name in self._taken]
        self._outputs = [TensorInfo(name, i.datatype, i.shape) for name, (_, i) in zip(names, given, strict=True)]
        self._dtypes = [NUMPY_OF[info.datatype] for info in self._known]
        rows = _keeps_rows(session.get_inputs(), [node for node, _ in given])
        self.keeps_rows = rows if options.keeps_rows is None else options.keeps_rows
        self._warm()

    @classmethod
    def load(cls, model: LocalModel, options: PredictorOptions) -> "OnnxPredictor":
        """See Predictor. Weights beside the model are read; those elsewhere the runtime refuses."""
        file = model.file(*SUFFIXES)
        return cls(open_session(file, options.threads), options)

    def predict(self, arrays: Arrays) -> Mapping[str, Any]:
        """See Predictor."""
        if len(self._inputs) == 1:
            fed = {self._known[0].name: _fed(only(arrays), self._dtypes[0])}
        else:
            fed = {i.name: _fed(arrays[i.name], d) for i, d in zip(self._known, self._dtypes, strict=True)}
        results = self._session.run(self._taken, fed)
        return {info.name: result for info, result in zip(self._outputs, results, strict=True)}

    @property
    def inputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return list(self._known)

    @property
    def outputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return self._outputs

    @property
    def _known(self) -> list[TensorInfo]:
        return self._inputs  # type: ignore[return-value]

    def _warm(self) -> None:
        zeros = {}
        for info, dtype in zip(self._known, self._dtypes, strict=True):
            shape = [2 if size < 0 else size for size in info.shape]
            if dtype.kind == "O" or math.prod(shape) > _MAX_WARM:
                return
            zeros[info.name] = np.zeros(shape, dtype)
        try:
            self.predict(zeros)
        except Exception as error:  # zeros may mean nothing to the model
            logger.info("not warmed: %s", type(error).__name__)


def open_session(model: Path | bytes, threads: int) -> Any:
    """Opens a session on the CPU.

    Args:
        model: A file, or its content.
        threads: How many compute.

    Raises:
        FailedPrecondition: It is no model, or needs what the runtime does not have.
    """
    runtime = require("onnxruntime")
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the CPU alone
    settings.log_severity_level = 3
    try:
        given = model if isinstance(model, bytes) else str(model)
        return runtime.InferenceSession(given, sess_options=settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors have no common class
        name = model.name if isinstance(model, Path) else "the converted model"
        raise FailedPrecondition(f"{name} cannot be loaded: {type(error).__name__}: {str(error)[:300]}") from error


def _info(node: Any) -> TensorInfo | None:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        return None
    return TensorInfo(node.name, datatype, tuple(size if isinstance(size, int) else -1 for size in node.shape))


def _keeps_rows(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    """Tells whether the first dimension is that of the rows everywhere: any size, and of one name if it has names."""
    shapes = [node.shape for node in (*inputs, *outputs)]
    if not all(shape and not isinstance(shape[0], int) for shape in shapes):
        return False
    names = {node.shape[0] for node in inputs if node.shape[0] is not None}
    return len(names) <= 1


def _fed(data: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind != "O":
        return cast(data, dtype)
    if data.dtype.kind != "O":
        raise TypeError(f"it must be BYTES, got {data.dtype}")
    texts = np.empty(data.size, dtype=object)
    texts[:] = [item.decode() for item in data.ravel().tolist()]  # what is no UTF-8 is a ValueError
    return texts.reshape(data.shape)
