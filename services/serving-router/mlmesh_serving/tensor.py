"""Tensors and datatypes of the Open Inference Protocol, on numpy.

Source: https://github.com/kserve/open-inference-protocol, "Tensor Data Types".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mlmesh_kit.errors import InvalidArgument
from numpy.typing import NDArray

from mlmesh_serving.datatypes import Limits, TensorInfo

__all__ = [
    "NUMPY_OF",
    "UNSERVED_PARAMETERS",
    "Limits",
    "Tensor",
    "TensorInfo",
    "as_tensor",
    "bytes_array",
    "check_datatype",
    "check_inputs",
    "check_names",
    "check_shape",
    "datatype_of",
]

NUMPY_OF: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
"""Datatype → numpy; BYTES are arrays of `bytes` objects."""

UNSERVED_PARAMETERS = ("shared_memory_region", "classification")
"""Parameters of a tensor (extensions of the protocol) that change what the answer is, and are not served."""

_NAME_OF = {dtype: name for name, dtype in NUMPY_OF.items()}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array.

    Attributes:
        name: As the client or the model calls it.
        data: Of the tensor's shape; its dtype is one of NUMPY_OF's.
    """

    name: str
    data: NDArray[Any]

    @property
    def datatype(self) -> str:
        """The protocol's name of the dtype."""
        return datatype_of(self.data.dtype)


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Gives the protocol's name of a numpy dtype.

    Raises:
        TypeError: The protocol has none.
    """
    found = _NAME_OF.get(dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype)
    if found is None and dtype.kind in "SU":
        found = "BYTES"
    if found is None:
        raise TypeError(f"the Open Inference Protocol has no datatype for numpy's {dtype}")
    return found


def as_tensor(name: str, value: Any) -> Tensor:
    """Makes a tensor of what a stage returned: an array, a list, a number, text.

    Raises:
        TypeError, ValueError: It cannot be a tensor.
    """
    data = np.asarray(value)
    if data.dtype.kind in "SU":
        flat = [item if isinstance(item, bytes) else str(item).encode() for item in data.ravel().tolist()]
        return Tensor(name, bytes_array(flat, data.shape))
    if data.dtype.kind == "O":
        flat = [_as_bytes(item) for item in data.ravel().tolist()]
        return Tensor(name, bytes_array(flat, data.shape))
    datatype = datatype_of(data.dtype)
    return Tensor(name, data.astype(NUMPY_OF[datatype], copy=False))


def _as_bytes(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode()
    raise TypeError(f"an array of {type(item).__name__} cannot be a tensor")


def bytes_array(items: Sequence[bytes], shape: Sequence[int]) -> NDArray[Any]:
    """Makes a BYTES array of the shape; the number of items must fit it."""
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(tuple(shape))


def check_shape(shape: Sequence[int], field: str, limits: Limits) -> int:
    """Gives the number of elements of a shape that a client declared.

    Raises:
        InvalidArgument: A negative dimension, too many dimensions, or too many elements.
    """
    if len(shape) > 32:
        raise InvalidArgument(f"must have at most 32 dimensions, got {len(shape)}", field=f"{field}.shape")
    if any(dimension < 0 for dimension in shape):
        raise InvalidArgument(f"must have no negative dimension, got {list(shape)}", field=f"{field}.shape")
    count = math.prod(shape)
    # Beside a dimension of 0 another could be beyond what numpy can hold.
    if count > limits.max_elements or max(shape, default=0) > limits.max_elements:
        raise InvalidArgument(
            f"must hold at most {limits.max_elements} elements, got {list(shape)}", field=f"{field}.shape"
        )
    return count


def check_datatype(datatype: str, field: str) -> np.dtype[Any]:
    """Gives the numpy dtype of a datatype that a client declared.

    Raises:
        InvalidArgument: There is no such datatype.
    """
    dtype = NUMPY_OF.get(datatype)
    if dtype is None:
        raise InvalidArgument(f"must be one of {', '.join(NUMPY_OF)}, got {datatype!r}", field=f"{field}.datatype")
    return dtype


def check_names(names: Sequence[str], limits: Limits) -> None:
    """Checks the names of a request's tensors.

    Raises:
        InvalidArgument: None, too many, an empty one, or one twice.
    """
    if not names:
        raise InvalidArgument("must hold at least one tensor", field="inputs")
    if len(names) > limits.max_tensors:
        raise InvalidArgument(f"must hold at most {limits.max_tensors} tensors, got {len(names)}", field="inputs")
    for index, name in enumerate(names):
        if not name:
            raise InvalidArgument("must not be empty", field=f"inputs[{index}].name")
        if name in names[:index]:
            raise InvalidArgument(f"{name!r} is there twice", field=f"inputs[{index}].name")


def check_inputs(tensors: Sequence[Tensor], declared: Sequence[TensorInfo]) -> list[Tensor]:
    """Checks tensors against what a model says that it takes, and gives them in its order.

    Raises:
        InvalidArgument: One is missing, unknown, or of another datatype or shape.
    """
    given = {tensor.name: (index, tensor) for index, tensor in enumerate(tensors)}
    expected = ", ".join(map(str, declared))
    known = {info.name for info in declared}
    for name, (index, _) in given.items():
        if name not in known:
            raise InvalidArgument(f"there is no input {name!r}; expected {expected}", field=f"inputs[{index}].name")
    ordered = []
    for info in declared:
        if info.name not in given:
            raise InvalidArgument(f"{info} is missing", field="inputs")
        index, tensor = given[info.name]
        where = f"inputs[{index}] ({info.name})"
        if tensor.datatype != info.datatype:
            raise InvalidArgument(f"must be {info.datatype}, got {tensor.datatype}", field=f"{where}.datatype")
        if not info.has_shape(tensor.data.shape):
            raise InvalidArgument(f"must be {list(info.shape)}, got {list(tensor.data.shape)}", field=f"{where}.shape")
        ordered.append(tensor)
    return ordered
