"""Requests to models, made of what a user has at hand."""

from pathlib import Path
from typing import Any

import pytest
from mlmesh.documents import DocumentError
from mlmesh.tensors import as_request, nested, read_request

DECLARED = [{"name": "images", "datatype": "FP32"}]


@pytest.mark.parametrize(
    ("rows", "declared", "tensor"),
    [
        ([[1, 2], [3, 4]], [], ("input-0", "INT64", [2, 2], [1, 2, 3, 4])),
        ([[1, 2.5]], [], ("input-0", "FP64", [1, 2], [1, 2.5])),
        ([True, False], [], ("input-0", "BOOL", [2], [True, False])),
        (["a"], [], ("input-0", "BYTES", [1], ["a"])),
        ([[[1], [2]]], DECLARED, ("images", "FP32", [1, 2, 1], [1, 2])),
        ({"instances": [[1]]}, DECLARED, ("images", "FP32", [1, 1], [1])),
        ([], DECLARED, ("images", "FP32", [0], [])),
    ],
)
def test_rows_become_a_tensor(rows: Any, declared: Any, tensor: tuple[Any, ...]) -> None:
    name, datatype, shape, data = tensor
    expected = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    assert as_request(rows, declared) == {"inputs": [expected]}


def test_a_request_is_sent_as_it_is() -> None:
    request = {"inputs": [{"name": "x"}], "id": "1"}
    assert as_request(request, DECLARED) is request


@pytest.mark.parametrize(
    ("content", "declared", "said"),
    [
        ([[1, 2], [3]], [], r"row\[1\] has the shape \[1\], those before it have \[2\]"),
        ([[1], 2], [], r"row\[1\]"),
        ([1, "a"], [], "found numbers and text"),
        ([{}], [], "found objects"),
        ([None], [], "found null"),
        ({"rows": []}, [], "instances"),
        (5, [], "inputs"),
        ([1], [{"name": "a"}, {"name": "b"}], r"has 2 inputs \(a, b\)"),
    ],
)
def test_what_is_no_request_is_refused(content: Any, declared: Any, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        as_request(content, declared)


def test_requests_are_read_in_place_and_from_files(tmp_path: Path) -> None:
    path = tmp_path / "input.json"
    path.write_text("[1]")
    assert read_request(str(path)) == read_request(" [1]") == [1]
    for given, said in [("[1,", "not JSON"), ("[NaN]", "NaN"), (str(tmp_path / "no"), "neither a file nor JSON")]:
        with pytest.raises(DocumentError, match=said):
            read_request(given)


def test_data_is_nested_as_the_shape_says() -> None:
    assert nested({"shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}) == [[1, 2, 3], [4, 5, 6]]
    assert nested({"shape": [1, 2, 2], "data": [1, 2, 3, 4]}) == [[[1, 2], [3, 4]]]
    assert nested({"shape": [2], "data": [1, 2]}) == [1, 2]
    assert nested({"shape": [0, 3], "data": []}) == []
