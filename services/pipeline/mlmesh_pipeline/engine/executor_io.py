"""What KFP's executor is given and gives back: `ExecutorInput` and `ExecutorOutput` as JSON."""

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlmesh_pipeline.engine.paths import file_path, local_form, uri_of
from mlmesh_pipeline.engine.trees import tree_digest, walk
from mlmesh_pipeline.ir.proto import ParameterType
from mlmesh_pipeline.ir.values import WrongType, coerce, parameter_type, whole
from mlmesh_pipeline.resources import Artifact, Values

MAX_OUTPUT_BYTES = 32 << 20
OUTPUT_FILE = ".executor_output.json"
"""Its folder is what `dsl.get_uri()` builds on, so it is that of the artifacts; no name of theirs begins with a dot."""


class BadOutput(ValueError):
    """What the task wrote is not what its component declares."""


def executor_input(component: Any, inputs: Values, scratch: Path, output_uri: str) -> dict[str, Any]:
    """Makes the ExecutorInput of a task.

    Args:
        component: Its ComponentSpec.
        inputs: Values of its inputs.
        scratch: Folder for output parameters.
        output_uri: URI under which its output artifacts go, each by its name.
    """
    definitions = component.input_definitions
    folder = file_path(output_uri) or scratch
    parameters = {
        name: value for name, value in inputs.parameters.items() if name in definitions.parameters and value is not None
    }
    return {
        "inputs": {
            "parameterValues": parameters,
            "artifacts": {
                name: {"artifacts": [_runtime_artifact(artifact) for artifact in items]}
                for name, items in inputs.artifacts.items()
                if name in definitions.artifacts
            },
        },
        "outputs": {
            "parameters": {
                name: {"outputFile": str(scratch / "parameters" / name)}
                for name in component.output_definitions.parameters
            },
            "artifacts": {
                name: {"artifacts": [_runtime_artifact(artifact)]}
                for name, artifact in declared_artifacts(component, output_uri).items()
            },
            "outputFile": str(folder / OUTPUT_FILE),
        },
    }


@contextlib.contextmanager
def report_of(given: dict[str, Any]) -> Iterator[None]:
    """Takes the executor's report away afterwards: it lies among the artifacts.

    Args:
        given: ExecutorInput.
    """
    try:
        yield
    finally:
        Path(given["outputs"]["outputFile"]).unlink(missing_ok=True)


def declared_artifacts(component: Any, output_uri: str) -> dict[str, Artifact]:
    """Gives the output artifacts that a component declares, as they are before the task runs."""
    return {
        name: Artifact(
            artifact_id=str(uuid.uuid4()),
            name=name,
            kind=spec.artifact_type.schema_title or "system.Artifact",
            version=spec.artifact_type.schema_version or "0.0.1",
            uri=f"{output_uri}/{name}",
        )
        for name, spec in component.output_definitions.artifacts.items()
    }


def read_output(component: Any, given: dict[str, Any], scratch: Path, digest: Callable[[str], str]) -> Values:
    """Reads what a task gave; hashes its artifacts, and keeps those that it left in its scratch folder.

    Args:
        component: Its ComponentSpec.
        given: Its ExecutorInput.
        scratch: Its scratch folder, which goes with the attempt.
        digest: Gives the digest of what is at a URI.

    Raises:
        BadOutput: It is not JSON, or a value is not of its declared type.
    """
    report_path = Path(given["outputs"]["outputFile"])
    report = _report(report_path)
    report_path.unlink(missing_ok=True)  # before the artifacts are hashed: one of them may be the folder that it is in
    values: dict[str, Any] = dict(_mapping(report, "parameterValues"))
    definitions = component.output_definitions
    for name, place in given["outputs"]["parameters"].items():
        path = Path(place["outputFile"])
        if name not in values and path.is_file():
            values[name] = _parameter_file(path, parameter_type(definitions.parameters[name]), name)
    parameters = {}
    for name, value in values.items():
        if name not in definitions.parameters:
            raise BadOutput(f"output parameter {name!r} is not declared")
        try:
            parameters[name] = coerce(value, parameter_type(definitions.parameters[name]))
        except WrongType as error:
            raise BadOutput(f"output parameter {name!r} {error}") from error
    reported = _mapping(report, "artifacts")
    artifacts = {}
    for name, place in given["outputs"]["artifacts"].items():
        declared = place["artifacts"][0]
        written = _mapping(reported, name).get("artifacts") or [declared]
        artifacts[name] = [_artifact(declared, item, name, scratch, digest) for item in written]
    return Values(parameters, artifacts)


def digest_of(uri: str) -> str:
    """Gives the SHA-256 of a file, or of a folder's names and contents; nothing for what is not on this machine."""
    path = file_path(uri)
    if path is None or not path.exists():
        return ""
    if path.is_file():
        return _file_digest(path)
    return tree_digest((name, _file_digest(file)) for file, name in walk(path))


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _runtime_artifact(artifact: Artifact) -> dict[str, Any]:
    return {
        "name": artifact.name,
        "type": {"schemaTitle": artifact.kind, "schemaVersion": artifact.version},
        "uri": local_form(artifact.uri),
        "metadata": artifact.metadata,
    }


def _artifact(
    declared: dict[str, Any], written: Any, name: str, scratch: Path, digest: Callable[[str], str]
) -> Artifact:
    if not isinstance(written, dict):
        raise BadOutput(f"output artifact {name!r} is not an object")
    try:
        uri = uri_of(str(written.get("uri") or declared["uri"]))
    except UnicodeEncodeError as error:
        raise BadOutput(f"the URI of output artifact {name!r} is not UTF-8") from error
    metadata = written.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise BadOutput(f"metadata of output artifact {name!r} is not an object")
    elsewhere = written.get("custom_path")
    target = file_path(uri)
    place = file_path(uri_of(declared["uri"]))
    if target is not None and place is not None and _is_in(target, scratch) and not _is_in(place, scratch):
        elsewhere, uri = elsewhere or str(target), uri_of(declared["uri"])
        target = file_path(uri)
    if elsewhere and target is not None and Path(elsewhere).exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        if Path(elsewhere).is_dir():
            shutil.copytree(elsewhere, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(elsewhere, target)
    kind = declared["type"]
    return Artifact(
        artifact_id=str(uuid.uuid4()),
        name=name,
        kind=kind["schemaTitle"],
        version=kind["schemaVersion"],
        uri=uri,
        metadata=whole(metadata),
        digest=digest(uri),
    )


def _is_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _report(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_OUTPUT_BYTES:
        raise BadOutput(f"output parameters are larger than {MAX_OUTPUT_BYTES} bytes")
    try:
        found = json.loads(path.read_text(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadOutput(f"the executor's report is not JSON: {str(error)[:200]}") from error
    if not isinstance(found, dict):
        raise BadOutput("the executor's report is not an object")
    return found


def _mapping(content: dict[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name) or {}
    if not isinstance(found, dict):
        raise BadOutput(f"{name!r} in the executor's report is not an object")
    return found


def _parameter_file(path: Path, kind: int, name: str) -> Any:
    if path.stat().st_size > MAX_OUTPUT_BYTES:
        raise BadOutput(f"output parameter {name!r} is larger than {MAX_OUTPUT_BYTES} bytes")
    text = path.read_text()
    if kind == ParameterType.STRING:
        return text
    try:
        return json.loads(text.lower() if kind == ParameterType.BOOLEAN else text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadOutput(f"output parameter {name!r} was not written as JSON: {str(error)[:200]}") from error


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON's")
