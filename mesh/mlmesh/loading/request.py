"""Requests of the Open Inference Protocol as bytes, for each of its doors."""

import json
from typing import Any

from mlmesh.documents import DocumentError

_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def rest_body(request: dict[str, Any]) -> bytes:
    """Gives a request, `{"inputs": [...]}`, as the body of REST v2."""
    return json.dumps(request).encode()


def grpc_body(request: dict[str, Any], model: str) -> bytes:
    """Gives a request, `{"inputs": [...]}`, as a serialized ModelInferRequest with typed contents.

    Raises:
        DocumentError: A tensor is not as the protocol says, or of a datatype that has no typed contents (FP16).
    """
    from mlmesh_protos.inference import grpc_service_pb2 as pb

    made = pb.ModelInferRequest(model_name=model)
    for index, given in enumerate(request["inputs"]):
        where = f"inputs[{index}]"
        field = _CONTENTS.get(given.get("datatype"))
        if field is None:
            raise DocumentError(
                f"{where}.datatype must be one of {', '.join(_CONTENTS)}, got {given.get('datatype')!r}"
            )
        data = [x.encode() if isinstance(x, str) else x for x in _flat(given.get("data", []))]
        try:
            tensor = made.inputs.add(name=given.get("name"), datatype=given["datatype"], shape=given.get("shape"))
            getattr(tensor.contents, field).extend(data)
        except (TypeError, ValueError) as error:
            raise DocumentError(f"{where} is no tensor: {error}") from error
    return made.SerializeToString()


def _flat(value: Any) -> list[Any]:
    return [leaf for each in value for leaf in _flat(each)] if isinstance(value, list) else [value]
