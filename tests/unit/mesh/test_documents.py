"""Manifests that users give to commands."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlmesh.documents import DocumentError, namespace_of, read_documents, read_manifest


def test_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("kind: Experiment\nmetadata: {name: a, namespace: team, date: 2026-01-02}")
    manifest = read_manifest(str(path), "Experiment")
    assert namespace_of(manifest) == "team"
    assert manifest["metadata"]["date"] == "2026-01-02"  # JSON knows no dates
    assert namespace_of({"metadata": {}}) == "default"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Experiment\n---\nkind: Experiment", "2 documents; give one Experiment at a time"),
        ("kind: InferenceService\nmetadata: {name: a}", "expected Experiment; try: mlmesh deploy"),
        ("pipelineInfo: {}", "try: mlmesh run"),
        ("kind: Experiment", "metadata.name is missing"),
        ("kind: Experiment\nmetadata: {name: 5}", "metadata.name is missing"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("&a [*a, *a]", "must have at most 500000 nodes"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(DocumentError, match=said):
        read_manifest(str(path), "Experiment")


def test_standard_input_is_named_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a: 1")))
    assert read_documents("-") == [{"a": 1}]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    with pytest.raises(DocumentError, match="standard input is empty"):
        read_documents("-")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b" " * (17 << 20))))
    with pytest.raises(DocumentError, match="standard input is larger than 16 MiB"):
        read_documents("-")
