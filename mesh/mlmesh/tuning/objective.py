"""The objective of `mlmesh.tune`: a Python function, taken by its source."""

import ast
import builtins
import inspect
import symtable
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlmesh
from mlmesh.tuning.runner import report

MAX_SOURCE = 96 << 10
"""Linux takes no argument of a process that is longer than 128 KiB."""


@dataclass(frozen=True)
class Objective:
    """A function that can run elsewhere.

    Attributes:
        source: Dedented.
        function: Its name.
        file: Name of its file, without folders.
        line: Its first line there, from 1.
        names: Names that it uses from outside: name → `mlmesh` or `report`.
    """

    source: str
    function: str
    file: str
    line: int
    names: dict[str, str]


def read_objective(function: Callable[..., Any]) -> Objective:
    """Takes a function's source, and checks that it needs nothing else.

    Args:
        function: With one argument, a dict of parameters.

    Raises:
        TypeError: It is no function that was written with `def`, or has other arguments.
        ValueError: Its source cannot be had, or uses what is defined elsewhere.
    """
    _check_kind(function)
    name = function.__name__
    if len(inspect.signature(function).parameters) != 1:
        raise TypeError(
            f"{name}() must have one argument, the dict of parameters; it has {inspect.signature(function)}"
        )
    if function.__code__.co_freevars:
        taken = ", ".join(function.__code__.co_freevars)
        raise ValueError(
            f"{name}() uses {taken} of the function that it is defined in; give such values as entries of the space"
        )
    try:
        lines, first = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function) or "objective.py"
    except (OSError, TypeError) as error:
        raise ValueError(
            f"the source of {name}() cannot be had: it was typed into an interpreter, or made by exec(); "
            "write it into a file or a notebook"
        ) from error
    source = textwrap.dedent("".join(lines))
    _check_source(source, name)
    if len(source.encode()) > MAX_SOURCE:
        raise ValueError(f"the source of {name}() must have at most {MAX_SOURCE} bytes")
    return Objective(source, name, Path(file).name, first, _names(source, function))


def _check_kind(function: Any) -> None:
    if inspect.ismethod(function):
        raise TypeError(f"{function.__qualname__}() is a method: its object is not there in a trial; give a function")
    if not inspect.isfunction(function):
        raise TypeError(f"the objective must be a function, got {type(function).__name__}")
    if function.__name__ == "<lambda>":
        raise TypeError("the objective must be a function that was written with def: a lambda has no source of its own")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{function.__name__}() must be an ordinary function, not async and not a generator")
    if inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__name__}() must be an ordinary function, not a generator")


def _check_source(source: str, name: str) -> None:
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"the source of {name}() cannot be taken out of its file: {error.msg}") from error
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef) or body[0].name != name:
        raise ValueError(f"{name}() must be written with def, under this name")
    if body[0].decorator_list:
        raise ValueError(f"{name}() must have no decorators: they are not there in a trial")


def _names(source: str, function: Callable[..., Any]) -> dict[str, str]:
    # As in the trial, annotations are not looked up: they may name what only the function's own module has.
    table = symtable.symtable(f"from __future__ import annotations\n{source}", function.__name__, "exec")
    used: set[str] = set()
    defined = {function.__name__, *dir(builtins), "__name__", "__builtins__"}
    for scope in _scopes(table):
        for symbol in scope.get_symbols():
            if scope is table or symbol.is_global():
                (defined if symbol.is_assigned() or symbol.is_imported() else used).add(symbol.get_name())
    found, missing = {}, []
    for name in sorted(used - defined):
        value = getattr(function, "__globals__", {}).get(name)
        if value is mlmesh:
            found[name] = "mlmesh"
        elif value is report:
            found[name] = "report"
        else:
            missing.append(name)
    if missing:
        raise ValueError(
            f"{function.__name__}() uses {', '.join(missing)}, which it does not define: only its own source is there "
            "in a trial; import and define inside of it, and give values as entries of the space"
        )
    return found


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        if str(child.get_type()) in {"function", "class"}:  # later Pythons have tables of annotations, too
            yield from _scopes(child)
