"""PyTorch models: TorchScript files, or weights as safetensors with the class that they belong to.

A TorchScript file is a program: by PyTorch's own security policy it is to be trusted as code is. Weights are none; the
class that they belong to is, and may lie elsewhere than they do (`codeUri`).
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition

from mlmesh_serving.predictors.base import Arrays, Predictor, cast, only, require
from mlmesh_serving.predictors.options import PredictorOptions
from mlmesh_serving.stage import import_target
from mlmesh_serving.storage import LocalModel
from mlmesh_serving.tensor import TensorInfo

TORCHSCRIPT = (".pt", ".ts")
SAFETENSORS = (".safetensors",)
_ROLE = "predictor"


class PytorchPredictor(Predictor):
    """A module.

    Args:
        module: It, on the CPU.
        names: What `forward` takes, in order.
        platform: What it is.
        options: How.
    """

    def __init__(self, module: Any, names: list[str], platform: str, options: PredictorOptions) -> None:
        self._torch = require("torch")
        self._torch.set_num_threads(options.threads)
        self._module = module.eval()
        self._names = names
        self.platform = platform
        # What a network does with its rows nobody can see: it keeps them if the manifest says so.
        self.keeps_rows = bool(options.keeps_rows)
        dtypes = [value.dtype for value in module.parameters() if value.dtype.is_floating_point]
        self._float = np.dtype(str(dtypes[0]).removeprefix("torch.")) if dtypes and _is_numpy(dtypes[0]) else None

    @classmethod
    def load(cls, model: LocalModel, options: PredictorOptions) -> "PytorchPredictor":
        """See Predictor."""
        file = model.file(*TORCHSCRIPT, *SAFETENSORS)
        if file.suffix in TORCHSCRIPT:
            model.check_code("TorchScript")
            torch = require("torch")
            try:
                module = torch.jit.load(str(file), map_location="cpu")
            except Exception as error:  # RuntimeError, and what its reader of archives raises
                reason = str(error).strip().partition("\n")[0][:300]
                raise FailedPrecondition(f"{file.name} is no TorchScript: {reason}") from error
            taken = [argument.name for argument in module.forward.schema.arguments[1:]]
            return cls(module, taken, "pytorch_torchscript", options)
        if not options.target:
            raise FailedPrecondition("weights need the class that they belong to: class: module:Class")
        code = options.code or model
        code.check_code("Python code")
        module = _built(code, options)
        _fill(module, file)
        parameters = inspect.signature(module.forward).parameters.values()
        taken = [p.name for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
        return cls(module, taken, "pytorch_safetensors", options)

    def predict(self, arrays: Arrays) -> Mapping[str, Any]:
        """See Predictor. One tensor may have any name; several are matched with the arguments of `forward`."""
        if len(arrays) == 1:
            given = [only(arrays)]
        else:
            unknown = arrays.keys() - set(self._names)
            if unknown:
                raise ValueError(f"it takes {', '.join(self._names)}, not {', '.join(sorted(unknown))}")
            given = [arrays[name] for name in self._names if name in arrays]
            if any(name not in arrays for name in self._names[: len(given)]):
                raise ValueError(f"it takes {', '.join(self._names)}, and one before {list(arrays)[-1]} is missing")
        tensors = [self._torch.from_numpy(self._fitting(array)) for array in given]
        with self._torch.inference_mode():
            return _named(self._module(*tensors))

    @property
    def inputs(self) -> list[TensorInfo]:
        """See Predictor: the manifest's `inputs` says it."""
        return []

    @property
    def outputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return []

    def _fitting(self, array: Any) -> Any:
        if array.dtype.kind not in "biuf":
            raise TypeError(f"it must be of numbers, got {array.dtype}")
        if array.dtype.kind == "f" and self._float is not None:
            array = cast(array, self._float)
        return array if array.flags.writeable and array.flags.c_contiguous else array.copy()


def _built(code: LocalModel, options: PredictorOptions) -> Any:
    torch = require("torch")
    found = import_target(_ROLE, code.path, options.target)
    if not (inspect.isclass(found) and issubclass(found, torch.nn.Module)):
        raise FailedPrecondition(f"{_ROLE}: {options.target} is no class of torch.nn.Module")
    try:
        return found(**options.config)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error)[:500]}"
        raise FailedPrecondition(f"{_ROLE}: {options.target} cannot be made: {reason}") from error


def _fill(module: Any, file: Any) -> None:
    """Loads weights; the library checks what the file declares against its size before it takes memory."""
    loader = require("safetensors.torch", "safetensors")
    try:
        module.load_state_dict(loader.load_file(str(file), device="cpu"))
    except Exception as error:  # the library's own class, or a RuntimeError where names or shapes differ
        reason = " ".join(str(error).split())[:300]
        raise FailedPrecondition(f"{file.name} cannot be loaded: {reason}") from error


def _is_numpy(dtype: Any) -> bool:
    return str(dtype) in {"torch.float16", "torch.float32", "torch.float64"}


def _named(result: Any) -> Mapping[str, Any]:
    if isinstance(result, Mapping):
        return {str(name): value.numpy() for name, value in result.items()}
    if isinstance(result, (tuple, list)):
        return {f"output_{index}": value.numpy() for index, value in enumerate(result)}
    return {"output": result.numpy()}
