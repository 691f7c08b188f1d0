"""Where models come from: files, http(s), what is kept, and what is refused."""

import hashlib
import http.server
import os
import shutil
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, ServiceError, Unavailable
from mlmesh_serving.config import Settings
from mlmesh_serving.storage import LocalModel, ModelStorage, StorageConfig
from mlmesh_serving.storage.cache import Kind, ModelCache
from mlmesh_serving.storage.digest import digest_of
from mlmesh_serving.storage.location import Roots, parse_location

FIELD = "manifest.spec.predictor.model.storageUri"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Site(http.server.ThreadingHTTPServer):
    """Serves what `files` holds, counts what it was asked, and holds answers back while `gate` is not set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []
        self.has_tags = True
        self.gate = threading.Event()
        self.gate.set()
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http://{self.host}"

    def handle_error(self, *_: Any) -> None: ...


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Site

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.gate.wait(10)
        content = self.server.files.get(path)
        tag = f'"{sha256(content)[:8]}"' if content is not None and self.server.has_tags else ""
        status = 404 if content is None else 304 if tag and self.headers["If-None-Match"] == tag else 200
        if path.startswith("/to/"):
            status = 302
        self.server.asked.append((path, status))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", path.removeprefix("/to/"))
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        if status == 200 and content is not None:
            self.wfile.write(content)


@pytest.fixture
def site() -> Iterator[_Site]:
    with _Site() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def config(tmp_path) -> StorageConfig:
    root = tmp_path / "artifacts"
    root.mkdir()
    uri = root.as_uri()
    return StorageConfig(model_roots=[uri], pickle_roots=[uri], cache_dir=tmp_path / "cache", max_model_bytes=100_000)


def read(storage: ModelStorage, uri: str, digest: str = "") -> tuple[bytes, LocalModel]:
    with storage.local(uri, FIELD, digest) as found:
        return found.path.read_bytes(), found


# Files


def test_files_plain_paths_and_folders(config, tmp_path):
    file = tmp_path / "artifacts" / "a model.onnx"
    file.write_bytes(b"x")
    storage = ModelStorage(config)
    for uri in (file.as_uri(), str(file)):
        content, found = read(storage, uri)
        assert (content, found.path, found.digest, found.may_run_code) == (b"x", file, sha256(b"x"), True)
        assert found.uri == file.as_uri()
    with storage.local(str(file.parent), FIELD) as found:
        assert found.path == file.parent
    with pytest.raises(InvalidArgument, match="nothing at this URI"), storage.local(f"{file}.not", FIELD):
        pass


def test_roots_are_held(config, tmp_path):
    storage = ModelStorage(config)
    (tmp_path / "outside").write_bytes(b"x")
    (tmp_path / "artifacts" / "link").symlink_to(tmp_path)
    root = tmp_path / "artifacts"
    outside = ["/etc/passwd", f"{root}/../outside", f"{root}/link/outside", f"{root}x", "s3://bucket/x", "minio://b/x"]
    for uri in outside:
        with pytest.raises(FailedPrecondition, match="MLMESH_SERVING_MODEL_ROOTS"):
            storage.check(uri, FIELD)
        with pytest.raises(FailedPrecondition, match="MLMESH_SERVING_MODEL_ROOTS"), storage.local(uri, FIELD):
            pass
    with pytest.raises(FailedPrecondition, match="MLMESH_SERVING_METADATA_ADDRESS"):
        storage.check("mlmd://artifacts/1", FIELD)


def test_code_only_from_its_own_roots(config, tmp_path):
    code = tmp_path / "artifacts" / "trusted"
    code.mkdir()
    (code / "m.pkl").write_bytes(b"x")
    (tmp_path / "artifacts" / "m.pkl").write_bytes(b"x")
    storage = ModelStorage(replace(config, pickle_roots=[str(code)]))
    assert read(storage, str(code / "m.pkl"))[1].may_run_code
    found = read(storage, str(tmp_path / "artifacts" / "m.pkl"))[1]
    with pytest.raises(FailedPrecondition, match=r"a pickle can run any code.*MLMESH_SERVING_PICKLE_ROOTS"):
        found.check_code("a pickle")
    storage.check(str(code), FIELD, "a pickle")
    with pytest.raises(FailedPrecondition, match="MLMESH_SERVING_PICKLE_ROOTS"):
        storage.check(str(tmp_path / "artifacts"), FIELD, "a pickle")


def test_pickles_come_from_the_artifact_root_unless_told(tmp_path):
    settings = Settings(data_dir=tmp_path)
    root = f"file://{tmp_path}/artifacts"
    assert (settings.storage.model_roots, settings.storage.pickle_roots, settings.storage.hosts) == ([root], [root], "")
    told = Settings(data_dir=tmp_path, model_roots="s3://a/b/, file:///m", pickle_roots="file:///m")
    assert (told.storage.model_roots, told.storage.pickle_roots) == (["s3://a/b", "file:///m"], ["file:///m"])


@pytest.mark.parametrize(
    "uri",
    [
        "", "model", "gs://bucket/x", "pvc://claim/x", "file://host/x", "file:relative", "s3:///x", "s3://b/x?y", "s3://b/#f",
        "http://[::1/x", "http://host:99999/", "//host/x", "file:///a%00b", "s3://b/\n", "x" * 3000, "mlmd:", "hf://m/x",
    ],
)  # fmt: skip
def test_what_is_no_uri_of_a_model(config, uri):
    with pytest.raises(InvalidArgument, match="storageUri"):
        ModelStorage(config).check(uri, FIELD)


@given(text=st.text(max_size=60), scheme=st.sampled_from(["s3://b/models", "http://h/models", "file:///models", ""]))
def test_nothing_that_is_not_below_a_root_passes(text, scheme):
    """Whatever is written, what is held by the root begins with it and never goes up."""
    try:
        location = parse_location(scheme + text, FIELD)
    except InvalidArgument:
        return
    root = scheme or "file:///models"
    if Roots([root], "model_roots").hold(location):
        assert location.place.split("/")[:2] == parse_location(root, FIELD).place.split("/")[:2]
        assert ".." not in location.place.split("/") or location.scheme == "file"


# The hash


def test_the_hash_of_a_folder_is_that_of_sha256sum(tmp_path):
    for name in ("b/z.txt", "a.json", "b/ä.bin", "B"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    script = "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    said = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert digest_of(tmp_path, 10) == said.split()[0]
    with pytest.raises(FailedPrecondition, match="more than 3 files"):
        digest_of(tmp_path, 3)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FailedPrecondition, match="pipe is no file"):
        digest_of(tmp_path, 10)


def test_a_hash_that_is_stated_is_checked(config, tmp_path, site):
    (tmp_path / "artifacts" / "m.onnx").write_bytes(b"x")
    site.files["/m.onnx"] = b"x"
    storage = ModelStorage(replace(config, hosts=site.host))
    for uri in (f"{tmp_path}/artifacts/m.onnx", f"{site.url}/m.onnx"):
        assert read(storage, uri, sha256(b"x"))[0] == b"x"
        with pytest.raises(FailedPrecondition, match=f"is {sha256(b'x')}, and the manifest says {sha256(b'y')}"):
            read(storage, uri, sha256(b"y"))


# http


def test_what_was_downloaded_is_asked_for_by_its_tag(config, site):
    site.files["/models/iris.onnx"] = b"one"
    storage = ModelStorage(replace(config, hosts=site.host))
    url = f"{site.url}/models/iris.onnx?token=secret"
    for _ in range(2):
        content, found = read(storage, url)
        assert (content, found.path.name, found.may_run_code) == (b"one", "iris.onnx", False)
        assert "secret" not in found.uri and found.digest == sha256(b"one")
    site.files["/models/iris.onnx"] = b"two"
    assert read(storage, url)[0] == b"two"
    assert [status for _, status in site.asked] == [200, 304, 200]


def test_a_model_whose_hash_is_stated_is_downloaded_once_from_anywhere(config, site):
    site.files |= {"/a/m.onnx": b"same", "/b/other.onnx": b"same"}
    storage = ModelStorage(replace(config, hosts=site.host))
    assert read(storage, f"{site.url}/a/m.onnx", sha256(b"same"))[0] == b"same"
    for name in ("a/m.onnx", "b/other.onnx", "not/there.onnx"):
        content, found = read(storage, f"{site.url}/{name}", sha256(b"same"))
        assert (content, found.path.name) == (b"same", name.rpartition("/")[2])
    assert len(site.asked) == 1


def test_a_host_without_tags_is_asked_each_time(config, site):
    site.has_tags = False
    site.files["/m.onnx"] = b"x"
    storage = ModelStorage(replace(config, hosts=site.host))
    assert [read(storage, f"{site.url}/m.onnx")[0] for _ in range(2)] == [b"x", b"x"]
    assert [status for _, status in site.asked] == [200, 200]


def test_many_that_want_a_model_at_once_download_it_once(config, site):
    site.gate.clear()
    site.files["/m.onnx"] = b"x" * 1000
    storages = [ModelStorage(replace(config, hosts=site.host)) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(read, storage, f"{site.url}/m.onnx") for storage in storages]
        site.gate.set()
        assert {future.result()[0] for future in waiting} == {b"x" * 1000}
    assert sorted(status for _, status in site.asked) == [200] + [304] * 5


def test_an_archive_is_unpacked_and_known_by_its_own_hash(config, site, tmp_path):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("iris/MLmodel", "flavors: {}")
        archive.writestr("iris/model.onnx", b"x")
    data = (tmp_path / "m.zip").read_bytes()
    site.files["/iris.zip"] = data
    shutil.copy(tmp_path / "m.zip", tmp_path / "artifacts" / "m.zip")
    storage = ModelStorage(replace(config, hosts=site.host))
    for uri in (f"{site.url}/iris.zip", f"{tmp_path}/artifacts/m.zip"):
        for stated in ("", sha256(data)):
            with storage.local(uri, FIELD, stated) as found:
                assert sorted(path.name for path in found.path.iterdir()) == ["MLmodel", "model.onnx"]
                assert found.digest == sha256(data)


def test_hosts_are_asked_only_if_they_are_named(config, site):
    site.files["/m.onnx"] = b"x"
    for hosts in ("", "example.com", "*", "127.0.0.1"):
        storage = ModelStorage(replace(config, hosts=hosts))
        with pytest.raises(FailedPrecondition, match="MLMESH_SERVING_MODEL_HOSTS"):
            read(storage, f"{site.url}/m.onnx")
        with pytest.raises(FailedPrecondition, match="MLMESH_SERVING_MODEL_HOSTS"):
            storage.check(f"{site.url}/m.onnx", FIELD)
    for url in ("http://169.254.169.254/latest", "http://localhost/m.onnx", "http://[::1]/x"):
        with pytest.raises(FailedPrecondition, match="no public host"):
            read(ModelStorage(replace(config, hosts="*")), url)
    assert not site.asked


def test_redirects_lead_only_to_hosts_that_are_named(config, site):
    site.files["/m.onnx"] = b"x"
    storage = ModelStorage(replace(config, hosts=site.host))
    assert read(storage, f"{site.url}/to//m.onnx")[0] == b"x"
    for target in (f"http://localhost:{site.host.partition(':')[2]}/m.onnx", "http://169.254.169.254/x"):
        with pytest.raises(FailedPrecondition, match="MLMESH_SERVING_MODEL_HOSTS"):
            read(storage, f"{site.url}/to/{target}")
    with pytest.raises(InvalidArgument, match="http://HOST"):
        read(storage, f"{site.url}/to/file:///etc/passwd")


def test_what_is_missing_too_large_or_away(config, site):
    storage = ModelStorage(replace(config, hosts=f"{site.host},127.0.0.1:1"))
    site.files["/large.onnx"] = bytes(config.max_model_bytes + 1)
    for name, message in (("none.onnx", "answered 404"), ("large.onnx", "larger than 100000")):
        with pytest.raises(InvalidArgument, match=message):
            read(storage, f"{site.url}/{name}")
    with pytest.raises(Unavailable):
        read(storage, "http://127.0.0.1:1/m.onnx")
    scratch = config.cache_dir / "scratch"
    assert not list(scratch.iterdir()) and not list((config.cache_dir / "content").iterdir())


def test_code_from_a_host_only_below_its_own_roots(config, site):
    site.files |= {"/ours/m.pkl": b"x", "/m.pkl": b"x"}
    storage = ModelStorage(replace(config, hosts=site.host, pickle_roots=[f"{site.url}/ours"]))
    assert read(storage, f"{site.url}/ours/m.pkl")[1].may_run_code
    for path in ("m.pkl", "ours/../m.pkl", "ours/%2e%2e/m.pkl", "oursx/m.pkl"):
        with pytest.raises(ServiceError):
            storage.check(f"{site.url}/{path}", FIELD, "a pickle")


@pytest.mark.parametrize(
    ("path", "name"),
    [("m.onnx", "m.onnx"), ("", "model"), ("..%2f..%2fetc%2fpasswd", "etc_passwd"), ("a%20b.txt", "a_b.txt")],
)
def test_the_name_of_a_download_is_plain(config, site, path, name):
    site.files[f"/{path}"] = b"x"
    found = read(ModelStorage(replace(config, hosts=site.host)), f"{site.url}/{path}")[1]
    assert found.path.name == name and found.path.is_relative_to(config.cache_dir)


# What is kept


def fill(cache: ModelCache, name: str, size: int, age: float = 0) -> str:
    digest = sha256(name.encode())
    with cache.scratch() as scratch:
        (scratch / "made").mkdir()
        (scratch / "made" / name).write_bytes(bytes(size))
        cache.put(scratch / "made", digest, Kind.FILE)
    with cache.using(digest, Kind.FILE, name) as path:
        assert path is not None
        entry = path.parent.with_name(path.parent.name + ".entry")
    os.utime(entry, (time.time() - age,) * 2)
    return digest


def kept(cache: ModelCache, *digests: str) -> list[bool]:
    found = []
    for digest in digests:
        with cache.using(digest, Kind.FILE, "x") as path:
            found.append(path is not None)
    return found


def test_what_was_used_longest_ago_goes_first(tmp_path):
    cache = ModelCache(tmp_path, max_bytes=250, max_age_seconds=1000)
    old, older = fill(cache, "old", 100, age=10), fill(cache, "older", 100, age=20)
    new = fill(cache, "new", 100)
    assert kept(cache, old, older, new) == [True, False, True]
    ancient = fill(cache, "ancient", 1, age=2000)
    cache.prune()
    assert kept(cache, old, new, ancient) == [True, True, False]


def test_what_is_in_use_stays(tmp_path):
    cache = ModelCache(tmp_path, max_bytes=50, max_age_seconds=1000)
    used = fill(cache, "used", 100, age=500)
    with cache.using(used, Kind.FILE, "used") as path:
        os.utime(tmp_path / "content" / f"{used}.file.entry", (1, 1))
        ModelCache(tmp_path, max_bytes=50, max_age_seconds=10).prune()
        assert path is not None and path.exists()
    os.utime(tmp_path / "content" / f"{used}.file.entry", (1, 1))
    cache.prune()
    assert kept(cache, used) == [False] and not path.exists()


def test_what_a_killed_process_left_is_cleared(tmp_path):
    cache = ModelCache(tmp_path, max_bytes=1000, max_age_seconds=1000)
    keep = fill(cache, "keep", 10)
    (tmp_path / "content" / f"{keep}.file.entry").unlink()  # it was killed between the two
    for name, age in (("left", 100_000), ("fresh", 0)):
        (tmp_path / "scratch" / name / "made").mkdir(parents=True)
        os.utime(tmp_path / "scratch" / name, (time.time() - age,) * 2)
    with cache.source("s3://a/b") as source:
        assert source.last() is None
    (path,) = (tmp_path / "sources").iterdir()
    path.write_text('{"tag": "x"')
    with cache.source("s3://a/b") as source:
        assert source.last() is None
    os.utime(path, (1, 1))
    cache.prune()
    assert kept(cache, keep) == [True]
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["fresh"]
    assert not list((tmp_path / "sources").iterdir())


def test_content_that_is_gone_is_downloaded_again(config, site):
    site.files["/m.onnx"] = b"x"
    storage = ModelStorage(replace(config, hosts=site.host))
    read(storage, f"{site.url}/m.onnx")
    for folder in (config.cache_dir / "content").iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    assert read(storage, f"{site.url}/m.onnx")[0] == b"x"
    assert [status for _, status in site.asked] == [200, 200]
