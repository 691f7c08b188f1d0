"""The tensors that an InferenceService declares."""

from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import InvalidArgument

from mlmesh_serving.datatypes import DATATYPES, TensorInfo
from mlmesh_serving.manifest.fields import as_text, only, whole

_MAX_TENSORS = 64
_MAX_DIMENSIONS = 32


def parse_tensors(spec: Mapping[str, Any], key: str, where: str) -> tuple[TensorInfo, ...]:
    """Reads `inputs` or `outputs`, or raises InvalidArgument."""
    declared = spec.get(key)
    if declared is None:
        return ()
    where = f"{where}.{key}"
    if not isinstance(declared, list) or not 1 <= len(declared) <= _MAX_TENSORS:
        raise InvalidArgument(f"must be a list of 1 to {_MAX_TENSORS} tensors", field=where)
    found: list[TensorInfo] = []
    for index, item in enumerate(declared):
        at = f"{where}[{index}]"
        if not isinstance(item, Mapping):
            raise InvalidArgument("must be an object", field=at)
        only(item, {"name", "datatype", "shape"}, at)
        name = as_text(item, "name", at)
        if name in {other.name for other in found}:
            raise InvalidArgument(f"{name!r} is there twice", field=f"{at}.name")
        datatype = as_text(item, "datatype", at)
        if datatype not in DATATYPES:
            raise InvalidArgument(f"must be one of {', '.join(DATATYPES)}", field=f"{at}.datatype")
        found.append(TensorInfo(name, datatype, _shape(item.get("shape"), f"{at}.shape")))
    return tuple(found)


def _shape(shape: Any, field: str) -> tuple[int, ...]:
    sizes = [whole(size) for size in shape] if isinstance(shape, list) else [None]
    found = tuple(size for size in sizes if size is not None and -1 <= size < 1 << 31)
    if len(found) < len(sizes) or len(sizes) > _MAX_DIMENSIONS:
        raise InvalidArgument("must be a list of integers, -1 for any size", field=field)
    return found
