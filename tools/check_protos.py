"""Lints our own .proto files with buf, and compares them with those of an earlier commit.

buf cannot fetch google/api from its registry on a machine without one. So protoc compiles everything first, with the
google/api files of the package googleapis-common-protos, and buf reads the compiled descriptors.

    python tools/check_protos.py [--against COMMIT]

Exit code 1 when buf finds something. Without a commit to compare with (a fresh history), only lints.
"""

import argparse
import importlib.resources
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import google.api
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "protos" / "buf.yaml"
GENERATED = "mlmesh_protos"
OURS = "mlmesh"


def compile_image(protos: Path, image: Path) -> bool:
    """Compiles every .proto file under `protos` into one descriptor set; tells whether there was any."""
    names = (path.relative_to(protos) for path in protos.rglob("*.proto"))
    files = sorted(name.as_posix() for name in names if name.parts[0] != GENERATED)
    if not files:
        return False
    includes = [protos, importlib.resources.files("grpc_tools") / "_proto"]
    includes.append(Path(next(iter(google.api.__path__))).parent.parent)
    arguments = ["protoc", *(f"-I{path}" for path in includes), "--include_imports", "--include_source_info"]
    if protoc.main([*arguments, f"--descriptor_set_out={image}", *files]) != 0:
        raise SystemExit("protoc refused a .proto file (see above)")
    return True


def checkout_protos(commit: str, target: Path) -> bool:
    """Puts the protos/ of a commit under `target`; tells whether that commit has any."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", commit, "protos"]
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode != 0:
        return False
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(target, filter="data")
    return True


def run_buf(*arguments: str) -> int:
    """Runs buf on our own packages; gives its exit code."""
    buf = Path(sys.executable).with_name("buf")
    return subprocess.run(
        [str(buf), *arguments, "--config", str(CONFIG), "--path", OURS], cwd=ROOT, check=False
    ).returncode


def main() -> int:
    """Runs both checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="HEAD~1", help="commit to compare with (default: %(default)s)")
    commit = parser.parse_args().against
    with tempfile.TemporaryDirectory() as scratch:
        now, before, old = Path(scratch) / "now.binpb", Path(scratch) / "before.binpb", Path(scratch) / "old"
        compile_image(ROOT / "protos", now)
        result = run_buf("lint", str(now))
        old.mkdir()
        if checkout_protos(commit, old) and compile_image(old / "protos", before):
            result |= run_buf("breaking", str(now), "--against", str(before))
        else:
            print(f"nothing to compare with in {commit}")
    return 1 if result else 0


if __name__ == "__main__":
    raise SystemExit(main())
