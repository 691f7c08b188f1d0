"""PrometheusMetric: a trial is asked for its metrics, at its own host alone, and however it answers."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_katib.collectors import CollectionError, Collector, Place, make, parse, prometheus
from mlmesh_katib.collectors.prometheus import MAX_BYTES, read_samples
from prometheus_client import CollectorRegistry, Gauge, start_http_server


def collector_of(port: int, *metrics: str, path: str = "/metrics") -> Collector:
    spec = {"collector": {"kind": "PrometheusMetric"}, "source": {"httpGet": {"port": port, "path": path}}}
    return make(parse(spec, metrics or ("loss",)), Place(None, None))


def pairs(collector: Collector, *, ended: bool = False) -> list[tuple[str, str]]:
    return [(log.name, log.value) for log in collector.poll(ended=ended)]


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Gives a port at which every caller gets this answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                with caller:
                    caller.recv(4096)
                    try:
                        answer(caller)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_a_trial_that_uses_prometheus_client() -> None:
    registry = CollectorRegistry()
    loss, accuracy = (
        Gauge("loss", "Of the model", registry=registry),
        Gauge("accuracy", "", ["split"], registry=registry),
    )
    loss.set(0.5)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        collector = collector_of(server.server_port, "loss", "accuracy")
        assert pairs(collector) == [("loss", "0.5")]
        assert pairs(collector) == []  # as it was
        loss.set(float("nan"))
        accuracy.labels("test").set(0.75)
        assert sorted(pairs(collector)) == [("accuracy", "0.75"), ("loss", "nan")]
        assert pairs(collector) == []
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert pairs(collector) == []  # nobody answers; what was found stays
    assert pairs(collector, ended=True) == []


def http(body: bytes, head: bytes = b"HTTP/1.1 200 OK") -> Callable[[socket.socket], None]:
    return lambda caller: caller.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (http(b"loss 1\n", b"HTTP/1.1 404 Not Found"), "status 404"),
        (http(b"", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/"), "status 302"),
        (http(b"x" * (MAX_BYTES + 1)), "more than"),
        (http(b'loss{a="1"} 1\nloss{a="2"} 2\n'), "several series of loss"),
        (http(b'loss{a="1 2\n'), "text format"),
        (http(b"loss one\n"), "text format"),
        (lambda caller: caller.sendall(b"SSH-2.0-OpenSSH\r\n"), "cannot be read"),
        (lambda caller: None, "cannot be read"),
    ],
)
def test_bad_answers(answer: Callable[[socket.socket], None], says: str) -> None:
    with answering(answer) as port:
        collector = collector_of(port)
        assert pairs(collector) == []
    with pytest.raises(CollectionError, match=says) as caught:
        collector.poll(ended=True)
    assert f"http://127.0.0.1:{port}/metrics" in str(caught.value)


def test_an_answer_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "TIMEOUT_SECONDS", 0.3)
    stop = threading.Event()

    def drip(caller: socket.socket) -> None:
        caller.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not stop.wait(0.05):  # each byte in time for the read that waits for it
            caller.sendall(b"x")

    with answering(drip) as port:
        collector = collector_of(port)
        assert pairs(collector) == []
        stop.set()
    with pytest.raises(CollectionError, match="did not answer within"):
        collector.poll(ended=True)


def test_another_trial_at_the_same_port_is_not_asked() -> None:
    spec = parse({"collector": {"kind": "PrometheusMetric"}, "source": {"httpGet": {"port": 1}}}, ["loss"])
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        with answering(http(b"loss 1\n")) as port:
            spec = replace(spec, source={**spec.source, "port": port})
            assert pairs(make(spec, Place(None, None, process_group=os.getpgid(0)))) == [("loss", "1.0")]
            collector = make(spec, Place(None, None, process_group=other.pid))
            assert pairs(collector) == []
    finally:
        other.kill()
        other.communicate()
    with pytest.raises(CollectionError, match="no process of the trial listens there"):
        collector.poll(ended=True)


def test_the_time_that_is_said_counts() -> None:
    with answering(http(b"# TYPE loss gauge\nloss 1.5 1638422847500\nlosses 7\nother nonsense {\n")) as port:
        (report,) = collector_of(port).poll()
    assert (report.name, report.value, report.time) == ("loss", "1.5", "2021-12-02T05:27:27.500000Z")


def test_a_trial_that_never_answered() -> None:
    with pytest.raises(CollectionError, match="before it was asked"):
        collector_of(9).poll(ended=True)


@settings(max_examples=300, deadline=None)
@given(
    text=st.lists(
        st.text(max_size=10)
        | st.sampled_from(["loss", "{", "}", 'a="b"', " 1", "\n", "\\", "# TYPE loss counter", "NaN"])
    ).map("".join)
)
def test_nothing_in_an_answer_breaks_it(text: str) -> None:
    try:
        found = read_samples(text, ["loss"])
    except CollectionError:
        return
    for name, value, seconds in found:
        assert name == "loss"
        float(value)
        assert seconds is None or isinstance(seconds, float)
