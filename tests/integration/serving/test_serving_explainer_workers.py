"""Explainers in their real processes: answers, limits, deadlines, faults."""

import asyncio
import os
import signal
import time

import numpy as np
import orjson
import pytest
import uvloop
from mlmesh_kit.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from mlmesh_kit.launch import WarmLauncher
from mlmesh_serving.backend import Door, WireRequest
from mlmesh_serving.explainers.backend import ExplainerBackend
from mlmesh_serving.explainers.plan import ExplainerPlan
from support.predicting_backend import PredictingBackend, by_columns

MINE = """
import time

class Slow:
    def explain(self, instances, predict):
        while True:
            time.sleep(0.01) if instances[0, 0] else predict(instances)

class Mine:
    def __init__(self):
        self.calls = 0

    def __call__(self, instances, predict):
        self.calls += 1
        if instances[0, 0] < 0:
            raise ValueError("negative")
        if instances[0, 0] > 100:
            raise RuntimeError("a secret")
        return {"first": instances[:, 0], "answers": predict(instances), "calls": self.calls}

def gives_a_list(instances):
    return [1]

def takes_three(a, b, c):
    return {}
"""
WEIGHTS = np.array([2.0, -1.0, 0.5])


@pytest.fixture(scope="module")
def launching():
    """A loop for all tests, and a launcher in it: importing what it forks takes longer than all the rest."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        launcher = WarmLauncher(preload=("mlmesh_serving.explainers.worker",))
        yield runner.run, launcher
        runner.run(launcher.close())


@pytest.fixture
def explaining(launching, tmp_path):
    """Runs a scenario with an explainer and the model that it asks."""
    run, launcher = launching
    np.save(tmp_path / "background.npy", np.arange(12.0).reshape(4, 3))
    (tmp_path / "mine.py").write_text(MINE)

    def go(scenario, plan, model=None, replicas=1):
        async def around():
            asked = model or PredictingBackend(by_columns(lambda rows: rows @ WEIGHTS))
            backend = ExplainerBackend(launcher, plan, asked, tmp_path, nice=0)
            try:
                await backend.scale(replicas)
                return await scenario(backend, asked)
            finally:
                await backend.close(5)

        return run(around())

    return go


@pytest.fixture
def occlusion(tmp_path):
    return ExplainerPlan("occlusion", background="b", background_path=f"{tmp_path}/background.npy", batch_rows=5)


@pytest.fixture
def mine(tmp_path):
    def plan(name, **more):
        return ExplainerPlan("python", target=f"mine:{name}", code="c", code_path=str(tmp_path), **more)

    return plan


def request(body, deadline=None):
    return WireRequest(Door.EXPLAIN, "m", orjson.dumps(body), deadline=deadline)


ONE = {"instances": [[1.0, 2.0, 3.0]]}


def test_v1_and_v2_are_answered_in_kind_and_the_model_is_asked_in_batches(explaining, occlusion):
    async def scenario(backend, model):
        expected = WEIGHTS * (np.array([1.0, 2.0, 3.0]) - np.arange(12.0).reshape(4, 3).mean(axis=0))
        answer = orjson.loads((await backend.submit(request(ONE))).body)
        assert answer["explanations"]["method"] == "occlusion"
        np.testing.assert_allclose(answer["explanations"]["values"], [expected])
        assert answer["explanations"]["predictions"] == [1.5]
        assert max(model.rows) <= 5 and sum(model.rows) == 1 + 3 * 4
        tensor = {"name": "x", "datatype": "FP64", "shape": [1, 3], "data": [1.0, 2.0, 3.0]}
        v2 = orjson.loads((await backend.submit(request({"id": "7", "inputs": [tensor]}))).body)
        assert (v2["model_name"], v2["id"], v2["parameters"]) == ("m", "7", {"method": "occlusion"})
        outputs = {output["name"]: output for output in v2["outputs"]}
        assert outputs["values"]["shape"] == [1, 3]
        np.testing.assert_allclose(outputs["values"]["data"], expected)
        assert model.names == {("instances", "FP64"), ("x", "FP64")}
        assert (backend.in_flight, backend.ready) == (0, 1)

    explaining(scenario, occlusion)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"instances": []}, "instances"),
        ({"instances": [[1.0, 2.0]]}, "instances"),
        ({"instances": [["a", "b", "c"]]}, "instances"),
        ({"instances": [[1, 2, 3]] * 65}, "instances"),
        ({"inputs": [{"name": "x", "datatype": "FP64", "shape": [2], "data": [1]}]}, "inputs[0]"),
        ({}, "instances"),
        ([], "body"),
    ],
)
def test_wrong_requests_are_named(explaining, occlusion, body, field):
    async def scenario(backend, model):
        with pytest.raises(InvalidArgument) as refused:
            await backend.submit(request(body))
        assert refused.value.violations[0][0].startswith(field)
        await backend.submit(request(ONE))

    explaining(scenario, occlusion)


def test_a_users_class_is_called_and_its_faults_are_told(explaining, mine):
    async def scenario(backend, model):
        first = orjson.loads((await backend.submit(request(ONE))).body)["explanations"]
        assert first == {"first": [1.0], "answers": [1.5], "calls": 1}
        with pytest.raises(InvalidArgument, match="refused it: negative"):
            await backend.submit(request({"instances": [[-1.0, 0.0, 0.0]]}))
        with pytest.raises(Internal, match="RuntimeError") as raised:
            await backend.submit(request({"instances": [[101.0, 0.0, 0.0]]}))
        assert "secret" not in raised.value.message
        assert orjson.loads((await backend.submit(request(ONE))).body)["explanations"]["calls"] == 4

    explaining(scenario, mine("Mine"))


def test_what_cannot_be_loaded_says_why(explaining, mine, occlusion, tmp_path):
    async def scenario(backend, model):
        raise AssertionError("it was made ready")

    for plan, told in (
        (mine("Missing"), "has no Missing"),
        (mine("takes_three"), "must take the instances"),
        (ExplainerPlan("occlusion", background="b", background_path=f"{tmp_path}/mine.py"), "must be one of"),
    ):
        with pytest.raises(FailedPrecondition, match=told):
            explaining(scenario, plan)


def test_the_models_errors_are_the_explanations(explaining, occlusion):
    async def scenario(backend, model):
        model.function = refusing
        with pytest.raises(ResourceExhausted, match="too many"):
            await backend.submit(request(ONE))
        model.function = lambda rows: np.array(["a"] * len(rows))
        with pytest.raises(FailedPrecondition, match=r"'predict' \(BYTES \[1\]\) cannot be explained"):
            await backend.submit(request(ONE))
        model.function = by_columns(lambda rows: rows[:, 0])
        await backend.submit(request(ONE))

    def refusing(rows):
        raise ResourceExhausted("too many")

    explaining(scenario, occlusion)


def test_too_many_predictions_are_refused(explaining, tmp_path):
    plan = ExplainerPlan("occlusion", background="b", background_path=f"{tmp_path}/background.npy", max_predictions=12)

    async def scenario(backend, model):
        with pytest.raises(InvalidArgument, match="more than 12 predictions"):
            await backend.submit(request(ONE))

    explaining(scenario, plan)


def test_it_takes_no_more_than_it_has_workers(explaining, mine):
    async def scenario(backend, model):
        loop = asyncio.get_running_loop()
        slow = request({"instances": [[0.0, 0.0, 0.0]]}, loop.time() + 30)
        first = backend.submit(slow)
        with pytest.raises(ResourceExhausted) as refused:
            backend.submit(slow)
        assert refused.value.retry_after_seconds == 1
        assert backend.in_flight == 1
        pid = backend.pids[0]
        first.cancel()
        for _ in range(1000):  # given up at its next question, without being killed
            await asyncio.sleep(0.01)
            try:
                second = backend.submit(slow)
                break
            except ResourceExhausted:
                continue
        assert backend.pids == [pid]
        second.cancel()
        with pytest.raises(Unimplemented):
            backend.submit(WireRequest(Door.REST_V1, "m", b"{}"))

    explaining(scenario, mine("Slow"))


def test_the_deadline_is_kept_and_who_never_asks_is_killed(explaining, mine, monkeypatch):
    monkeypatch.setattr("mlmesh_serving.explainers.backend._PATIENCE_SECONDS", 0.05)

    async def scenario(backend, model):
        loop = asyncio.get_running_loop()
        pid = backend.pids[0]
        began = loop.time()
        with pytest.raises(DeadlineExceeded):
            await backend.submit(request({"instances": [[1.0, 0.0, 0.0]]}, began + 0.1))
        assert loop.time() - began >= 0.1
        await until(lambda: backend.ready == 1 and backend.pids not in ([], [pid]))
        with pytest.raises(DeadlineExceeded):  # the plan's own time, where the request has none
            await backend.submit(request({"instances": [[0.0, 0.0, 0.0]]}))

    explaining(scenario, mine("Slow", timeout_seconds=1))


def test_the_deadline_holds_while_the_model_does_not_answer(explaining, occlusion):
    async def scenario(backend, model):
        loop = asyncio.get_running_loop()
        with pytest.raises(DeadlineExceeded):
            await backend.submit(request(ONE, loop.time() + 0.2))
        await until(lambda: model.held)
        assert model.held[0].cancelled()  # the model is told, too
        model.holds = False
        await until(lambda: not backend._workers[0].is_busy)
        await backend.submit(request(ONE))

    explaining(scenario, occlusion, PredictingBackend(by_columns(lambda rows: rows[:, 0]), holds=True))


def test_a_killed_worker_harms_its_own_request_and_is_replaced(explaining, mine):
    async def scenario(backend, model):
        future = backend.submit(request({"instances": [[1.0, 0.0, 0.0]]}))
        pid = backend.pids[0]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Unavailable, match="ended"):
            await future
        with pytest.raises(Unavailable, match="no explainer is ready"):
            backend.submit(request(ONE))
        await until(lambda: backend.ready == 1)
        assert backend.pids != [pid]

    explaining(scenario, mine("Slow"))


async def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to hold"
        await asyncio.sleep(0.01)
