"""Payloads in folders and buckets: files of bounded size, the oldest deleted, faults."""

import asyncio

import orjson
import pytest
from mlmesh_kit.errors import FailedPrecondition, Unavailable
from mlmesh_serving.observers.cloudevent import CloudEvent
from mlmesh_serving.observers.places import AllowedPlaces
from mlmesh_serving.observers.sinks import base, store
from mlmesh_serving.observers.sinks.store import StoreSink
from support.s3 import BUCKET


def event(number):
    return CloudEvent("t", "s", str(number), 0.0, "application/json", b'{"a": "' + b"x" * 500 + b'"}')


async def deliver(sink, events, *, drains=True):
    running = asyncio.create_task(sink.run())
    try:
        for one in events:
            assert sink.offer(one)
            await asyncio.sleep(0)
        return await sink.drain(20) if drains else await asyncio.sleep(0.5)
    finally:
        running.cancel()


def ids(data):
    return [orjson.loads(line)["id"] for line in data.splitlines()]


def test_files_are_of_bounded_size_and_hold_all_in_order(tmp_path):
    told = []
    sink = StoreSink(tmp_path.as_uri(), f"{tmp_path.as_uri()}/default/m", told.append, file_bytes=5000)
    assert asyncio.run(deliver(sink, map(event, range(20)))) == 0
    files = list((tmp_path / "default" / "m").iterdir())
    assert len(files) == 5
    assert all(file.stat().st_size <= 5000 and file.suffix == ".jsonl" for file in files)
    in_order = b"".join(file.read_bytes() for file in sorted(files))
    assert ids(in_order) == [str(number) for number in range(20)]
    assert [outcome.value for outcome in told] == ["sent"] * 20


def test_a_file_is_written_when_its_first_event_has_waited_long_enough(tmp_path):
    sink = StoreSink(tmp_path.as_uri(), tmp_path.as_uri(), lambda _: None, file_seconds=0.05)
    asyncio.run(deliver(sink, [event(1)], drains=False))
    (file,) = tmp_path.iterdir()
    assert ids(file.read_bytes()) == ["1"]


def test_the_oldest_files_are_deleted_beyond_what_is_kept(tmp_path):
    (tmp_path / "20200101T000000-old.jsonl").write_bytes(b"x" * 3000)
    sink = StoreSink(tmp_path.as_uri(), tmp_path.as_uri(), lambda _: None, file_bytes=2000, keep_bytes=4000)
    asyncio.run(deliver(sink, map(event, range(12))))
    files = list(tmp_path.iterdir())
    assert sum(file.stat().st_size for file in files) <= 4000
    assert not any("old" in file.name for file in files)


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [([Unavailable("no")] * 2, "sent"), ([Unavailable("no")] * 5, "failed"), ([FailedPrecondition("no")], "rejected")],
)
def test_a_store_that_fails_is_tried_again_where_that_may_help(tmp_path, monkeypatch, errors, outcome):
    monkeypatch.setattr(base, "FIRST_WAIT_SECONDS", 0.01)
    left, told = list(errors), []

    def failing(sink, data, uri):
        if left:
            raise left.pop()

    monkeypatch.setattr(store.StoreSink, "_write", failing)
    sink = StoreSink(tmp_path.as_uri(), tmp_path.as_uri(), told.append)
    asyncio.run(deliver(sink, [event(1)]))
    assert [o.value for o in told] == [outcome]


def test_payloads_reach_a_bucket(s3_server, monkeypatch):
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    told = []
    folder = f"s3://{BUCKET}/payloads/default/m/predictor"
    asyncio.run(deliver(StoreSink(f"s3://{BUCKET}/payloads", folder, told.append), [event(1), event(2)]))
    assert [outcome.value for outcome in told] == ["sent", "sent"]
    client = s3_server.client()
    (found,) = client.list_objects(BUCKET, "payloads/default/m/predictor/", recursive=True)
    assert ids(client.get_object(BUCKET, found.object_name).read()) == ["1", "2"]


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("s3://bucket/logs", True),
        ("s3://bucket/logs/a", True),
        ("s3://bucket/logs-other", False),
        ("s3://bucket/logs/../secret", False),
        ("s3://bucket/logs/%2e%2e/secret", False),
        ("s3://other/logs", False),
        ("minio://bucket/logs", False),
        ("s3://bucket/logs?x=1", False),
        ("s3://[bad/logs", False),
    ],
)
def test_only_what_lies_below_a_root_is_written_to(uri, allowed):
    assert (AllowedPlaces(["s3://bucket/logs/"]).root_of(uri) is not None) is allowed


def test_a_link_out_of_the_root_is_none(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "out").symlink_to(tmp_path)
    places = AllowedPlaces([f"file://{tmp_path}/logs"])
    assert places.root_of(f"file://{tmp_path}/logs/a")
    assert places.root_of(f"file://{tmp_path}/logs/out/a") is None
