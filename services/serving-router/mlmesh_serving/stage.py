"""Preprocessors and postprocessors: Python classes or functions, from a folder of the user's.

A stage takes one argument: an array, or, if it says so in its annotation, a dict of arrays by name. It gives an array
or a dict of arrays. It may be `async`. A class is instantiated once, when the model is loaded.
"""

import collections.abc
import hashlib
import importlib
import inspect
import sys
import threading
import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition, Internal, InvalidArgument

from mlmesh_serving.storage import check_inside
from mlmesh_serving.tensor import Tensor, as_tensor

_IMPORTING = threading.Lock()  # sys.path and sys.modules are the process's


class Stage:
    """A stage that has been loaded and checked.

    Args:
        role: `preprocessor` or `postprocessor`, for messages.
        function: What is called.
        takes_mapping: Whether it takes all tensors as a dict, or the one as an array.
    """

    def __init__(self, role: str, function: Callable[[Any], Any], *, takes_mapping: bool) -> None:
        self.role = role
        self._function = function
        self._takes_mapping = takes_mapping
        target = function if inspect.isroutine(function) else type(function).__call__
        self.is_async = inspect.iscoroutinefunction(target)

    def prepare(self, tensors: list[Tensor]) -> Any:
        """Gives the stage's argument.

        Raises:
            InvalidArgument: It takes one array and there are several.
        """
        if self._takes_mapping:
            return {tensor.name: tensor.data for tensor in tensors}
        if len(tensors) != 1:
            raise InvalidArgument(f"the {self.role} takes one tensor, got {len(tensors)}", field="inputs")
        return tensors[0].data

    def call(self, argument: Any) -> Any:
        """Calls the stage; an awaitable if it is async."""
        return self._function(argument)

    async def acall(self, argument: Any) -> Any:
        """Calls an async stage."""
        result: Awaitable[Any] = self._function(argument)
        return await result

    def finish(self, result: Any, name: str) -> list[Tensor]:
        """Makes tensors of what the stage gave.

        Args:
            result: An array, or a dict of arrays.
            name: Of the tensor, where the stage gives none.

        Raises:
            Internal: It gave something else.
        """
        try:
            if isinstance(result, Mapping):
                return [as_tensor(str(key), value) for key, value in result.items()]
            return [as_tensor(name, result)]
        except (TypeError, ValueError) as error:
            raise Internal(f"the {self.role} gave what is no tensor: {str(error)[:500]}") from error


def load_stage(role: str, folder: Path, target: str) -> Stage:
    """Imports a stage from its folder, and makes it if it is a class.

    Args:
        role: `preprocessor` or `postprocessor`.
        folder: Where the module lies.
        target: `module:Class` or `module:function`.

    Raises:
        FailedPrecondition: See `import_target`; or the stage has not the right form.
    """
    found = import_target(role, folder, target)
    function = _made(role, target, found) if inspect.isclass(found) else found
    return Stage(role, function, takes_mapping=takes_mapping(role, target, function))


def load_transformer(folder: Path, target: str) -> tuple[Stage | None, Stage | None]:
    """Imports a transformer from its folder and makes it, once: its methods `preprocess` and `postprocess` are stages.

    Args:
        folder: Where the module lies.
        target: `module:Class`.

    Raises:
        FailedPrecondition: See `import_target`; or it is no class, has neither method, or one has not the right form.
    """
    role = "transformer"
    found = import_target(role, folder, target)
    if not inspect.isclass(found):
        raise FailedPrecondition(f"{role}: {target} must be a class with the methods preprocess, postprocess")
    made = _made(role, target, found)
    stages: list[Stage | None] = []
    for name in ("preprocess", "postprocess"):
        method = getattr(made, name, None)
        if method is None:
            stages.append(None)
            continue
        stages.append(Stage(f"{name}or", method, takes_mapping=takes_mapping(role, f"{target}.{name}", method)))
    if stages == [None, None]:
        raise FailedPrecondition(f"{role}: {target} has neither of the methods preprocess, postprocess")
    return stages[0], stages[1]


def _made(role: str, target: str, found: Any) -> Any:
    try:
        return found()
    except Exception as error:
        raise FailedPrecondition(f"{role}: {target} cannot be loaded: {type(error).__name__}: {error}") from error


def import_target(role: str, folder: Path, target: str) -> Any:
    """Imports a class or function from a folder, under a name of its own, so that those of several models never mix.

    Args:
        role: What it is for, for messages.
        folder: Where the module lies. It may import other modules of the folder while it is imported itself.
        target: `module:Class` or `module:function`.

    Raises:
        FailedPrecondition: The module or the name is missing, or importing fails.
    """
    module_name, _, name = target.partition(":")
    path = folder / (module_name.replace(".", "/") + ".py")
    if not path.is_file():
        raise FailedPrecondition(f"{role}: there is no module {module_name} in its folder")
    try:
        module = _import(folder, check_inside(folder, path))
    except FailedPrecondition:
        raise
    except Exception as error:
        raise FailedPrecondition(f"{role}: {target} cannot be loaded: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        raise FailedPrecondition(f"{role}: {module_name} has no {name}")
    return getattr(module, name)


def _import(folder: Path, path: Path) -> types.ModuleType:
    """Runs a module's source as it is now; a stale bytecode file is never read for it."""
    source = path.read_bytes()
    module = types.ModuleType(f"mlmesh_stage_{hashlib.sha256(str(path).encode() + source).hexdigest()[:16]}")
    module.__file__ = str(path)
    with _IMPORTING:
        before = set(sys.modules)
        writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        sys.modules[module.__name__] = module  # where pickle and dataclasses look classes up
        try:
            exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102
        except BaseException:
            del sys.modules[module.__name__]
            raise
        finally:
            sys.path.remove(str(folder))
            sys.dont_write_bytecode = writes_bytecode
            _forget(folder, set(sys.modules) - before - {module.__name__})
    return module


def _forget(folder: Path, names: set[str]) -> None:
    """Takes the folder's own modules out again: another model's folder may hold others of the same name."""
    for name in names:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(folder):
            del sys.modules[name]


def takes_mapping(role: str, target: str, function: Any) -> bool:
    """Checks the signature of what takes tensors; tells whether it takes a dict.

    Raises:
        FailedPrecondition: It does not take one argument, or its annotations are of no tensors.
    """
    if not callable(function):
        raise FailedPrecondition(f"{role}: {target} cannot be called")
    parameters = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    if len(positional) != 1 or len(parameters) != 1:
        raise FailedPrecondition(f"{role}: {target} must take exactly one argument")
    routine = function if inspect.isroutine(function) else type(function).__call__
    try:
        annotations = typing.get_type_hints(routine)
    except Exception as error:
        raise FailedPrecondition(f"{role}: the annotations of {target} cannot be read: {error}") from error
    is_mapping = _is_mapping(annotations.get(positional[0].name), f"{role}: {target} must take")
    _is_mapping(annotations.get("return"), f"{role}: {target} must give")
    return is_mapping


def _is_mapping(annotation: Any, must: str) -> bool:
    if annotation is None or annotation is Any:
        return False
    origin = typing.get_origin(annotation) or annotation
    if origin in {dict, collections.abc.Mapping}:
        arguments = typing.get_args(annotation)
        if arguments and (arguments[0] not in {str, Any} or _is_mapping(arguments[1], must)):
            raise FailedPrecondition(f"{must} a dict of names to numpy arrays, not {annotation!r}")
        return True
    if origin is np.ndarray:
        return False
    raise FailedPrecondition(f"{must} a numpy array or a dict of them, not {annotation!r}")
