"""KFP's own local runner (`kfp.local`, SubprocessRunner(use_venv=False)) beside our service: the same pipelines.

`make bench-pipeline`. Each peer's run is a process of its own, and only the run itself is timed, not the import of kfp;
ours are runs of one service by gRPC, from CreateRun until the run has ended, with caching off. `PEER=0` leaves the peer
out. Then: what is cached, 1,000 tasks and the service's memory, and a page of 20 from 100,000 runs.
"""

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
import yaml
from google.protobuf import json_format
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2, run_pb2_grpc

LOADS = Path(__file__).parent / "pipeline_loads.py"
FINAL = {run_pb2.SUCCEEDED, run_pb2.FAILED, run_pb2.CANCELED}
STORED_RUNS = 100_000


class Client:
    """Runs of a service."""

    def __init__(self, process: ServiceProcess) -> None:
        self.stub: Any = run_pb2_grpc.RunServiceStub(process.channel())

    def run(self, spec: dict[str, Any]) -> float:
        """Runs a pipeline to its end; gives the seconds."""
        return self.ended(spec)[1]

    def ended(self, spec: dict[str, Any]) -> tuple[Any, float]:
        """Runs a pipeline to its end; gives the run and the seconds."""
        run = run_pb2.Run(display_name="bench")
        json_format.ParseDict(spec, run.pipeline_spec)
        before = time.perf_counter()
        run_id = self.stub.CreateRun(run_pb2.CreateRunRequest(run=run)).run_id
        while (found := self.stub.GetRun(run_pb2.GetRunRequest(run_id=run_id))).state not in FINAL:
            # A large run costs some milliseconds to read: asking all the time would be part of what is measured.
            time.sleep(0.005 if len(found.run_details.task_details) < 50 else 0.25)
        seconds = time.perf_counter() - before
        if found.state != run_pb2.SUCCEEDED:
            raise SystemExit(found.error.message)
        return found, seconds

    def overheads(self, chain: dict[str, Any]) -> list[float]:
        """Runs a chain of tasks that do nothing; gives the milliseconds from each task's end to the next one's."""
        tasks = self.ended(chain)[0].run_details.task_details
        ends = sorted(task.end_time.ToNanoseconds() / 1e6 for task in tasks)
        return [later - earlier for earlier, later in itertools.pairwise(ends)]


def _compiled(pipeline: Any, folder: str, *, cached: bool = False) -> dict[str, Any]:
    from kfp import compiler

    path = Path(folder) / "pipeline.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    spec: dict[str, Any] = yaml.safe_load(path.read_text())
    if not cached:
        for owner in [spec["root"], *spec["components"].values()]:
            for task in owner.get("dag", {}).get("tasks", {}).values():
                task["cachingOptions"] = {}
    return spec


def _peer(name: str) -> float:
    done = subprocess.run([sys.executable, str(LOADS), name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.rpartition("seconds: ")[2])


def _memory(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1000


def _store_runs(database: Path) -> None:
    """Copies the run that there is, in the database itself."""
    engine = sa.create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        columns = [row[1] for row in connection.execute(sa.text("PRAGMA table_info(runs)"))]
        chosen = ["r.run_id || '-' || n.n" if c == "run_id" else "r.created_at + n.n" if c == "created_at" else f"r.{c}"
                  for c in columns]  # fmt: skip
        numbers = f"WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {STORED_RUNS})"
        one = "(SELECT * FROM runs LIMIT 1)"
        statement = f"INSERT INTO runs ({', '.join(columns)}) {numbers} SELECT {', '.join(chosen)} FROM n, {one} r"
        connection.execute(sa.text(statement))
    engine.dispose()


def main() -> None:
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(LOADS.parent))
    from pipeline_loads import LOADS as loads
    from pipeline_loads import chain, fan_out

    with_peer = os.environ.get("PEER") != "0"
    print(f"{'seconds':36} {'kfp.local':>12} {'mlmesh':>12} {'ratio':>7}   (above 1: mlmesh is faster)")
    with (
        tempfile.TemporaryDirectory() as folder,
        ServiceProcess("mlmesh_pipeline", "MLMESH_PIPELINE_", Path(folder) / "data") as process,
    ):
        client = Client(process)
        for name, pipeline in loads.items():
            spec = _compiled(pipeline, folder)
            client.run(spec)
            ours = statistics.median(client.run(spec) for _ in range(3))
            theirs = _peer(name) if with_peer else float("nan")
            print(f"{name:36} {theirs:12.2f} {ours:12.3f} {theirs / ours:7.1f}", flush=True)
        plain = _compiled(chain, folder)
        overhead = statistics.median(one for _ in range(5) for one in client.overheads(plain))
        print(f"{'engine overhead per task, median ms':36} {'':12} {overhead:12.1f}")
        cached = _compiled(chain, folder, cached=True)
        client.run(cached)
        print(f"{'cached chain of 10':36} {'':12} {statistics.median(client.run(cached) for _ in range(5)):12.3f}")
        seconds = client.run(_compiled(fan_out(1000), folder))
        print(f"{'1,000 tasks':36} {'':12} {seconds:12.1f}")
        helper = psutil.Process(process.pid).children()[0].pid
        print(f"{'memory of the service after it, MB':36} {'':12} {_memory(process.pid):12.0f}")
        print(f"{'memory of its helper, MB':36} {'':12} {_memory(helper):12.0f}")
        _store_runs(Path(folder) / "data" / "pipeline" / "pipeline.db")
        request = run_pb2.ListRunsRequest(page_size=20, sort_by="created_at desc")
        times = []
        for _ in range(30):
            before = time.perf_counter()
            assert len(client.stub.ListRuns(request).runs) == 20
            times.append(1000 * (time.perf_counter() - before))
        print(f"{f'page of 20 from {STORED_RUNS:,} runs, ms':36} {'':12} {statistics.median(times):12.1f}")


if __name__ == "__main__":
    main()
