"""ML Metadata 1.17.1 in process on a SQLite file, beside our server over gRPC on a SQLite file: the same operations.

`make bench-metadata`, with `ROWS=100000` for another number of artifacts than 10,800. The stock client drives both, in
its own environment (`make clients`).
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from mlmesh_kit.testing import ServiceProcess

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


def main() -> None:
    rows = int(os.environ.get("ROWS", "10800"))
    with tempfile.TemporaryDirectory() as folder:
        theirs = _run(f"sqlite:{folder}/mlmd.db", rows)
        with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", Path(folder) / "ours") as service:
            ours = _run(f"grpc:{service.grpc}", rows)
    print(
        f"{'':36} {'ml-metadata':>12} {'mlmesh':>12} {'ratio':>7}   (ratio above 1: mlmesh is faster; {rows} artifacts)"
    )
    for name, theirs_value in theirs.items():
        ratio = ours[name] / theirs_value if "/s" in name else theirs_value / ours[name]
        print(f"{name:36} {theirs_value:12.3f} {ours[name]:12.3f} {ratio:7.2f}")


if __name__ == "__main__":
    main()
