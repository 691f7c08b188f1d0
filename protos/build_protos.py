"""Generates the package mlmesh_protos from the .proto files beside this script.

Writes Python messages, gRPC stubs, type stubs and `descriptor_set.pb` (what Envoy's JSON transcoder reads).
Everything is made in a temporary folder and swapped in whole, so that a broken .proto leaves the last good
package in place. Run by `make protos` and, as a build hook, by every install.
"""

import contextlib
import importlib.resources
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "mlmesh_protos"
ERROR_DETAILS = ["google/rpc/error_details.proto", "google/rpc/status.proto"]
"""In the descriptor set too: the transcoder drops the body of an error whose details it cannot name."""


def proto_files(root: Path = HERE) -> list[str]:
    """Lists the .proto files under `root` as import paths, sorted."""
    found = (p.relative_to(root) for p in root.rglob("*.proto"))
    return sorted(p.as_posix() for p in found if p.parts[0] != PACKAGE.name)


def _relocate(text: str, tops: set[str]) -> str:
    """Points imports of generated modules into the package mlmesh_protos (protoc knows no package of ours)."""
    names = "|".join(sorted(map(re.escape, tops)))
    text = re.sub(rf"^(\s*from )({names})((?:\.\w+)* import )", r"\1mlmesh_protos.\2\3", text, flags=re.M)
    text = re.sub(rf"^(\s*import )({names})((?:\.\w+)*_pb2)", r"\1mlmesh_protos.\2\3", text, flags=re.M)
    return re.sub(rf"(?<![\w.'\"/])({names})((?:\.\w+)*_pb2(?:_grpc)?\.)", r"mlmesh_protos.\1\2", text)


def _search_path(command: str) -> str | None:
    beside = Path(sys.executable).with_name(command)
    return str(beside) if beside.exists() else shutil.which(command)


def build(target: Path = PACKAGE) -> None:
    """Compiles every .proto file into `target`.

    Raises:
        SystemExit: protoc refused a file; its own message has been printed.
    """
    from grpc_tools import protoc  # a build-time requirement only

    files = proto_files()
    tops = {Path(f).parts[0] for f in files}
    includes = [HERE, importlib.resources.files("grpc_tools") / "_proto"]
    with contextlib.suppress(ModuleNotFoundError):
        import google.api

        includes.append(Path(next(iter(google.api.__path__))).parent.parent)
    with tempfile.TemporaryDirectory(dir=HERE, prefix=".build-") as scratch:
        out = Path(scratch) / PACKAGE.name
        out.mkdir()
        arguments = ["protoc", *(f"-I{path}" for path in includes)]
        arguments += [f"--python_out={out}", f"--grpc_python_out={out}"]
        for plugin in ("mypy", "mypy_grpc"):
            executable = _search_path(f"protoc-gen-{plugin}")
            if executable:
                arguments += [f"--plugin=protoc-gen-{plugin}={executable}", f"--{plugin}_out=quiet:{out}"]
        described = ["protoc", *(f"-I{path}" for path in includes)]
        described += [f"--descriptor_set_out={out / 'descriptor_set.pb'}", "--include_imports"]
        if protoc.main([*arguments, *files]) != 0 or protoc.main([*described, *files, *ERROR_DETAILS]) != 0:
            raise SystemExit("protoc refused a .proto file (see above); mlmesh_protos is left as it was")
        for module in [*out.rglob("*.py"), *out.rglob("*.pyi")]:
            module.write_text(_relocate(module.read_text(), tops))
        for folder in [out, *(p for p in out.rglob("*") if p.is_dir())]:
            (folder / "__init__.py").write_text('"""Generated from the .proto files; do not edit."""\n')
        (out / "py.typed").touch()
        old = Path(scratch) / "old"
        if target.exists():
            os.replace(target, old)
        os.replace(out, target)


if __name__ == "__main__":
    build()
