"""What a trial of `mlmesh.tune` runs: the text of this file is its program, given to `python -c`.

It imports what Python brings along and nothing else, so that any image with Python can run it. Its arguments are a JSON
object (`Task`), and then the values of the parameters in the order of the object.
"""

import __future__

import json
import linecache
import re
import sys
import traceback
import types
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

METRIC_NAME = re.compile(r"[A-Za-z0-9_|-]{1,200}")
"""What Katib's default metrics collector takes as the name of a metric."""


class Reader(TypedDict):
    """How the text of a parameter's value becomes the value.

    Attributes:
        name: Of the parameter.
        kind: Katib's parameterType.
        choices: Text → value; empty: the value is a number.
    """

    name: str
    kind: str
    choices: Mapping[str, Any]


class Task(TypedDict):
    """What is to be called.

    Attributes:
        source: Of the function; dedented.
        function: Its name.
        file: Where it was written, for tracebacks.
        line: Its first line there, from 1.
        names: Names that it uses and does not define: name → `mlmesh` or `report`.
        parameters: What comes in as arguments.
        fixed: Further entries of the dict that the function gets.
        metric: Name of the metric that a number which the function returns is.
    """

    source: str
    function: str
    file: str
    line: int
    names: Mapping[str, str]
    parameters: Sequence[Reader]
    fixed: Mapping[str, Any]
    metric: str


def report(metrics: Mapping[str, Any] | None = None, /, **named: Any) -> None:
    """Reports metrics of the trial that runs: prints `name=value`, a line each, which the metrics collector reads.

    May be called many times, once for each epoch say: early stopping looks at every report.

    Args:
        metrics: Name → value (a number, also one of NumPy or PyTorch), for names that are no identifiers.
        named: The same, by name: `report(loss=0.3, accuracy=0.9)`.

    Raises:
        ValueError: A name has other characters than letters, digits, `_`, `-` and `|`.
        TypeError: A value is no number.
    """
    lines = []
    for name, value in {**(metrics or {}), **named}.items():
        if not METRIC_NAME.fullmatch(str(name)):
            raise ValueError(f"{name!r} is no name of a metric: expected letters, digits, '_', '-' and '|'")
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"metric {name!r} must be a number, got {type(value).__name__}") from error
        lines.append(f" {name}={number!r}")  # the space parts it from what was printed without an end of the line
    if lines:
        print("\n".join(lines), flush=True)  # noqa: T201  # it is how metrics are reported


def read_value(reader: Reader, text: str) -> Any:
    """Makes the value that the objective gets of the text that the trial got."""
    if reader["choices"]:
        return reader["choices"][text]
    if reader["kind"] == "int":
        return int(text)
    number = float(text)
    return int(number) if reader["kind"] == "discrete" and number.is_integer() else number


def read_values(readers: Sequence[Reader], texts: Mapping[str, str]) -> dict[str, Any]:
    """Makes values of the texts of a trial; a parameter that is not active has an empty text, or none, and no value."""
    found = {}
    for reader in readers:
        text = texts.get(reader["name"], "")
        if text or text in reader["choices"]:
            found[reader["name"]] = read_value(reader, text)
    return found


def run(task: Task, texts: Sequence[str]) -> None:
    """Calls the function, and reports what it returns: a number, a dict of metrics, or None if it reported all itself.

    Args:
        task: What is to be called.
        texts: Values of the parameters, in their order.

    Raises:
        TypeError: It returns something else.
    """
    names = [reader["name"] for reader in task["parameters"]]
    parameters = {**task["fixed"], **read_values(task["parameters"], dict(zip(names, texts, strict=True)))}
    module = types.ModuleType("objective")
    for name, what in task["names"].items():
        setattr(module, name, report if what == "report" else _mlmesh())
    source = "\n" * (task["line"] - 1) + task["source"]
    linecache.cache[task["file"]] = (len(source), None, source.splitlines(keepends=True), task["file"])
    # Annotations may name what only the module has that the function comes from.
    flags = __future__.annotations.compiler_flag
    code = compile(source, task["file"], "exec", flags, dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102  # the user's own function, in the user's own trial
    returned = getattr(module, task["function"])(parameters)
    if isinstance(returned, Mapping):
        report(returned)
    elif returned is not None:
        try:
            report({task["metric"]: returned})
        except TypeError as error:
            text = f"the objective must return a number or a dict of metrics, got {type(returned).__name__}"
            raise TypeError(text) from error


def _mlmesh() -> types.ModuleType:
    """Gives the package mlmesh, or, where it is not installed, what a trial needs of it."""
    try:
        import mlmesh
    except ImportError:
        mlmesh = types.ModuleType("mlmesh")
        mlmesh.report = report
        sys.modules["mlmesh"] = mlmesh
    return mlmesh


def main() -> None:
    """Runs a trial; what goes wrong in the function is shown as in a run of its own file."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # metrics count when they are printed, not at the end
    _mlmesh()
    task: Task = json.loads(sys.argv[1])
    try:
        run(task, sys.argv[2:])
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != task["file"]:
            trace = trace.tb_next
        traceback.print_exception(error.with_traceback(trace or error.__traceback__))
        sys.exit(1)


if __name__ == "__main__":
    main()
