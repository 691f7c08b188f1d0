"""Fronts before real worker processes: cold starts, a machine that is short, a worker that is killed."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from mlmesh_kit.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from mlmesh_serving.backend import Door, WireRequest
from mlmesh_serving.manifest import Feature, parse_manifest
from mlmesh_serving.protection.front import Front, Fronts
from mlmesh_serving.scaling.scaler import Scaler, ScalerSettings
from mlmesh_serving.storage import LocalModel
from mlmesh_serving.tensor import Limits
from mlmesh_serving.workers.host import WorkerHost
from mlmesh_serving.workers.plan import Batching, ChainFiles, Plan
from mlmesh_serving.workers.pool import PoolLimits, WorkerPool
from sklearn.linear_model import LinearRegression

STAGE = """
import time
import numpy as np

def slowly(data: np.ndarray) -> np.ndarray:
    time.sleep(float(data[0, 0]))
    return data
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    rows = np.arange(8.0).reshape(-1, 1)
    joblib.dump(LinearRegression().fit(rows, 2 * rows[:, 0]), folder / "model.joblib")
    (folder / "stages.py").write_text(STAGE)
    (folder / "broken.joblib").write_bytes(b"no model")
    return folder


class Site:
    """A router's worth of fronts, without its doors."""

    def __init__(self, host: WorkerHost, fronts: Fronts, files: Path) -> None:
        self._host = host
        self._fronts = fronts
        self._files = files
        self.pools: dict[str, WorkerPool] = {}

    def put(self, name: str, model: str = "model.joblib", **predictor: Any) -> Front:
        uri = f"file://{self._files}"
        manifest = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name},
            "spec": {
                "preprocessor": {"python": {"class": "stages:slowly", "storageUri": uri}},
                "predictor": {
                    "minReplicas": 0,
                    "model": {"modelFormat": {"name": "sklearn"}, "storageUri": uri},
                    **predictor,
                },
            },
        }
        service = parse_manifest(manifest, frozenset({"sklearn"}), frozenset(Feature))
        predictor_file, stages = (
            LocalModel(path, path.as_uri(), "", True, "storageUri") for path in (self._files / model, self._files)
        )
        plan = Plan(
            service,
            ChainFiles(predictor_file, preprocessor=stages),
            "1",
            Limits(max_elements=1000, max_tensors=4),
            Batching(max_rows=1),
        )
        modules, limits = ("joblib", "sklearn.linear_model"), PoolLimits(crash_retries=0)
        self.pools[name] = WorkerPool(self._host, plan, modules=modules, limits=limits, model=name)
        return self._fronts.put(("default", name, 1), self.pools[name], service)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for all, so that the helper which workers are forked from is started once."""
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def host(runner: asyncio.Runner, tmp_path_factory) -> Iterator[WorkerHost]:
    made = WorkerHost(tmp_path_factory.mktemp("host"))
    running = made.running()
    runner.run(running.__aenter__())
    yield made
    runner.run(running.__aexit__(None, None, None))


@asynccontextmanager
async def site(host: WorkerHost, files: Path, max_workers: int) -> AsyncIterator[Site]:
    scaler = Scaler(ScalerSettings(max_workers, tick_seconds=0.1, turn_seconds=0.5))
    async with asyncio.timeout(60), scaler.running():
        yield Site(host, Fronts(scaler), files)


def request(seconds: float = 0.0, deadline_seconds: float | None = None) -> WireRequest:
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [seconds]}]}
    deadline = None if deadline_seconds is None else asyncio.get_running_loop().time() + deadline_seconds
    return WireRequest(Door.REST_V2, "m", json.dumps(body).encode(), deadline=deadline)


async def ask(front: Front, seconds: float = 0.0, deadline_seconds: float | None = None) -> float:
    answer = await front.submit(request(seconds, deadline_seconds))
    return json.loads(answer.body)["outputs"][0]["data"][0]


def test_cold_starts_on_a_machine_with_room_for_one(runner, host, files) -> None:
    async def main() -> None:
        async with site(host, files, max_workers=1) as here:
            first, second = here.put("first"), here.put("second")
            await first.start()
            assert await asyncio.gather(*(ask(first, 0.001) for _ in range(20))) == pytest.approx([0.002] * 20)
            await second.start()  # the first makes room
            assert (first.ready, second.ready) == (0, 1)
            assert await asyncio.gather(*(ask(second, 0.002) for _ in range(20))) == pytest.approx([0.004] * 20)
            assert await asyncio.gather(*(ask(first, 0.001) for _ in range(20))) == pytest.approx([0.002] * 20)
            assert (first.ready, second.ready) == (1, 0)
            with pytest.raises(DeadlineExceeded):
                await ask(first, 0.5, deadline_seconds=0.1)
            await asyncio.gather(first.close(1), second.close(1))

    runner.run(main())


def test_a_killed_worker_takes_its_own_requests_only(runner, host, files) -> None:
    async def main() -> None:
        async with site(host, files, max_workers=2) as here:
            front = here.put("m", containerConcurrency=1)
            await front.start()
            running = front.submit(request(5))
            waiting = [front.submit(request(0.001)) for _ in range(5)]
            assert front.waiting == 5
            await asyncio.sleep(0.2)
            os.kill(here.pools["m"].pids[0], signal.SIGKILL)
            with pytest.raises(Unavailable):
                await running
            for future in waiting:
                assert json.loads((await future).body)["outputs"][0]["data"] == pytest.approx([0.002])
            await front.close(1)

    runner.run(main())


def test_a_model_that_cannot_be_loaded_says_so_to_all_that_wait(runner, host, files) -> None:
    async def main() -> None:
        async with site(host, files, max_workers=2) as here:
            front = here.put("m", model="broken.joblib")
            with pytest.raises(FailedPrecondition):
                await front.start()
            outcomes = await asyncio.gather(*(ask(front) for _ in range(5)), return_exceptions=True)
            assert all(isinstance(outcome, Unavailable) for outcome in outcomes), outcomes
            await front.close(1)

    runner.run(main())
