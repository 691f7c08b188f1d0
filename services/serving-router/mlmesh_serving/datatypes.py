"""Datatypes and metadata of tensors in the Open Inference Protocol; without numpy, for the router has none.

Source: https://github.com/kserve/open-inference-protocol, "Tensor Data Types".
"""

from collections.abc import Sequence
from dataclasses import dataclass

DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip
"""Those that are served."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Metadata of an input or an output.

    Attributes:
        name: As clients call it.
        datatype: One of DATATYPES.
        shape: -1 is any size.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name!r} ({self.datatype} {list(self.shape)})"

    def has_shape(self, shape: Sequence[int]) -> bool:
        """Tells whether a tensor of this shape fits."""
        return len(shape) == len(self.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """How large requests may be.

    Args:
        max_elements: Of one tensor.
        max_tensors: Of one request.
    """

    max_elements: int
    max_tensors: int
