"""Documents that users hand to commands: manifests, pipelines and requests, from files or standard input."""

import datetime
import difflib
import json
import sys
from pathlib import Path
from typing import Any

STDIN = "-"
_MAX_BYTES = 16 << 20


class DocumentError(Exception):
    """A document cannot be used; the message names it and says why."""


def title(source: str) -> str:
    """Gives what a source is called in messages."""
    return "standard input" if source == STDIN else source


def near_files(source: str) -> str:
    """Gives a hint at files beside one that is not there."""
    try:
        names = [one.name for one in Path(source).parent.iterdir()]
    except OSError:
        return ""
    wanted = Path(source).name
    near = [f"{wanted}{end}" for end in (".py", ".yaml", ".yml") if f"{wanted}{end}" in names]
    near = near or difflib.get_close_matches(wanted, [name for name in names if name != wanted], n=1)
    return f"; did you mean {Path(source).with_name(near[0])}?" if near else ""


def read_text(source: str) -> bytes:
    """Reads a file, or standard input for `-`.

    Raises:
        DocumentError: There is no such file, it cannot be read, or it is too large.
    """
    try:
        if source == STDIN:
            data = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise DocumentError(f"cannot read {title(source)}: {error.strerror}{near_files(source)}") from error
    if len(data) > _MAX_BYTES:
        raise DocumentError(f"{title(source)} is larger than {_MAX_BYTES >> 20} MiB")
    return data


def read_documents(source: str) -> list[dict[str, Any]]:
    """Reads all YAML (or JSON) documents of a file or of standard input.

    Raises:
        DocumentError: See `read_text`; also when it is not YAML, or a document is no mapping.
    """
    from mlmesh_kit.documents import load_yaml_all
    from mlmesh_kit.errors import InvalidArgument

    try:
        found = load_yaml_all(read_text(source), field=title(source), max_bytes=_MAX_BYTES)
    except InvalidArgument as error:
        raise DocumentError(error.message) from error
    if not found:
        raise DocumentError(f"{title(source)} is empty")
    documents = []
    for each in found:
        if not isinstance(each, dict):
            raise DocumentError(f"{title(source)}: expected a mapping at the top, found {_kind(each)}")
        documents.append(_as_json(source, each))
    return documents


def read_manifest(source: str, *kinds: str) -> dict[str, Any]:
    """Reads one manifest as Kubernetes knows them.

    Args:
        source: File, or `-`.
        kinds: It may be of.

    Raises:
        DocumentError: See `read_documents`; also when there are several, or it is of another kind or has no name.
    """
    documents = read_documents(source)
    if len(documents) != 1:
        raise DocumentError(f"{title(source)} has {len(documents)} documents; give one {' or '.join(kinds)} at a time")
    manifest = documents[0]
    if manifest.get("kind") not in kinds:
        expected = " or ".join(kinds)
        raise DocumentError(
            f"{title(source)}: kind is {manifest.get('kind')!r}, expected {expected}{suggest(manifest)}"
        )
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise DocumentError(f"{title(source)}: metadata.name is missing")
    return manifest


def namespace_of(manifest: dict[str, Any]) -> str:
    """Gives the namespace that a manifest names, `default` where it names none."""
    named = manifest["metadata"].get("namespace")
    return named if isinstance(named, str) and named else "default"


def suggest(document: dict[str, Any]) -> str:
    """Names the command that takes such a document; empty where there is none."""
    command = {"Experiment": "tune", "InferenceService": "deploy", "InferenceGraph": "deploy"}.get(
        str(document.get("kind"))
    )
    if command is None and "pipelineInfo" in document:
        command = "run"
    return f"; try: mlmesh {command}" if command else ""


def _kind(value: Any) -> str:
    return {list: "a list", str: "text", type(None): "nothing"}.get(type(value), f"a {type(value).__name__}")


def _as_json(source: str, document: dict[str, Any]) -> dict[str, Any]:
    """Gives the document as JSON has it: YAML's dates become text again."""

    def plain(value: Any) -> str:
        if isinstance(value, datetime.date | datetime.datetime):
            return value.isoformat()
        raise DocumentError(f"{title(source)}: {value!r} has no form in JSON; put it in quotes")

    try:
        result: dict[str, Any] = json.loads(json.dumps(document, default=plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DocumentError(f"{title(source)}: {error}") from error
    return result
