"""Compiles a pipeline in Python: `python -m mlmesh.compiling FILE|MODULE NAME TARGET`, in a process of its own.

A user's file may print, exit and change whatever it likes; none of that is to reach the command that asked. What the
process has to say goes to TARGET: {"pipeline": IR as YAML} or {"error": text}.
"""

import difflib
import importlib
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

_MODULE = "mlmesh_user_pipeline"
_SECONDS = 120


class CompileError(Exception):
    """There is no pipeline that compiles; the message says why."""


def compile_file(source: Path, name: str = "") -> str:
    """Compiles the pipeline of a Python file.

    Args:
        source: The file.
        name: Of the pipeline, its own or its function's; empty: the only one.

    Returns:
        The IR, as YAML.

    Raises:
        CompileError: There is none, there are several, or it does not compile.
    """
    return _in_a_process(str(source.absolute()), name, str(source))


def compile_module(module: str, name: str) -> str:
    """Compiles a pipeline, or a component alone, of a module that can be imported here.

    Args:
        module: Its name; it is looked for in the working directory, too.
        name: Of the pipeline, its own or its function's.

    Returns:
        The IR, as YAML.

    Raises:
        CompileError: There is no such module, no such pipeline, or it does not compile.
    """
    return _in_a_process(module, name, module)


def _in_a_process(source: str, name: str, title: str) -> str:
    with tempfile.TemporaryDirectory(prefix="mlmesh-compile-") as folder:
        target = Path(folder) / "result.json"
        command = [sys.executable, "-W", "ignore", "-m", "mlmesh.compiling", source, name, str(target)]
        try:
            # What the file prints is for people: to standard error with it.
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise CompileError(f"{title} was not compiled within {_SECONDS} s") from error
        try:
            result: dict[str, str] = json.loads(target.read_text())
        except (OSError, ValueError) as error:
            raise CompileError(f"{title} ended the compiler with code {done.returncode}") from error
    if "error" in result:
        raise CompileError(result["error"])
    return result["pipeline"]


def main() -> None:
    """Compiles in this process and writes the result."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in the terminal: the command that asked has the last word
    source, name, target = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    warnings.simplefilter("ignore")
    try:
        result = {"pipeline": _compile(source, name, target.with_suffix(".yaml"))}
    except CompileError as error:
        result = {"error": str(error)}
    target.write_text(json.dumps(result))


def _compile(source: str, name: str, target: Path) -> str:
    module = _load(Path(source)) if source.endswith(".py") else _import(source)
    chosen = _choose(source, module, name)
    from kfp import compiler

    try:
        compiler.Compiler().compile(chosen, str(target))
    except Exception as error:
        raise CompileError(f"{source}: {error}") from error
    return target.read_text()


def _import(name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise CompileError(
                f"there is no module {error.name!r} in {Path.cwd()} or in this environment ({sys.prefix})"
            ) from error
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else name
        raise CompileError(f"{name}: {place}: {type(error).__name__}: {error}") from error


def _load(source: Path) -> Any:
    spec = importlib.util.spec_from_file_location(_MODULE, source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    sys.path.insert(0, str(source.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "kfp":
            raise CompileError(
                f"{source} needs kfp, which is not installed here; install it with: pip install kfp==2.17.0, "
                "or give the compiled pipeline (YAML)"
            ) from error
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(source)]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        place = f"{source}:{line}" if line else str(source)
        raise CompileError(f"{place}: {type(error).__name__}: {error}") from error
    return module


def _choose(source: str, module: Any, name: str) -> Any:
    if "kfp" not in sys.modules:  # importing it takes long, and there can be nothing of it in the file
        raise CompileError(f"{source} has no function with @dsl.pipeline")
    from kfp.dsl import base_component, graph_component

    if isinstance(getattr(module, name, None), base_component.BaseComponent):  # a component may run alone
        return getattr(module, name)
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, graph_component.GraphComponent) and value.pipeline_func.__module__ == module.__name__
    }
    if not found:
        raise CompileError(f"{source} has no function with @dsl.pipeline")
    names = ", ".join(sorted(found))
    if name:
        matching = [value for key, value in found.items() if name in {key, value.name}]
        if not matching:
            near = difflib.get_close_matches(name, found, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise CompileError(f"{source} has no pipeline {name!r}; {hint}there are: {names}")
        return matching[0]
    if len(found) > 1:
        raise CompileError(f"{source} has several pipelines: {names}; say which with --pipeline NAME")
    return next(iter(found.values()))


if __name__ == "__main__":
    main()
