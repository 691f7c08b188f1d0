"""Preprocessors and postprocessors: Python classes or functions, from a folder of the user's.

A stage takes one argument: an array, or, if it says so in its annotation, a dict of arrays by name. It gives an array
or a dict of arrays. It may be `async`. A class is instantiated once, when the model is loaded.
"""

import collections.abc
import hashlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition, ServiceError

from mlmesh_serving.tensor import Tensor, as_tensor


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
            FailedPrecondition: It takes one array and there are several.
        """
        if self._takes_mapping:
            return {tensor.name: tensor.data for tensor in tensors}
        if len(tensors) != 1:
            raise FailedPrecondition(
                f"the {self.role} takes one tensor, got {len(tensors)}; annotate its argument as a dict to take all"
            )
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
            FailedPrecondition: It gave something else.
        """
        try:
            if isinstance(result, Mapping):
                return [as_tensor(str(key), value) for key, value in result.items()]
            return [as_tensor(name, result)]
        except (TypeError, ValueError) as error:
            raise FailedPrecondition(f"the {self.role} gave what is no tensor: {error}") from error


def load_stage(role: str, folder: Path, target: str) -> Stage:
    """Imports a stage from its folder, under a name of its own, so that stages of several models never mix.

    Args:
        role: `preprocessor` or `postprocessor`.
        folder: Where the module lies.
        target: `module:Class` or `module:function`.

    Raises:
        FailedPrecondition: The module or the name is missing, importing fails, or the stage has not the right form.
    """
    module_name, _, name = target.partition(":")
    path = folder / (module_name.replace(".", "/") + ".py")
    if not path.is_file():
        raise FailedPrecondition(f"{role}: there is no module {module_name} in its folder")
    digest = hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(f"mlmesh_stage_{digest}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        found = getattr(module, name)
        function: Any = found() if inspect.isclass(found) else found
    except AttributeError as error:
        raise FailedPrecondition(f"{role}: {module_name} has no {name}") from error
    except ServiceError:
        raise
    except Exception as error:
        raise FailedPrecondition(f"{role}: {target} cannot be loaded: {type(error).__name__}: {error}") from error
    return Stage(role, function, takes_mapping=_takes_mapping(role, target, function))


def _takes_mapping(role: str, target: str, function: Any) -> bool:
    if not callable(function):
        raise FailedPrecondition(f"{role}: {target} cannot be called")
    parameters = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    if len(positional) != 1 or len(parameters) != 1:
        raise FailedPrecondition(f"{role}: {target} must take exactly one argument")
    routine = function if inspect.isroutine(function) else type(function).__call__
    try:
        annotation = typing.get_type_hints(routine).get(positional[0].name)
    except Exception as error:
        raise FailedPrecondition(f"{role}: the annotations of {target} cannot be read: {error}") from error
    if annotation is None or annotation is Any:
        return False
    origin = typing.get_origin(annotation) or annotation
    if origin in {dict, collections.abc.Mapping}:
        return True
    if origin is np.ndarray:
        return False
    raise FailedPrecondition(f"{role}: {target} must take a numpy array or a dict of them, not {annotation!r}")
