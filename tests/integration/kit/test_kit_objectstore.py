"""Objects in files and in a real S3 (SeaweedFS), by the same tests."""

import hashlib
import os
import resource
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unavailable
from mlmesh_kit.objectstore import ObjectStore, below, open_store, relative_name
from support.s3 import ACCESS_KEY, BUCKET, S3Server, Wire, s3_environment


@pytest.fixture(params=["files", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ObjectStore, str]:
    """A store, and the URI of a folder of the test's own in it."""
    if request.param == "files":
        root = (tmp_path / "store").as_uri()
        return open_store(root), f"{root}/mine"
    for name, value in request.getfixturevalue("s3_server").environment.items():
        monkeypatch.setenv(name, value)
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
    odd = "50%25 of #1?&+ ü.txt"
    (source / odd).write_text("3")
    (source / "link").symlink_to("/etc/passwd")
    assert store.put_tree(source, f"{root}/t") == 3
    names = {relative_name(info.uri, f"{root}/t") for info in store.list(f"{root}/t")}
    assert names == {"a", "sub/b", odd}
    assert store.get_bytes(below(f"{root}/t", odd)) == b"3"
    assert store.get_tree(f"{root}/t", tmp_path / "back") == 3
    assert (tmp_path / "back" / "sub" / "b").read_text() == "2"
    assert (tmp_path / "back" / odd).read_text() == "3"
    assert list(store.list(f"{root}/nothing")) == []
    store.put_bytes(b"x", f"{root}/t2")  # the name only begins the same
    assert store.delete_tree(f"{root}/t") == 3
    assert list(store.list(f"{root}/t")) == [] and store.exists(f"{root}/t2")


def test_parts_of_an_object(place: tuple[ObjectStore, str]) -> None:
    store, root = place
    store.put_bytes(b"0123456789", f"{root}/x")
    for offset, length, expected in [
        (0, None, b"0123456789"),
        (3, 4, b"3456"),
        (8, 9, b"89"),
        (0, 0, b""),
        (10, 1, b""),
    ]:
        with store.open_read(f"{root}/x", offset, length) as stream:
            assert stream.read() == expected
    with pytest.raises(NotFound):
        store.open_read(f"{root}/nothing", 0, 0)


def test_what_passes_is_seen_and_can_be_ended(place: tuple[ObjectStore, str], tmp_path: Path) -> None:
    store, root = place
    data = os.urandom(20 << 20)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    for transfer in (
        lambda seen: store.put_file(source, f"{root}/x", seen),
        lambda seen: store.get_file(f"{root}/x", target, seen),
    ):
        digest = hashlib.sha256()
        transfer(digest.update)
        assert digest.digest() == hashlib.sha256(data).digest()
    assert target.read_bytes() == data

    class Enough(Exception):
        pass

    def end(_: bytes) -> None:
        raise Enough

    target.write_text("old")
    with pytest.raises(Enough):
        store.put_file(source, f"{root}/y", end)
    with pytest.raises(Enough):
        store.get_file(f"{root}/x", target, end)
    assert not store.exists(f"{root}/y")
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source", "target"]
    assert store.abort_uploads(root) == 0


def test_an_etag_changes_with_the_content(place: tuple[ObjectStore, str]) -> None:
    store, root = place
    first = store.put_bytes(b"one", f"{root}/x")
    assert first.etag and store.stat(f"{root}/x").etag == first.etag
    assert [info.etag for info in store.list(root)] == [first.etag]
    assert store.put_bytes(b"two!", f"{root}/x").etag != first.etag


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


def _use(monkeypatch: pytest.MonkeyPatch, **environment: str) -> ObjectStore:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{BUCKET}")


def test_links(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = _use(monkeypatch, **s3_server.environment)
    uri = f"s3://{BUCKET}/{tmp_path.name}/a%20b"
    store.put_bytes(b"linked", uri)
    url = store.presigned_url(uri, 60, "my file.csv")
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.read() == b"linked"
        assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''my%20file.csv"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url.replace("a%20b", "c"), timeout=5)
    assert caught.value.code == 403
    for seconds in (0, 604801):
        with pytest.raises(InvalidArgument):
            store.presigned_url(uri, seconds)
    monkeypatch.setenv("MLMESH_S3_PUBLIC_ENDPOINT", "s3.example.com:443")
    assert open_store(uri).presigned_url(uri, 60).startswith(f"http://s3.example.com:443/{BUCKET}/")
    monkeypatch.setenv("MLMESH_S3_ACCESS_KEY", "")
    with pytest.raises(FailedPrecondition):
        open_store(uri).presigned_url(uri, 60)


def test_files_have_no_links(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition):
        open_store(tmp_path.as_uri()).presigned_url(f"{tmp_path.as_uri()}/x", 60)


def test_wrong_keys_and_missing_buckets(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = _use(monkeypatch, **s3_environment(s3_server.endpoint, ACCESS_KEY, "not-the-key"))
    for ask in (store.stat, store.get_bytes, lambda uri: store.put_bytes(b"x", uri), lambda uri: list(store.list(uri))):
        with pytest.raises(PermissionDenied) as caught:
            ask(f"s3://{BUCKET}/x")
        assert "not-the-key" not in str(caught.value)
    store = _use(monkeypatch, **s3_server.environment)
    for ask in (store.stat, store.get_bytes, lambda uri: store.put_bytes(b"x", uri), lambda uri: list(store.list(uri))):
        with pytest.raises(
            (NotFound, PermissionDenied)
        ):  # SeaweedFS says who may make buckets, where S3 says NoSuchBucket
            ask("s3://no-such-bucket/x")


def test_a_store_that_goes_away_in_mid_transfer(
    s3_server: S3Server, s3_wire: Wire, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = _use(monkeypatch, **s3_environment(s3_wire.endpoint))
    root = f"s3://{BUCKET}/{tmp_path.name}"
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(40 << 20))
    s3_wire.cut_after(20 << 20)
    with pytest.raises(Unavailable):
        store.put_file(source, f"{root}/x")
    s3_wire.mend()
    assert not store.exists(f"{root}/x")
    assert store.abort_uploads(f"{root}/x") == 1  # the client could not
    assert list(s3_server.client()._list_multipart_uploads(BUCKET, prefix=tmp_path.name).uploads) == []
    store.put_file(source, f"{root}/x")
    s3_wire.cut_after(20 << 20)
    with pytest.raises(Unavailable):
        store.get_file(f"{root}/x", target)
    assert not target.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    s3_wire.mend()
    store.get_file(f"{root}/x", target)
    assert target.read_bytes() == source.read_bytes()


def test_only_the_uploads_below_are_dropped(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = _use(monkeypatch, **s3_server.environment)
    client = s3_server.client()
    for key in ("mine/x", "mine", "mine2/x", "other/x"):
        client._create_multipart_upload(BUCKET, f"{tmp_path.name}/{key}", {})
    assert store.abort_uploads(f"s3://{BUCKET}/{tmp_path.name}/mine") == 2
    left = client._list_multipart_uploads(BUCKET, prefix=tmp_path.name).uploads
    assert {one.object_name for one in left} == {f"{tmp_path.name}/mine2/x", f"{tmp_path.name}/other/x"}
    assert store.abort_uploads(f"s3://{BUCKET}/{tmp_path.name}") == 2
