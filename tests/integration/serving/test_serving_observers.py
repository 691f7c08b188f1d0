"""Payload logging and detectors with their real process, a real HTTP sink, and faults."""

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager

import numpy as np
import orjson
import pytest
import uvloop
from mlmesh_kit.launch import WarmLauncher
from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.manifest import LoggerMode, LoggerSpec
from mlmesh_serving.observers import metrics
from mlmesh_serving.observers.backend import ObservedBackend
from mlmesh_serving.observers.cloudevent import CloudEvent
from mlmesh_serving.observers.observers import Observers
from mlmesh_serving.observers.settings import ObserverSettings
from mlmesh_serving.observers.sinks import base, http
from mlmesh_serving.observers.sinks.http import HttpSink
from mlmesh_serving.observers.spec import Detection
from mlmesh_serving.observers.subject import Subject
from mlmesh_serving.remote.hosts import LOOPBACK, parse_hosts
from support.event_sink import EventSink
from support.revision_backend import FakeBackend

PRELOAD = ("mlmesh_serving.observers.side", "scipy.stats", "scipy.spatial")


@pytest.fixture
def sink():
    sink = EventSink()
    yield sink
    sink.close()


@pytest.fixture(scope="module")
def launching():
    """A loop for all tests, and a launcher in it: importing what it forks takes longer than all the rest."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        launcher = WarmLauncher(preload=PRELOAD)
        yield runner.run, launcher
        runner.run(launcher.close())


@pytest.fixture
def run(launching):
    return launching[0]


@pytest.fixture
def observing(launching, tmp_path):
    @asynccontextmanager
    async def begin(**settings):
        observers = Observers(launching[1], ObserverSettings(tmp_path, nice=0, **settings))
        async with observers.running():
            yield observers

    return begin


def subject(sink_url, name="iris", revision=1, detectors=()):
    logger = LoggerSpec(LoggerMode.ALL, sink_url, ("x-kept",), {}, "spec.predictor.logger")
    return Subject("default", name, revision, logger=logger, detectors=detectors)


def request(rows, **headers):
    return WireRequest(Door.REST_V1, "iris", orjson.dumps({"instances": rows}), headers=headers)


async def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to hold"
        await asyncio.sleep(0.01)


def count(counter, *labels):
    return counter.labels(*labels)._value.get()


def test_predictions_become_events_in_files_and_drift_and_outliers_are_told(tmp_path, sink, run, observing):
    random = np.random.default_rng(0)
    np.save(tmp_path / "reference.npy", random.normal(size=(1000, 2)))
    reference = {"reference_uri": "file:///r", "reference_path": f"{tmp_path}/reference.npy"}
    detectors = (
        Detection("drift", "ks", window=50, **reference, field="spec.detectors[0]"),
        Detection("odd", "knn", **reference, field="spec.detectors[1]"),
        Detection("answers", "chi2", on="response", collect=20, window=50),
    )

    async def scenario():
        async with observing(log_roots=[f"file://{tmp_path}/logs"]) as o:
            tap = o.watch(subject(sink.url, detectors=detectors))
            files = o.watch(subject(f"file://{tmp_path}/logs", name="filed"))
            answer = WireAnswer(b'{"predictions": [1, 1]}')
            asked = request([[0.1, 0.2], [0.3, 0.1]], **{"x-kept": "a", "authorization": "secret", "ce-id": "mine"})
            tap.offer(asked, answer)
            files.offer(asked, answer)
            await until(lambda: len(sink.events) == 2)
            assert [event["id"] for event in sink.events] == ["mine", "mine"]
            first = sink.of_type(".request")[0]
            assert first.body == asked.body
            assert orjson.loads(first["metadata"]) == {"x-kept": ["a"]}
            assert not any("secret" in text for event in sink.events for text in event.headers.values())
            tap.offer(request([[0.0, 0.1], [40.0, 40.0]]), answer)
            for _ in range(23):
                tap.offer(request((random.normal(size=(2, 2)) + 2).tolist()), answer)
            await until(lambda: sink.of_type(".drift") and sink.of_type(".outlier"))
            drift = orjson.loads(sink.of_type(".drift")[0].body)
            assert drift["data"]["is_drift"] == 1 and len(drift["data"]["p_val"]) == 2
            assert drift["meta"]["name"] == "drift" and drift["meta"]["detector_type"] == "ks"
            outlier = orjson.loads(sink.of_type(".outlier")[0].body)
            assert outlier["data"]["is_outlier"] == [0, 1]
            await until(lambda: count(metrics.DRIFTS, "default", "iris", "drift") == 1)
            (status,) = o.status("default", "iris")
            named = {entry["name"]: entry for entry in status["detectors"]}
            assert named["drift"]["state"] == named["odd"]["state"] == "READY"
            assert (named["drift"]["windows"], named["drift"]["drifts"]) == (1, 1)
            assert named["answers"]["reference"] == 20
            assert count(metrics.INSTANCES, "default", "iris", "drift") == 50
            assert count(metrics.P_VALUE, "default", "iris", "drift") < 1e-6
            assert o.status("default", "other") == []
        # Leaving delivers what waits.
        (logged,) = (tmp_path / "logs").rglob("*.jsonl")
        assert logged.parent == tmp_path / "logs" / "default" / "filed" / "predictor"
        lines = [orjson.loads(line) for line in logged.read_bytes().splitlines()]
        assert [line["type"].rsplit(".", 1)[1] for line in lines] == ["request", "response"]
        assert lines[1]["data"] == {"predictions": [1, 1]}

    run(scenario())


def test_a_killed_process_is_replaced_and_predictions_go_on(tmp_path, sink, run, observing):
    async def scenario():
        async with observing() as observers:
            tap = observers.watch(subject(sink.url, name="killed"))
            backend = ObservedBackend(FakeBackend(1), tap)
            await backend.submit(request([[1.0]]))
            await until(lambda: len(sink.events) == 2)
            first = observers.pid
            os.kill(first, signal.SIGKILL)
            for _ in range(5):  # none of them waits for anything
                assert (await backend.submit(request([[1.0]]))).body == b"1"
            await until(lambda: observers.pid not in (None, first))
            await backend.submit(request([[2.0]]))
            await until(lambda: any(event.body == b'{"instances":[[2.0]]}' for event in sink.events))
            # What was handed over when it was killed is counted; what waited in our queue is not lost.
            lost = count(metrics.DROPPED, "default", "killed", "logger", "process_ended")
            await until(lambda: len(sink.events) >= 2 * (7 - lost))

    run(scenario())


def test_a_sink_that_hangs_holds_up_no_other_and_what_is_too_much_is_counted(tmp_path, sink, run, observing):
    hanging = EventSink()
    hanging.gate.clear()

    async def scenario():
        async with observing(drain_seconds=0.1) as observers:
            slow = observers.watch(subject(hanging.url, name="slow"))
            quick = observers.watch(subject(sink.url, name="quick"))
            for number in range(700):  # two events each; 1000 may wait
                slow.offer(request([[number]]), WireAnswer(b"{}"))
                await asyncio.sleep(0)
            quick.offer(request([[1.0]]), WireAnswer(b"{}"))
            await until(lambda: len(sink.events) == 2)
            await until(lambda: count(metrics.DROPPED, "default", "slow", "logger", "sink_full") >= 390)
            assert not hanging.events
            await until(lambda: slow.is_busy)  # so nothing is handed over any more
            slow.offer(request([[0]]))
            assert count(metrics.DROPPED, "default", "slow", "logger", "busy") == 1
            assert not quick.is_busy
            hanging.gate.set()
            await until(lambda: not slow.is_busy)
            before = len(hanging.events)
            slow.offer(request([[-1.0]]))
            await until(lambda: any(event.body == b'{"instances":[[-1.0]]}' for event in hanging.events))
            assert len(hanging.events) > before

    try:
        run(scenario())
    finally:
        hanging.close()


def event(number=0):
    return CloudEvent("t", "s", str(number), 0.0, "application/json", b"{}")


async def deliver(url, events, hosts=LOOPBACK, seconds=20.0):
    told = []
    sink = HttpSink(url, parse_hosts(hosts), told.append)
    running = asyncio.create_task(sink.run())
    try:
        for one in events:
            assert sink.offer(one)
        assert await sink.drain(seconds) == 0
    finally:
        running.cancel()
    return [outcome.value for outcome in told]


@pytest.mark.parametrize(
    ("answers", "outcome", "requests"),
    [
        (lambda n: 503 if n < 2 else 200, "sent", 3),
        (lambda n: 429 if n < 1 else 204, "sent", 2),
        (lambda n: 500, "failed", 5),
        (lambda n: 400, "rejected", 1),
        (lambda n: 302, "rejected", 1),
    ],
)
def test_a_failing_sink_is_tried_again_where_that_may_help(monkeypatch, answers, outcome, requests):
    monkeypatch.setattr(base, "FIRST_WAIT_SECONDS", 0.01)
    sink = EventSink(answers, {"location": "http://169.254.169.254/"})
    try:
        assert asyncio.run(deliver(sink.url, [event()])) == [outcome]
        assert sink.requests == requests
    finally:
        sink.close()


def test_a_sink_that_is_down_fails_in_time(monkeypatch):
    monkeypatch.setattr(base, "FIRST_WAIT_SECONDS", 0.01)
    sink = EventSink()
    sink.close()
    assert asyncio.run(deliver(sink.url, [event(), event()])) == ["failed", "failed"]


def test_a_name_is_connected_to_only_at_an_address_that_is_allowed(monkeypatch, sink):
    monkeypatch.setattr(base, "FIRST_WAIT_SECONDS", 0.01)
    named = sink.url.replace("127.0.0.1", "localhost")
    assert asyncio.run(deliver(named, [event()])) == ["sent"]
    assert asyncio.run(deliver(named, [event()], hosts="10.0.0.0/8")) == ["failed"]
    assert len(sink.events) == 1


def test_a_sink_says_how_long_to_wait(monkeypatch):
    assert base.wait_seconds(1, 3.0) == 3.0
    assert base.wait_seconds(1, 1e9) == base.LONGEST_WAIT_SECONDS
    assert 0.5 * base.FIRST_WAIT_SECONDS <= base.wait_seconds(1) <= base.FIRST_WAIT_SECONDS
    assert base.wait_seconds(40) <= base.LONGEST_WAIT_SECONDS
    assert http.ATTEMPTS == 5
