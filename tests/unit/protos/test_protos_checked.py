"""What guards the .proto files works: buf finds what it should, and the transcoder has what it needs."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import mlmesh_protos
import pytest
from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_protos", ROOT / "tools" / "check_protos.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The profile service's own protos, to be spoilt."""
    folder = Path("mlmesh/profile/v1")
    target = tmp_path / "protos"
    shutil.copytree(ROOT / "protos" / folder, target / folder)
    return target


def _spoil(protos: Path, old: str, new: str) -> None:
    path = protos / "mlmesh/profile/v1/access.proto"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_ours_pass(tool: ModuleType, tmp_path: Path) -> None:
    image = tmp_path / "now.binpb"
    assert tool.compile_image(ROOT / "protos", image)
    assert tool.run_buf("lint", str(image)) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("// ReviewAccessRequest is the question.\n", ""),
        ("string verb = 2", "string Verb = 2"),
        ("service AccessService", "service Access"),
    ],
)
def test_bad_style_is_found(tool: ModuleType, copy: Path, tmp_path: Path, old: str, new: str) -> None:
    _spoil(copy, old, new)
    image = tmp_path / "spoilt.binpb"
    tool.compile_image(copy, image)
    assert tool.run_buf("lint", str(image)) != 0


@pytest.mark.parametrize(
    ("old", "new", "breaks"),
    [
        ("string verb = 2", "int32 verb = 2", True),
        ("string verb = 2", "string verb = 20", True),
        ("string name = 5;", "", True),
        ("string name = 5;", "string name = 5;\n  // More.\n  string more = 6;", False),
    ],
)
def test_a_breaking_change_is_found(
    tool: ModuleType, copy: Path, tmp_path: Path, old: str, new: str, breaks: bool
) -> None:
    before, after = tmp_path / "before.binpb", tmp_path / "after.binpb"
    tool.compile_image(copy, before)
    _spoil(copy, old, new)
    tool.compile_image(copy, after)
    assert (tool.run_buf("breaking", str(after), "--against", str(before)) != 0) == breaks


def test_the_transcoder_can_name_the_details_of_errors() -> None:
    """Without these types Envoy drops the body of an error that carries them."""
    described = descriptor_pb2.FileDescriptorSet()
    described.ParseFromString(Path(mlmesh_protos.__file__).with_name("descriptor_set.pb").read_bytes())
    names = {f".{file.package}.{message.name}" for file in described.file for message in file.message_type}
    assert {
        ".google.rpc.Status",
        ".google.rpc.BadRequest",
        ".google.rpc.ResourceInfo",
        ".google.rpc.RetryInfo",
    } <= names
