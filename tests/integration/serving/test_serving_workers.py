"""Worker processes of a model: what one does, or suffers, and what becomes of its requests."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import psutil
import pytest
import uvloop
from mlmesh_kit.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    Unimplemented,
)
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_serving.backend import Door, WireRequest
from mlmesh_serving.manifest import parse_manifest
from mlmesh_serving.storage import LocalModel
from mlmesh_serving.tensor import Limits
from mlmesh_serving.workers import supervisor
from mlmesh_serving.workers.host import WorkerHost
from mlmesh_serving.workers.plan import Batching, ChainFiles, Plan
from mlmesh_serving.workers.pool import PoolLimits, WorkerPool
from sklearn.linear_model import LinearRegression

# The first number of a request says what is to happen.
STAGES = """
import ctypes, os, sys, time
import numpy as np

def trouble(x: np.ndarray) -> np.ndarray:
    what = int(x[0, 0])
    if what == 101: ctypes.string_at(0)
    if what == 102: os._exit(3)
    if what == 103: time.sleep(600)
    if what == 104: print("a line of the stage's own", flush=True)
    if what == 105: sys.exit("the stage wants to end")
    if what == 106: raise KeyError("what the caller must not see")
    if what == 107: raise ValueError(",".join(sorted(os.environ)))
    if what == 108: time.sleep(0.3)
    if what == 109: print("x" * 400_000, flush=True)
    return x
"""
CRASH, EXIT, HANG, PRINT, SYSEXIT, FAULT, ENVIRONMENT, SLOW, FLOOD = range(101, 110)
MODULES = ("joblib", "sklearn.linear_model")


class World:
    """An event loop with a host of workers in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = uvloop.new_event_loop()
        self.host = WorkerHost(folder, start_seconds=60)
        self._pools: list[WorkerPool] = []

    def run(self, coroutine):
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    def pool(self, replicas: int = 1, target: str = "stages:trouble", batching=None, env=None, **limits) -> WorkerPool:
        async def start() -> WorkerPool:
            plan = self.plan(target, batching)
            pool = WorkerPool(self.host, plan, modules=MODULES, limits=PoolLimits(**limits), env=env)
            self._pools.append(pool)
            await pool.scale(replicas)
            return pool

        return self.run(start())

    def plan(self, target: str, batching: Batching | None) -> Plan:
        uri = self.folder.as_uri()
        manifest = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "m"},
            "spec": {
                "predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": uri}},
                "preprocessor": {"python": {"class": target, "storageUri": uri}},
            },
        }
        spec = parse_manifest(manifest, frozenset({"sklearn"}))
        model, stages = (
            LocalModel(path, path.as_uri(), "", True, "storageUri")
            for path in (self.folder / "model.joblib", self.folder)
        )
        files = ChainFiles(model, preprocessor=stages)
        return Plan(spec, files, "1", Limits(1 << 24, 64), batching or Batching())

    def end_pools(self) -> None:
        pools, self._pools = self._pools, []
        for pool in pools:
            self.run(pool.close(0))

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            self.run(asyncio.sleep(0.01))


@pytest.fixture(scope="module")
def whole_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    rows = np.random.default_rng(0).normal(size=(20, 2))
    joblib.dump(LinearRegression().fit(rows, rows[:, 0]), folder / "model.joblib")  # gives the first number again
    (folder / "stages.py").write_text(STAGES)
    os.environ["MLMESH_S3_SECRET_KEY"] = "secret"
    world = World(folder)
    running = world.host.running()
    world.run(running.__aenter__())
    try:
        yield world
    finally:
        world.run(running.__aexit__(None, None, None))
        del os.environ["MLMESH_S3_SECRET_KEY"]
        world.loop.close()


@pytest.fixture
def world(whole_world):
    yield whole_world
    whole_world.end_pools()


def asked(value: float, *, rows: int = 1, deadline: float | None = None, width: int = 2) -> WireRequest:
    data = np.full((rows, width), float(value))
    tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=data.shape)
    request = oip.ModelInferRequest(model_name="m", inputs=[tensor], raw_input_contents=[data.tobytes()])
    return WireRequest(Door.GRPC, "m", request.SerializeToString(), deadline=deadline)


def answered(answer) -> list[float]:
    message = oip.ModelInferResponse.FromString(answer.body)
    return np.frombuffer(message.raw_output_contents[0]).round(6).tolist()


async def outcomes(futures) -> list:
    found = await asyncio.gather(*futures, return_exceptions=True)
    return [one if isinstance(one, BaseException) else answered(one) for one in found]


def submit(world, pool, *values) -> list:
    async def ask() -> list:
        return await outcomes([pool.submit(asked(value)) for value in values])

    return world.run(ask())


def test_a_model_answers_and_tells_of_itself(world):
    pool = world.pool()
    assert submit(world, pool, 5, 6, 7) == [[5], [6], [7]]
    assert (pool.ready, pool.in_flight, pool.loaded.platform) == (1, 0, "sklearn")


def test_large_requests_and_answers(world):
    pool = world.pool()

    async def ask() -> list:
        return await outcomes([pool.submit(asked(n, rows=200_000 + n)) for n in (5, 6)])

    assert [(found[0], len(found)) for found in world.run(ask())] == [(5, 200_005), (6, 200_006)]


@pytest.mark.parametrize("what", [CRASH, EXIT])
def test_a_crash_harms_its_own_request_alone(world, what):
    pool = world.pool(2, batching=Batching(1))
    found = submit(world, pool, *range(1, 20), what, *range(20, 40))
    failed = [one for one in found if isinstance(one, BaseException)]
    assert [type(one) for one in failed] == [Unavailable] and "try again" in str(failed[0])
    assert [one for one in found if one not in failed] == [[n] for n in range(1, 40)]
    world.until(lambda: pool.ready == 2)


def test_the_only_worker_is_followed_by_another_and_requests_wait_for_it(world):
    pool = world.pool(batching=Batching(1))
    first = pool.pids
    found = submit(world, pool, 1, CRASH, 2, 3)
    assert [one for one in found if isinstance(one, list)] == [[1], [2], [3]]
    assert pool.pids and pool.pids != first
    os.kill(pool.pids[0], signal.SIGKILL)
    world.until(lambda: not pool.ready)
    assert submit(world, pool, 4) == [[4]]


def test_a_model_that_crashes_again_and_again_is_refused_at_once(world, monkeypatch):
    monkeypatch.setattr(supervisor, "SOON_SECONDS", 0.1)  # shorter than the first pause
    pool = world.pool(batching=Batching(1))

    async def ask() -> ServiceError:
        for _ in range(20):
            try:
                await pool.submit(asked(CRASH))
            except Unavailable as error:
                if "no worker" in error.message:
                    return error
        raise AssertionError("it is restarted for ever")

    world.run(ask())
    assert (pool.ready, pool.in_flight) == (0, 0)


def test_a_worker_that_hangs_is_killed(world):
    pool = world.pool(batching=Batching(1), hang_seconds=0.1)

    async def ask() -> list:
        soon = world.loop.time() + 0.2
        return await outcomes([pool.submit(asked(HANG, deadline=soon)), pool.submit(asked(2))])

    hung, other = world.run(ask())
    assert isinstance(hung, Unavailable) and "too long" in str(hung)
    assert other == [2]


def test_a_worker_that_does_not_even_begin_is_killed(world):
    pool = world.pool(timeout_seconds=0.2, hang_seconds=0.1)
    os.kill(pool.pids[0], signal.SIGSTOP)
    assert submit(world, pool, 5) == [[5]]  # by another


def test_a_worker_that_grows_is_replaced_and_no_request_is_lost(world):
    pool = world.pool(resident_bytes=1)  # each is larger
    first = pool.pids

    async def ask() -> list:
        found = []
        while pool.pids == first or len(found) < 50:
            found += await outcomes([pool.submit(asked(n)) for n in range(1, 5)])
            await asyncio.sleep(0.01)
        return found

    found = world.run(ask())
    assert found == [[n] for n in range(1, 5)] * (len(found) // 4)
    world.until(lambda: not psutil.pid_exists(first[0]))


def test_what_a_stage_does_wrong_is_not_the_workers_end(world):
    pool = world.pool()
    first = pool.pids
    ended, fault = submit(world, pool, SYSEXIT, FAULT)
    assert isinstance(ended, Internal) and isinstance(fault, Internal)
    assert "KeyError" in str(fault) and "must not see" not in str(fault)
    assert (submit(world, pool, 3), pool.pids) == ([[3]], first)


def test_a_worker_sees_no_secrets(world):
    (found,) = submit(world, world.pool(env={"OF_THE_MODEL": "x"}), ENVIRONMENT)
    assert isinstance(found, InvalidArgument) and "PATH" in str(found) and "OF_THE_MODEL" in str(found)
    assert "MLMESH_S3" not in str(found)


def test_what_user_code_prints_is_in_the_services_log_but_not_all_of_a_flood(world, caplog):
    pool = world.pool()
    with caplog.at_level(logging.INFO, "mlmesh_serving.workers.output"):
        submit(world, pool, PRINT, FLOOD, 1)
        world.until(lambda: any("own" in getattr(r, "output", "") for r in caplog.records))
        world.run(pool.close(5))
        world.until(lambda: any("dropped" in r.message for r in caplog.records))
    logged = sum(len(getattr(record, "output", "")) for record in caplog.records)
    assert logged < 200_000


def test_a_passed_deadline_is_not_computed(world):
    pool = world.pool(batching=Batching(1))

    async def ask() -> list:
        soon = world.loop.time() + 0.1
        return await outcomes([pool.submit(asked(SLOW)), pool.submit(asked(2, deadline=soon)), pool.submit(asked(3))])

    slow, late, other = world.run(ask())
    assert (slow, other) == ([SLOW], [3]) and isinstance(late, DeadlineExceeded)


def test_more_than_the_limit_is_refused_at_once(world):
    pool = world.pool(requests=3)

    async def ask() -> None:
        futures = [pool.submit(asked(SLOW)) for _ in range(3)]
        with pytest.raises(ResourceExhausted):
            pool.submit(asked(1))
        assert pool.in_flight == 3
        await asyncio.gather(*futures)

    world.run(ask())
    assert (submit(world, pool, 1), pool.in_flight) == ([[1]], 0)


def test_a_request_that_was_given_up_harms_nobody(world):
    pool = world.pool(batching=Batching(1))

    async def ask() -> list:
        given_up, other = pool.submit(asked(SLOW)), pool.submit(asked(2))
        await asyncio.sleep(0.05)
        given_up.cancel()
        return await outcomes([other])

    assert world.run(ask()) == [[2]]
    assert pool.in_flight == 0


def test_workers_come_and_go_as_asked_and_answer_what_they_have(world):
    pool = world.pool(3, batching=Batching(1))
    before = pool.pids
    assert len(set(before)) == 3

    async def shrink() -> list:
        futures = [pool.submit(asked(SLOW)) for _ in range(3)]
        await asyncio.gather(pool.scale(1), asyncio.sleep(0))
        return await outcomes(futures)

    assert world.run(shrink()) == [[SLOW]] * 3
    assert pool.ready == 1 and sum(psutil.pid_exists(pid) for pid in before) == 1
    world.run(pool.scale(0))
    with pytest.raises(Unavailable):
        pool.submit(asked(1))
    world.run(pool.scale(1))
    assert submit(world, pool, 7) == [[7]]


def test_closing_answers_what_is_in_flight(world):
    pool = world.pool(batching=Batching(1))

    async def close() -> list:
        futures = [pool.submit(asked(value)) for value in (SLOW, 2, 3)]
        await pool.close(10)
        return await outcomes(futures)

    assert world.run(close()) == [[SLOW], [2], [3]]
    with pytest.raises(Unavailable):
        pool.submit(asked(1))


def test_what_cannot_be_loaded_says_why_and_leaves_nothing(world):
    with pytest.raises(FailedPrecondition, match="has no nothing"):
        world.pool(target="stages:nothing")
    (world.folder / "crash.py").write_text("import os\nos._exit(7)\n")
    with pytest.raises(FailedPrecondition, match="exited with code 7"):
        world.pool(target="crash:it")


def test_nothing_explains_here(world):
    pool = world.pool()

    async def ask() -> list:
        return await asyncio.gather(pool.submit(WireRequest(Door.EXPLAIN, "m", b"{}")), return_exceptions=True)

    assert [type(one) for one in world.run(ask())] == [Unimplemented]
