"""Compiled pipelines (IR), as files have them and as a run takes them."""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mlmesh.documents import STDIN, DocumentError, near_files, read_documents, suggest, title

_PACKED = (".zip", ".tar.gz", ".tgz")


def load_pipeline(source: str, name: str = "") -> dict[str, Any]:
    """Reads a compiled pipeline, or compiles a Python file.

    Args:
        source: YAML or JSON of kfp's compiler, a Python file, `-` for YAML on standard input, or `FILE.py:FUNC` and
            `MODULE:FUNC` for one pipeline (or component) of a file, or of a module that can be imported here.
        name: Of the pipeline, where a Python file has several.

    Returns:
        What a run takes as `pipeline_spec`.

    Raises:
        DocumentError: It is no pipeline, or does not compile.
    """
    if source.endswith(_PACKED):
        raise DocumentError(f"{source} is an archive; unpack it and give the YAML in it")
    place, function = split_source(source)
    if function:
        if name:
            raise DocumentError(f"{source} names the function already; leave --pipeline out")
        return _of_documents(source, _compiled(place, function))
    if source.endswith(".py") and source != STDIN:
        return _of_documents(source, _compiled(source, name))
    if name:
        raise DocumentError("--pipeline is for Python files; a compiled file has one pipeline")
    return _of_documents(source, read_documents(source))


def split_source(source: str) -> tuple[str, str]:
    """Gives the file or module and the function of `FILE.py:FUNC` or `MODULE:FUNC`; no function for all else."""
    place, colon, function = source.rpartition(":")
    if not colon or not function.isidentifier() or Path(source).exists():
        return source, ""
    is_module = all(part.isidentifier() for part in place.split("."))
    return (place, function) if is_module or place.endswith(".py") else (source, "")


def _compiled(source: str, name: str) -> list[Any]:
    import yaml

    from mlmesh.compiling import CompileError, compile_file, compile_module

    is_file = source.endswith(".py")
    if is_file and not Path(source).is_file():
        raise DocumentError(f"cannot read {source}: no such file{near_files(source)}")
    try:
        text = compile_file(Path(source), name) if is_file else compile_module(source, name)
        return list(yaml.load_all(text, Loader=yaml.CSafeLoader))
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


def read_parameters(source: str) -> dict[str, Any]:
    """Reads parameters from a file: a mapping of names to values, as YAML or JSON.

    Raises:
        DocumentError: It cannot be read, or is something else.
    """
    documents = read_documents(source)
    if len(documents) != 1:
        raise DocumentError(f"{title(source)}: expected one mapping of names to values")
    return dict(documents[0])


def parse_parameters(
    pipeline: dict[str, Any], given: Iterable[str], values_given: Mapping[str, Any] | None = None, *, whole: bool = True
) -> dict[str, Any]:
    """Reads parameters as the pipeline's inputs have them.

    Args:
        pipeline: What `load_pipeline` gave.
        given: `name=value` pairs; they go before `values_given`.
        values_given: Values by name, of a file.
        whole: Whether inputs without a default must be given.

    Raises:
        DocumentError: There is no such input, a value is not of its type, or one is missing.
    """
    inputs = ir_of(pipeline).get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    values: dict[str, Any] = {}
    for name, value in (values_given or {}).items():
        if name not in inputs:
            raise DocumentError(_no_such(name, inputs))
        values[name] = _checked(name, value, str(inputs[name].get("parameterType", "")))
    for pair in given:
        name, sign, text = pair.partition("=")
        if not sign:
            raise DocumentError(f"--param {pair}: expected NAME=VALUE")
        if name not in inputs:
            raise DocumentError(_no_such(name, inputs))
        values[name] = _value(name, text, str(inputs[name].get("parameterType", "")))
    missing = [
        name
        for name, one in inputs.items()
        if name not in values and "defaultValue" not in one and not one.get("isOptional")
    ]
    if missing and whole:
        raise DocumentError(f"a value is missing: {' '.join(f'--param {name}=...' for name in sorted(missing))}")
    return values


def _no_such(name: str, inputs: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, inputs, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no parameter {name!r}; {hint}there are: {', '.join(sorted(inputs)) or 'none'}"


def _checked(name: str, value: Any, kind: str) -> Any:
    """Checks a value that has a type of its own, since it came as JSON or YAML."""
    kinds: dict[str, tuple[tuple[type, ...], str]] = {
        "STRING": ((str,), "text"),
        "NUMBER_INTEGER": ((int,), "a whole number"),
        "NUMBER_DOUBLE": ((int, float), "a number"),
        "BOOLEAN": ((bool,), "true or false"),
        "LIST": ((list,), "a list"),
        "STRUCT": ((dict,), "a mapping"),
    }
    types, expected = kinds.get(kind, ((object,), "a value"))
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types and kind in kinds):
        raise DocumentError(f"parameter {name!r}: expected {expected}, got {json.dumps(value)}")
    return value


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
