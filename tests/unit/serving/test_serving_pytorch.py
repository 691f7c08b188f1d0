"""PyTorch models: TorchScript, and safetensors with the class that the weights belong to."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlmesh_kit.errors import FailedPrecondition
from mlmesh_serving.predictors.base import Predictor
from mlmesh_serving.predictors.formats import FORMATS
from mlmesh_serving.predictors.options import PredictorOptions
from mlmesh_serving.storage import LocalModel
from support.torch import REASON, torch_is_there

pytestmark = [
    pytest.mark.skipif(not torch_is_there(), reason=REASON),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # PyTorch would rather export programs
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width: float = 3):
        super().__init__()
        self.inner = nn.Linear(int(width), 2)
        self.drop = nn.Dropout(0.5)
    def forward(self, x):
        return self.drop(self.inner(x))

class Two(nn.Module):
    def forward(self, left, right):
        return {"sum": left + right, "product": left * right}

class Tuple(nn.Module):
    def forward(self, x):
        return x, x.sum(dim=1)

class Other:
    pass
"""
ROWS = np.arange(6.0).reshape(2, 3)


def local(path: Path, *, trusted: bool = True) -> LocalModel:
    return LocalModel(path, "", "", trusted, "model.storageUri")


def load(path: Path, *, trusted: bool = True, **options: Any) -> Predictor:
    return FORMATS["pytorch"](local(path, trusted=trusted), PredictorOptions(**options))


@pytest.fixture
def nets(tmp_path) -> Any:
    (tmp_path / "nets.py").write_text(NETS)
    space: dict[str, Any] = {"__name__": "nets"}
    exec(compile(NETS, str(tmp_path / "nets.py"), "exec"), space)
    return space


def save_script(nets: Any, name: str, folder: Path) -> Any:
    import torch

    module = nets[name]().eval()
    example = (torch.zeros(2, 3),) * (2 if name == "Two" else 1)
    torch.jit.trace(module, example, strict=False).save(str(folder / "model.pt"))
    return module


def expected(module: Any, *rows: np.ndarray) -> Any:
    import torch

    with torch.inference_mode():
        return module(*(torch.from_numpy(row.astype(np.float32)) for row in rows))


def test_torchscript_answers_as_pytorch(tmp_path, nets):
    module = save_script(nets, "Net", tmp_path)
    predictor = load(tmp_path)
    result = predictor.predict({"anything": ROWS})["output"]
    assert result.dtype == np.float32 and np.array_equal(result, expected(module, ROWS).numpy())
    assert (predictor.platform, predictor.keeps_rows) == ("pytorch_torchscript", False)
    assert load(tmp_path, keeps_rows=True).keeps_rows
    with pytest.raises(FailedPrecondition, match=r"TorchScript can run any code.*MLMESH_SERVING_PICKLE_ROOTS"):
        load(tmp_path, trusted=False)


def test_several_tensors_by_the_names_of_forward(tmp_path, nets):
    save_script(nets, "Two", tmp_path)
    predictor = load(tmp_path)
    results = predictor.predict({"right": np.float32(ROWS), "left": np.float32(ROWS + 1)})
    assert np.array_equal(results["sum"], 2 * ROWS + 1) and np.array_equal(results["product"], ROWS * (ROWS + 1))
    for arrays in ({"left": ROWS, "other": ROWS}, {"left": ROWS, "right": ROWS, "x": ROWS}):
        with pytest.raises(ValueError, match="it takes left, right"):
            predictor.predict(arrays)


def test_several_outputs(tmp_path, nets):
    save_script(nets, "Tuple", tmp_path)
    results = load(tmp_path).predict({"x": np.float32(ROWS)})
    assert list(results) == ["output_0", "output_1"] and results["output_1"].tolist() == [3, 12]


def test_weights_with_their_class(tmp_path, nets):
    from safetensors.torch import save_file

    module = nets["Net"]().eval()
    weights, code = tmp_path / "weights", tmp_path / "code"
    for folder in (weights, code):
        folder.mkdir()
    save_file(module.state_dict(), weights / "model.safetensors")
    (code / "nets.py").write_text(NETS)
    options = {"target": "nets:Net", "config": {"width": 3.0}, "code": local(code)}
    predictor = load(weights, trusted=False, **options)  # weights are no code, and may come from anywhere
    assert np.array_equal(predictor.predict({"x": ROWS})["output"], expected(module, ROWS).numpy())
    assert predictor.platform == "pytorch_safetensors"
    (weights / "nets.py").write_text(NETS)
    with pytest.raises(FailedPrecondition, match="MLMESH_SERVING_PICKLE_ROOTS"):
        load(weights, trusted=False, target="nets:Net")
    for wrong, message in (
        ({"target": ""}, "need the class"),
        ({"target": "nets:Other"}, "no class of torch.nn.Module"),
        ({"config": {"depth": 1}}, "cannot be made: TypeError"),
        ({"config": {"width": 4.0}}, "cannot be loaded: .*size mismatch"),
    ):
        with pytest.raises(FailedPrecondition, match=message):
            load(weights, **{**options, **wrong})


def header(**tensors: Any) -> bytes:
    content = json.dumps(tensors).encode()
    return struct.pack("<Q", len(content)) + content


HUGE = {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 1 << 62]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 1 << 40) + b"{}",
        header() + b"rest",
        header(weight=HUGE),
        header(weight={**HUGE, "data_offsets": [0, 4]}) + bytes(4),
        header(weight={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
        b"PK\x03\x04" + bytes(40),
    ],
)
def test_broken_weights(tmp_path, nets, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(FailedPrecondition, match=r"model\.safetensors cannot be loaded: "):
        load(tmp_path, target="nets:Net")


def test_broken_torchscript(tmp_path, nets):
    save_script(nets, "Net", tmp_path)
    whole = (tmp_path / "model.pt").read_bytes()
    for content in (b"", b"PK\x03\x04", whole[: len(whole) // 2], b"\x80\x02}q\x00."):
        (tmp_path / "model.pt").write_bytes(content)
        with pytest.raises(FailedPrecondition, match=r"model\.pt is no TorchScript: "):
            load(tmp_path)


def test_a_library_sets_its_threads(tmp_path, nets):
    import torch

    save_script(nets, "Net", tmp_path)
    load(tmp_path, threads=1)
    assert torch.get_num_threads() == 1
