"""Calls a task's function in this process, under pdb, with the inputs that it had in a run."""

import bdb
import contextlib
import functools
import importlib.metadata
import importlib.util
import inspect
import json
import os
import pdb
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

_MODULE = "ephemeral_component"
_MAX_COPY_BYTES = 1 << 30
"""Input artifacts up to this size are copied, so that nothing that the function does to them stays."""


Say = Callable[[str], None]


class NotDebuggable(Exception):
    """The task cannot be called here; the message says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """How the call ended.

    Attributes:
        state: SUCCEEDED, FAILED or QUIT.
        error: What it raised.
        parameters: Output parameters.
        artifacts: Paths of output artifacts.
    """

    state: str
    error: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)


def debug(
    call: Mapping[str, Any],
    scratch: Path,
    *,
    at_start: bool,
    environment: Mapping[str, str],
    say: Say,
) -> Result:
    """Calls a task's function; where it raises, pdb looks at what is left of it.

    Args:
        call: TaskCall of the pipeline service, as JSON.
        scratch: Folder for the component's source, copies of its inputs, and its outputs.
        at_start: Stop at its first line.
        environment: Further variables.
        say: Tells the user something.

    Raises:
        NotDebuggable: kfp is not installed here, or the component's source does not load.
    """
    for requirement in call.get("requirements", []):
        if not _is_installed(requirement):
            say(f"the component asks for {requirement}, which is not installed here: pip install '{requirement}'")
    for name in call.get("secret_variables", []):
        if name not in os.environ:
            say(f"the variable {name} comes from a secret or config map and is not set here: export {name}=...")
    source = scratch / f"{_MODULE}.py"
    source.write_text(str(call.get("source", "")))
    given = executor_input(json.loads(call.get("executor_input") or "{}"), scratch, say)
    (scratch / "executor_input.json").write_text(json.dumps(given, indent=2))
    with _surroundings(scratch, {**call.get("environment", {}), **environment}):
        try:
            from kfp.dsl.executor import Executor
        except ImportError as error:
            raise NotDebuggable("kfp is not installed here; install it with: pip install kfp==2.17.0") from error
        try:
            function = getattr(_load(source), str(call.get("function")))
        except Exception as error:
            _look(error.__traceback__, error, source, say)
            raise NotDebuggable(f"the component does not load: {type(error).__name__}: {error}") from error
        try:
            executor = Executor(given, _stopping(function) if at_start else function)
            executor.execute()
        except bdb.BdbQuit:
            return Result("QUIT")
        except (Exception, SystemExit) as error:
            say(f"{type(error).__name__}: {error}")
            _look(error.__traceback__, error, source, say)
            return Result("FAILED", f"{type(error).__name__}: {error}")
    return _outputs(given)


def executor_input(given: Mapping[str, Any], scratch: Path, say: Say = lambda _: None) -> dict[str, Any]:
    """Completes an ExecutorInput: outputs go to the scratch folder, input artifacts are copied there.

    Args:
        given: As the service describes it.
        scratch: The folder.
        say: Tells the user something.
    """
    inputs = given.get("inputs", {})
    outputs = given.get("outputs", {})
    artifacts = {}
    for name, items in inputs.get("artifacts", {}).items():
        copies = []
        for index, artifact in enumerate(items.get("artifacts", [])):
            copies.append({**artifact, "uri": _copied(artifact, scratch / "inputs" / name / str(index), name, say)})
        artifacts[name] = {"artifacts": copies}
    return {
        "inputs": {"parameterValues": dict(inputs.get("parameterValues", {})), "artifacts": artifacts},
        "outputs": {
            "parameters": {
                name: {"outputFile": str(scratch / "parameters" / name)} for name in outputs.get("parameters", {})
            },
            "artifacts": {
                name: {
                    "artifacts": [
                        {**one, "uri": str(scratch / "outputs" / name), "metadata": {}}
                        for one in items.get("artifacts", [])[:1]
                    ]
                }
                for name, items in outputs.get("artifacts", {}).items()
            },
            "outputFile": str(scratch / "executor_output.json"),
        },
    }


def _copied(artifact: Mapping[str, Any], folder: Path, name: str, say: Say) -> str:
    uri = str(artifact.get("uri", ""))
    source = Path(uri)
    if not uri.startswith("/"):
        say(f"input artifact {name} is not a file of this machine: {uri}")
        return uri
    if not source.exists():
        if artifact.get("type", {}).get("schemaTitle") != "system.Metrics":
            say(f"input artifact {name} is not there: {uri}")
        return uri
    size = sum(one.stat().st_size for one in ([source] if source.is_file() else source.rglob("*")) if one.is_file())
    if size > _MAX_COPY_BYTES:
        say(f"input artifact {name} is too large to be copied and is used where it is; do not change it: {uri}")
        return uri
    target = folder / source.name
    folder.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copyfile(source, target)
    return str(target)


@contextlib.contextmanager
def _surroundings(scratch: Path, variables: Mapping[str, str]) -> Iterator[None]:
    """Makes this process what a task's is: its variables, its working directory; undone afterwards."""
    before, folder = dict(os.environ), Path.cwd()
    (scratch / "tmp").mkdir(exist_ok=True)
    os.environ.update({**variables, "_KFP_RUNTIME": "true", "TMPDIR": str(scratch / "tmp")})
    os.chdir(scratch)
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)


def _load(source: Path) -> Any:
    spec = importlib.util.spec_from_file_location(_MODULE, source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    spec.loader.exec_module(module)
    return module


def _stopping(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function stop at its first line; when the user quits there, BdbQuit comes out of it."""
    debugger = pdb.Pdb()

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        debugger.reset()
        sys.settrace(debugger.trace_dispatch)
        try:
            return function(*arguments, **named)
        finally:
            debugger.quitting = True
            sys.settrace(None)

    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return call


def _look(where: TracebackType | None, error: BaseException, source: Path, say: Say) -> None:
    """Opens pdb where something was raised; leaves the executor's own frames out of what is printed."""
    own = [frame for frame in traceback.extract_tb(where) if Path(frame.filename) == source]
    if where is None or not own:  # raised by the executor: an output of the wrong type, for one
        say("it was not raised in the component itself, but by what kfp does with what it gave")
    if where is not None:
        pdb.post_mortem(where)


def _is_installed(text: str) -> bool:
    try:
        from packaging.requirements import InvalidRequirement, Requirement

        requirement = Requirement(text)
        return requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
    except (ImportError, InvalidRequirement, importlib.metadata.PackageNotFoundError):
        return False


def _outputs(given: Mapping[str, Any]) -> Result:
    report: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        report = json.loads(Path(given["outputs"]["outputFile"]).read_text())
    parameters = dict(report.get("parameterValues", {}))
    for name, place in given["outputs"]["parameters"].items():
        if name not in parameters and Path(place["outputFile"]).is_file():
            parameters[name] = Path(place["outputFile"]).read_text()
    artifacts = {
        name: str(items["artifacts"][0].get("uri", ""))
        for name, items in report.get("artifacts", {}).items()
        if items.get("artifacts")
    }
    return Result("SUCCEEDED", parameters=parameters, artifacts=artifacts)
