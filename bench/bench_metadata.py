"""ML Metadata 1.17.1 in process on a database, beside our server over gRPC on the same kind: the same operations.

`make bench-metadata`, with `ROWS=100000` for another number of artifacts than 10,800. The stock client drives both, in
its own environment (`make clients`). On SQLite, and, where Debian's packages of it are installed, on PostgreSQL, which
runs without fsync for both.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mlmesh_kit.testing import ServiceProcess
from sqlalchemy import make_url

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venvs" / "mlmd" / "bin" / "python"
LOAD = Path(__file__).parent / "metadata_load.py"


def _run(target: str, rows: int) -> dict[str, float]:
    command = [str(PYTHON), str(LOAD), target, str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _show(where: str, theirs: dict[str, float], ours: dict[str, float], rows: int) -> None:
    print(f"{where:36} {'ml-metadata':>12} {'mlmesh':>12} {'ratio':>7}   (above 1: mlmesh is faster; {rows} artifacts)")
    for name, theirs_value in theirs.items():
        ratio = ours[name] / theirs_value if "/s" in name else theirs_value / ours[name]
        print(f"{name:36} {theirs_value:12.3f} {ours[name]:12.3f} {ratio:7.2f}")


def _on_sqlite(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        theirs = _run(f"sqlite:{folder}/mlmd.db", rows)
        with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", Path(folder) / "ours") as service:
            _show("SQLite", theirs, _run(f"grpc:{service.grpc}", rows), rows)


def _on_postgresql(rows: int) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from support.databases import has_postgresql, postgresql

    if not has_postgresql():
        print("PostgreSQL is not installed: not measured")
        return
    with postgresql() as server, tempfile.TemporaryDirectory() as folder:
        url = make_url(server.make_database())
        theirs = _run(f"postgresql:127.0.0.1:{url.port}:{url.database}:{url.username}", rows)
        settings = {"DATABASE_URL": server.make_database()}
        with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", Path(folder), settings) as service:
            _show("PostgreSQL", theirs, _run(f"grpc:{service.grpc}", rows), rows)


def main() -> None:
    rows = int(os.environ.get("ROWS", "10800"))
    _on_sqlite(rows)
    print()
    _on_postgresql(rows)


if __name__ == "__main__":
    main()
