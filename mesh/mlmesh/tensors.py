"""Requests of the Open Inference Protocol (REST v2), made of what a user has at hand."""

import json
from pathlib import Path
from typing import Any

from mlmesh.documents import STDIN, DocumentError, read_text, title


def read_request(given: str) -> Any:
    """Reads JSON: given in place, or from a file, or from standard input for `-`.

    Raises:
        DocumentError: There is no such file, or it is not JSON.
    """
    text: str | bytes = given
    source = "the input"
    if given == STDIN or not given.lstrip().startswith(("{", "[")):
        if given != STDIN and not Path(given).is_file():
            raise DocumentError(f"{given} is neither a file nor JSON; give either, or - for standard input")
        text, source = read_text(given), title(given)
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{source} is not JSON: {error}") from error


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number in JSON")


def as_request(content: Any, declared: list[dict[str, Any]], name: str = "", datatype: str = "") -> dict[str, Any]:
    """Makes a request of a request, `{"inputs": [...]}`; of rows, `[[...], ...]`; or of `{"instances": [...]}`.

    Args:
        content: What the user gave.
        declared: The model's inputs (name, datatype); empty where the model declares none.
        name: Of the tensor that rows become; empty: as declared.
        datatype: Of that tensor; empty: as declared, else the one that holds all values.

    Raises:
        DocumentError: It is none of these, or rows do not have the same length.
    """
    if isinstance(content, dict) and "inputs" in content:
        return content
    rows = content.get("instances") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise DocumentError('expected {"inputs": [tensor, ...]}, {"instances": [row, ...]} or [row, ...]')
    if name and declared:
        found = [each for each in declared if each.get("name") == name]
        # A model that takes one input takes it by any name: the service says so if it does not.
        declared = found or declared
    if len(declared) > 1:
        names = ", ".join(str(each.get("name")) for each in declared)
        raise DocumentError(f'the model has {len(declared)} inputs ({names}); give {{"inputs": [tensor, ...]}}')
    one = declared[0] if declared else {}
    shape = _shape(rows, "row")
    data = _flat(rows)
    tensor = {
        "name": name or one.get("name", "input-0"),
        "datatype": datatype or one.get("datatype") or _datatype(data),
        "shape": shape,
        "data": data,
    }
    return {"inputs": [tensor]}


def _shape(value: Any, place: str) -> list[int]:
    if not isinstance(value, list):
        return []
    inner = [_shape(each, f"{place}[{index}]") for index, each in enumerate(value)]
    for index, shape in enumerate(inner):
        if shape != inner[0]:
            raise DocumentError(f"{place}[{index}] has the shape {shape}, those before it have {inner[0]}")
    return [len(value), *(inner[0] if inner else [])]


def _flat(value: Any) -> list[Any]:
    return [leaf for each in value for leaf in _flat(each)] if isinstance(value, list) else [value]


def _datatype(data: list[Any]) -> str:
    """Chooses the datatype that holds all values."""
    kinds = {type(each) for each in data}
    if kinds <= {bool} and kinds:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    if kinds <= {int, float}:
        return "FP64"
    if kinds == {str}:
        return "BYTES"
    raise DocumentError(f"values must be all numbers, all text or all true and false, found {_names(kinds)}")


def _names(kinds: set[type]) -> str:
    words = {dict: "objects", type(None): "null", str: "text", bool: "true and false", int: "numbers", float: "numbers"}
    return " and ".join(sorted({words.get(kind, kind.__name__) for kind in kinds}))


def nested(output: dict[str, Any]) -> Any:
    """Gives the data of an output tensor as lists in lists, as its shape says."""
    data, shape = output.get("data", []), output.get("shape", [])
    for size in reversed(shape[1:]):
        data = [data[at : at + size] for at in range(0, len(data), size)] if size else []
    return data
