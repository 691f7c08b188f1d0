"""Inputs of a task that is debugged, which lie in an object store."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlmesh.cli.fetching_inputs import with_local_inputs

URI = "s3://bucket/run/make/1/tree"
FILES = {"a/x": b"in a folder", "y": b"beside it", "../../escaped": b"nowhere", "/tmp/escaped": b"nowhere"}


class Store:
    """Answers as the ingress does, for a run whose task `make` has made a list of a file and a folder."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, path: str, **query: Any) -> Any:
        if path.endswith("/outputs"):
            self.asked.append(path)
            return {"artifacts": {"out": [{"uri": "s3://bucket/other"}, {"uri": URI}]}}
        assert path.endswith("/tasks/2/artifacts/out") and query == {"index": 1, "list": "true"}
        return {"folder": True, "files": [{"path": name, "size": len(data)} for name, data in FILES.items()]}

    def chunks(self, path: str, /, **query: str) -> Iterator[bytes]:
        assert path.endswith("/tasks/2/artifacts/out") and query["index"] == "1"
        yield from (FILES[query["path"]][:3], FILES[query["path"]][3:])


def call_of(*uris: str) -> dict[str, Any]:
    given = {"inputs": {"artifacts": {"data": {"artifacts": [{"name": "data", "uri": uri} for uri in uris]}}}}
    return {"function": "f", "executor_input": json.dumps(given)}


def uris_of(call: dict[str, Any]) -> list[str]:
    return [one["uri"] for one in json.loads(call["executor_input"])["inputs"]["artifacts"]["data"]["artifacts"]]


def test_a_folder_is_fetched_and_nothing_lands_outside_it(tmp_path: Path) -> None:
    details = [{"task_id": "1"}, {"task_id": "2", "outputs": {"out": {}}}, {"task_id": "3", "outputs": {"out": {}}}]
    store, said = Store(), list[str]()
    folder = tmp_path / "scratch" / "fetched"
    run = {"run_id": "r", "run_details": {"task_details": details}}
    call = with_local_inputs(store, run, call_of(URI, "/a/file", "s3://of/nobody"), folder, said.append)  # type: ignore[arg-type]
    local, *others = uris_of(call)
    assert others == ["/a/file", "s3://of/nobody"] and call["function"] == "f"
    assert {str(p.relative_to(local)) for p in Path(local).rglob("*") if p.is_file()} == {"a/x", "y"}
    assert (Path(local) / "a/x").read_bytes() == FILES["a/x"]
    assert Path(local).name == "tree" and said == [f"fetching {URI}"]
    assert list(tmp_path.rglob("escaped")) == []


def test_without_objects_nobody_is_asked(tmp_path: Path) -> None:
    store = Store()
    assert uris_of(with_local_inputs(store, {"run_id": "r"}, call_of("/a/file"), tmp_path, print)) == ["/a/file"]  # type: ignore[arg-type]
    assert store.asked == []
