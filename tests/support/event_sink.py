"""A real HTTP server that takes CloudEvents, and does to them what a test tells it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    headers: dict[str, str]
    body: bytes

    def __getitem__(self, attribute: str) -> str:
        return unquote(self.headers[f"ce-{attribute}"])


class EventSink:
    """Keeps what it is sent; `answers` gives the status of each request by its number, from 0."""

    def __init__(self, answers: Callable[[int], int] = lambda _: 202, headers: dict[str, str] | None = None) -> None:
        self.events: list[Received] = []
        self.requests = 0
        self.gate = threading.Event()
        self.gate.set()
        sink = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                sink.gate.wait()
                with lock:
                    status = answers(sink.requests)
                    sink.requests += 1
                    if status < 300:
                        sink.events.append(Received({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/events"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def of_type(self, kind: str) -> list[Received]:
        return [event for event in self.events if event["type"].endswith(kind)]

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Waits until a condition holds; fails after a while that is long even on a busy machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.01)
