"""Compiled pipelines (IR), as files have them and as a run takes them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlmesh.documents import STDIN, DocumentError, read_documents, suggest, title

_PACKED = (".zip", ".tar.gz", ".tgz")


def load_pipeline(source: str, name: str = "") -> dict[str, Any]:
    """Reads a compiled pipeline, or compiles a Python file.

    Args:
        source: YAML or JSON of kfp's compiler, a Python file, or `-` for YAML on standard input.
        name: Of the pipeline, where a Python file has several.

    Returns:
        What a run takes as `pipeline_spec`.

    Raises:
        DocumentError: It is no pipeline, or does not compile.
    """
    if source.endswith(_PACKED):
        raise DocumentError(f"{source} is an archive; unpack it and give the YAML in it")
    if source.endswith(".py") and source != STDIN:
        return _of_documents(source, _compiled(source, name))
    if name:
        raise DocumentError("--pipeline is for Python files; a compiled file has one pipeline")
    return _of_documents(source, read_documents(source))


def _compiled(source: str, name: str) -> list[Any]:
    import yaml

    from mlmesh.compiling import CompileError, compile_file

    if not Path(source).is_file():
        raise DocumentError(f"cannot read {source}: no such file")
    try:
        return list(yaml.load_all(compile_file(Path(source), name), Loader=yaml.CSafeLoader))
    except CompileError as error:
        raise DocumentError(str(error)) from error


def _of_documents(source: str, documents: list[Any]) -> dict[str, Any]:
    spec = documents[0]
    if len(documents) == 1 and isinstance(spec.get("pipeline_spec"), dict):  # as the service gives it
        return dict(spec)
    if "pipelineInfo" not in spec or "root" not in spec:
        raise DocumentError(
            f"{title(source)} is not a compiled pipeline: it has no pipelineInfo and root{suggest(spec)}"
        )
    if len(documents) == 1:
        return dict(spec)
    if len(documents) == 2 and "platforms" in documents[1]:
        return {"pipeline_spec": spec, "platform_spec": documents[1]}
    raise DocumentError(f"{title(source)}: expected a pipeline and, at most, its platform specification")


def ir_of(pipeline: dict[str, Any]) -> dict[str, Any]:
    """Gives the IR itself of what `load_pipeline` gave."""
    spec: dict[str, Any] = pipeline.get("pipeline_spec", pipeline)
    return spec


def parse_parameters(pipeline: dict[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Reads `name=value` pairs as the pipeline's inputs have them.

    Raises:
        DocumentError: There is no such input, or the value is not of its type.
    """
    inputs = ir_of(pipeline).get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    values: dict[str, Any] = {}
    for pair in given:
        name, sign, text = pair.partition("=")
        if not sign:
            raise DocumentError(f"--param {pair}: expected NAME=VALUE")
        if name not in inputs:
            raise DocumentError(f"there is no parameter {name!r}; there are: {', '.join(sorted(inputs)) or 'none'}")
        values[name] = _value(name, text, str(inputs[name].get("parameterType", "")))
    missing = [
        name
        for name, one in inputs.items()
        if name not in values and "defaultValue" not in one and not one.get("isOptional")
    ]
    if missing:
        raise DocumentError(f"a value is missing: {' '.join(f'--param {name}=...' for name in sorted(missing))}")
    return values


def _value(name: str, text: str, kind: str) -> Any:
    readers: dict[str, tuple[Callable[[str], Any], str]] = {
        "STRING": (str, "text"),
        "NUMBER_INTEGER": (int, "a whole number"),
        "NUMBER_DOUBLE": (float, "a number"),
        "BOOLEAN": (_truth, "true or false"),
        "LIST": (lambda t: _json(t, list), "a JSON list"),
        "STRUCT": (lambda t: _json(t, dict), "a JSON object"),
    }
    read, expected = readers.get(kind, (str, "text"))
    try:
        return read(text)
    except ValueError as error:
        raise DocumentError(f"--param {name}={text}: expected {expected}") from error


def _truth(text: str) -> bool:
    found = {"true": True, "false": False}.get(text.lower())
    if found is None:
        raise ValueError(text)
    return found


def _json(text: str, kind: type) -> Any:
    value = json.loads(text)
    if not isinstance(value, kind):
        raise ValueError(text)
    return value


def without_cache(pipeline: dict[str, Any]) -> None:
    """Makes every task run, whatever the cache has."""
    ir = ir_of(pipeline)
    dags = [ir.get("root", {}), *ir.get("components", {}).values()]
    for dag in dags:
        for task in dag.get("dag", {}).get("tasks", {}).values():
            task.setdefault("cachingOptions", {})["enableCache"] = False
