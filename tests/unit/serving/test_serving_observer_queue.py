"""The bounded queue, and what is offered on the path of a prediction."""

import asyncio
import contextlib

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.manifest import DetectorSpec, LoggerMode, LoggerSpec
from mlmesh_serving.observers import metrics
from mlmesh_serving.observers.backend import ObservedBackend
from mlmesh_serving.observers.observation import pack, unpack
from mlmesh_serving.observers.observers import Observers
from mlmesh_serving.observers.queue import BoundedQueue
from mlmesh_serving.observers.settings import ObserverSettings
from mlmesh_serving.observers.spec import Detection, read_detection
from mlmesh_serving.observers.subject import Subject
from support.revision_backend import FakeBackend

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a machine may be busy


def logger(url: str = "http://127.0.0.1:1/", mode: LoggerMode = LoggerMode.ALL) -> LoggerSpec:
    return LoggerSpec(mode, url, (), {}, "spec.predictor.logger")


class NoLauncher:
    async def start(self, spec):
        raise AssertionError("nothing is started on the path of a prediction")

    async def close(self):
        pass


def dropped(model: str, consumer: str, reason: str) -> float:
    return metrics.DROPPED.labels("default", model, consumer, reason)._value.get()


@patient
@given(
    st.lists(st.one_of(st.integers(0, 40), st.none()), max_size=60),
    st.integers(1, 8),
    st.integers(1, 100),
    st.integers(1, 4),
)
def test_the_queue_keeps_its_bounds_and_the_order(steps, max_items, max_bytes, slice_items):
    queue: BoundedQueue[int] = BoundedQueue(max_items, max_bytes)
    kept: list[tuple[int, int]] = []
    for number, step in enumerate(steps):
        if step is None:
            taken = queue.take(slice_items, 30)
            assert taken == [item for item, _ in kept[: len(taken)]]
            assert bool(taken) == bool(kept)
            assert len(taken) <= 1 or sum(size for _, size in kept[: len(taken)]) <= 30
            del kept[: len(taken)]
        else:
            fits = len(kept) < max_items and sum(size for _, size in kept) + step <= max_bytes
            assert queue.put(number, step) is fits
            if fits:
                kept.append((number, step))
        assert (len(queue), queue.bytes) == (len(kept), sum(size for _, size in kept))


@patient
@given(
    st.sampled_from(Door),
    st.binary(max_size=50),
    st.one_of(st.none(), st.binary(max_size=50)),
    st.one_of(st.none(), st.integers(0, 50)),
    st.dictionaries(st.sampled_from(["ce-id", "x"]), st.text(max_size=9).filter(str.isprintable)),
)
def test_an_observation_is_read_as_it_was_packed(door, body, answer, length, headers):
    request = WireRequest(door, "m", body, length, headers)
    answered = None if answer is None else WireAnswer(answer, length)
    found = unpack(b"".join(pack(7, 1.5, request, answered, ("ce-id",))))
    assert (found.subject, found.seconds, found.answer) == (7, 1.5, answered)
    assert (found.request.door, found.request.body, found.request.json_length) == (door, body, length)
    assert found.request.headers == {key: value for key, value in headers.items() if key == "ce-id"}


@patient
@given(st.binary(max_size=120))
def test_random_bytes_are_no_observation(data):
    with contextlib.suppress(ValueError):
        unpack(data)


def test_what_does_not_fit_is_counted_for_each_consumer(tmp_path):
    limits = ObserverSettings(tmp_path, queue_items=2, queue_bytes=1000, max_payload_bytes=100)
    observers = Observers(NoLauncher(), limits)
    tap = observers.watch(Subject("default", "full", 1, logger=logger(), detectors=(Detection("d", "ks"),)))
    request = WireRequest(Door.REST_V1, "full", b"x" * 40)
    for _ in range(5):
        tap.offer(request, WireAnswer(b"y" * 40))
    tap.offer(WireRequest(Door.REST_V1, "full", b"x" * 101))
    for consumer in ("logger", "d"):
        assert dropped("full", consumer, "queue_full") == 3
        assert dropped("full", consumer, "too_large") == 1


def test_more_than_the_rate_is_dropped_and_counted(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("mlmesh_serving.observers.observers.time.time", lambda: now[0])
    observers = Observers(NoLauncher(), ObserverSettings(tmp_path, rate=100))
    subject = Subject("default", "rated", 1, detectors=(Detection("drift", "ks"),))
    tap = observers.watch(subject)
    request = WireRequest(Door.REST_V2, "rated", b"{}")
    for _ in range(10):  # half a second, 20 requests in each twentieth of one
        for _ in range(20):
            tap.offer(request)
        now[0] += 0.05
    observers.unwatch(tap)
    taken = 200 - dropped("rated", "drift", "rate")
    assert 50 <= taken <= 60 and taken == len(observers._queue)


def test_answers_that_nobody_wants_are_not_kept(tmp_path):
    observers = Observers(NoLauncher(), ObserverSettings(tmp_path, max_payload_bytes=50))
    tap = observers.watch(Subject("default", "requests", 1, logger=logger(mode=LoggerMode.REQUEST)))
    tap.offer(WireRequest(Door.REST_V1, "requests", b"x"), WireAnswer(b"y" * 1000))
    assert dropped("requests", "logger", "too_large") == 0


def test_nobody_looks_at_a_model_without_logger_and_detectors(tmp_path):
    assert Observers(NoLauncher(), ObserverSettings(tmp_path)).watch(Subject("default", "plain", 1)) is None


def test_an_observed_backend_offers_what_was_answered():
    offered = []

    class Tap:
        def offer(self, request, answer=None):
            offered.append((request, answer))

    async def scenario():
        inner = FakeBackend(1, holds=True)
        backend = ObservedBackend(inner, Tap())
        request = WireRequest(Door.GRPC, "m", b"a")
        first = backend.submit(request)
        assert not offered and backend.in_flight == 1
        inner.release()
        await first
        second = backend.submit(request)
        inner.release(InvalidArgument("no"))
        with pytest.raises(InvalidArgument):
            await second
        backend.submit(request).cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert offered == [(request, first.result()), (request, None), (request, None)]

    asyncio.run(scenario())


def test_what_is_not_allowed_is_refused_at_the_door(tmp_path):
    observers = Observers(NoLauncher(), ObserverSettings(tmp_path, log_roots=[f"file://{tmp_path}/logs"]))
    for url in ("http://169.254.169.254/", "http://example.com@169.254.169.254/", "http://[fe80::1]/"):
        with pytest.raises(InvalidArgument, match=r"spec.predictor.logger.url.*REMOTE_HOSTS"):
            observers.watch(Subject("default", "m", 1, logger=logger(url)))
    for url, setting in (
        ("file:///etc", "LOG_ROOTS"),
        (f"file://{tmp_path}/logs/../secret", "LOG_ROOTS"),
        ("s3://bucket/logs", "LOG_ROOTS"),
    ):
        with pytest.raises(FailedPrecondition, match=f"spec.predictor.logger.url.*{setting}"):
            observers.watch(Subject("default", "m", 1, logger=logger(url)))
    with pytest.raises(InvalidArgument, match=r"logger\.url"):
        observers.watch(Subject("default", "m", 1, logger=logger("")))
    observers.watch(Subject("default", "m", 1, logger=logger(f"file://{tmp_path}/logs/a")))


@pytest.mark.parametrize(
    ("kind", "parameters", "field"),
    [
        ("lof", {}, "type"),
        ("ks", {"windows": 3}, "parameters.windows"),
        ("ks", {"window": 9}, "parameters.window"),
        ("mmd", {"window": 1001}, "parameters.window"),
        ("ks", {"pValue": 0}, "parameters.pValue"),
        ("ks", {"pValue": True}, "parameters.pValue"),
        ("ks", {"pValue": float("nan")}, "parameters.pValue"),
        ("ks", {"categorical": [-1]}, "parameters.categorical"),
        ("chi2", {"correction": "sidak"}, "parameters.correction"),
        ("mmd", {"permutations": 98, "pValue": 0.01}, "parameters.permutations"),
        ("knn", {"collect": 197, "pValue": 0.01}, "parameters.collect"),
        ("knn", {"neighbors": "5"}, "parameters.neighbors"),
    ],
)
def test_wrong_parameters_of_a_detector_are_named(kind, parameters, field):
    with pytest.raises(InvalidArgument) as refused:
        read_detection(DetectorSpec("d", kind, "", parameters, "spec.detectors[0]"))
    assert refused.value.violations[0][0] == f"spec.detectors[0].{field}"


def test_a_subject_reaches_the_other_process_whole():
    subject = Subject(
        "ns", "m", 3, "canary", logger=LoggerSpec(LoggerMode.RESPONSE, "http://h/", ("a",), {"k": "v"}, "f"),
        detectors=(Detection("d", "ks", categorical=(1, 2)),),
    )  # fmt: skip
    assert Subject.from_message(orjson.loads(orjson.dumps(subject.message()))) == subject
