"""Pieces of artifacts in object stores: ranges, records of folders, the cache of inputs, roots, transfers."""

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from mlmesh_kit.files import remove_tree
from mlmesh_kit.objectstore import FileStore, Seen
from mlmesh_pipeline.artifact_stores import ArtifactStores
from mlmesh_pipeline.artifacts import ArtifactReader
from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.engine import input_cache, trees
from mlmesh_pipeline.engine.executor_io import digest_of
from mlmesh_pipeline.engine.input_cache import InputCache
from mlmesh_pipeline.engine.input_fetcher import InputFetcher
from mlmesh_pipeline.engine.remote import Unusable
from mlmesh_pipeline.engine.transfers import Stopped, StoreAway, Transfers, together
from mlmesh_pipeline.engine.trees import BadTree, Member, Tree
from mlmesh_pipeline.resources import Artifact
from mlmesh_pipeline.routes.ranges import NotSatisfiable, parse_range


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_range_is_what_slicing_gives(size: int, first: int, last: int) -> None:
    data = bytes(range(size))
    for header, expected in [
        (f"bytes={first}-", data[first:]),
        (f"bytes=-{last}", data[max(size - last, 0) :]),
        (f"Bytes = {first}-{last}", data[first : last + 1] if first <= last else data),
    ]:
        try:
            part = parse_range(header, size)
        except NotSatisfiable:
            assert expected == b""
            continue
        start, length = part or (0, size)
        assert data[start : start + length] == expected
        assert part is None or 0 < length <= size - start


@pytest.mark.parametrize(
    "header", ["", "bytes", "bytes=", "bytes=-", "bytes=1-2,3-4", "items=1-2", "bytes=a-b", "bytes=1-2-3", "bytes=٣-"]
)
def test_what_is_no_range_gets_all(header: str) -> None:
    assert parse_range(header, 10) is None


@given(st.text(max_size=40))
def test_any_range_header_is_read(header: str) -> None:
    for text in (header, f"bytes={header}", "bytes=" + "9" * 5000 + "-"):
        try:
            part = parse_range(text, 10)
        except NotSatisfiable:
            continue
        assert part is None or (0 <= part[0] < 10 and 0 < part[1] <= 10 - part[0])


names = st.text(st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in {".", ".."}
)


@given(st.dictionaries(st.lists(names, min_size=1, max_size=3).map("/".join), st.binary(max_size=8), max_size=6))
def test_the_record_of_a_folder_comes_back(files: dict[str, bytes]) -> None:
    tree = Tree(tuple(Member(name, len(data), data.hex(), "e") for name, data in files.items()))
    try:
        trees.check_names(list(files))
    except BadTree:  # a file where another needs a folder
        with pytest.raises(BadTree):
            trees.load_record(trees.dump_record(tree))
        return
    back = trees.load_record(trees.dump_record(tree))
    assert back == tree and back.digest == tree.digest and back.etag == tree.etag


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a\0b", "x" * 5000])
def test_names_that_lead_out_of_a_folder_are_refused(name: str) -> None:
    record = {"version": 1, "files": [{"path": name, "size": 1, "sha256": "", "etag": ""}], "folders": []}
    with pytest.raises(BadTree):
        trees.load_record(json.dumps(record).encode())
    with pytest.raises(BadTree):
        trees.load_record(json.dumps({"version": 1, "files": [], "folders": [name]}).encode())


@pytest.mark.parametrize(
    "data",
    [
        *[
            b"",
            b"[]",
            b"{}",
            b"\xff",
            b'{"files": 1}',
            b'{"files": [], "folders": 1}',
            b'{"files": [{}], "folders": []}',
        ],
        b'{"files": [{"path": "a", "size": "x", "sha256": "", "etag": ""}], "folders": []}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(BadTree):
        trees.load_record(data)


def test_names_that_are_in_each_others_way_are_refused() -> None:
    for found in (["a", "a"], ["a", "a/b"], ["x/y/z", "x/y"]):
        with pytest.raises(BadTree):
            trees.check_names(found)
    with pytest.raises(BadTree):
        trees.check_names([str(number) for number in range(trees.MAX_FILES + 1)])


@given(st.lists(st.text("ab/-\x01", min_size=1, max_size=5).filter(trees.is_inside), max_size=5))
def test_names_are_in_each_others_way_when_one_is_a_folder_of_another(names: list[str]) -> None:
    wrong = len(set(names)) < len(names) or any(one.startswith(f"{other}/") for one in names for other in names)
    if not wrong:
        trees.check_names(names)
        return
    with pytest.raises(BadTree):
        trees.check_names(names)


def test_a_folder_has_the_same_digest_here_and_there(tmp_path: Path) -> None:
    for name in ("b", "a/c", "a/b/d", "Z", "é"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    members = [Member(name, path.stat().st_size, digest_of(path.as_uri()), "") for path, name in trees.walk(tmp_path)]
    assert Tree(tuple(members)).digest == digest_of(tmp_path.as_uri())


def test_the_digest_of_a_folder_with_a_name_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff")).write_text("x")
    assert digest_of(tmp_path.as_uri())


# -- the cache of inputs ---------------------------------------------------------------------------------------------


def cache_of(folder: Path, max_bytes: int = 1000, max_age: float = 1000) -> InputCache:
    return InputCache(folder / "cache", max_bytes, max_age)


def fill(cache: InputCache, key: str, text: str) -> None:
    with cache.making(key) as content:
        assert content is not None
        content.write_text(text)


@pytest.fixture(params=["root", "user"])
def who(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(input_cache.os, "geteuid", lambda: 0 if request.param == "root" else 1000)
    name: str = request.param
    return name


def test_an_input_is_kept_and_given_out(tmp_path: Path, who: str) -> None:
    cache = cache_of(tmp_path)
    assert not cache.place("a", tmp_path / "one")
    fill(cache, "a", "content")
    for name in ("one", "two"):
        assert cache.place("a", tmp_path / name)
        assert (tmp_path / name).read_text() == "content"
    kept = tmp_path / "cache/a/content"
    if who == "user" and (tmp_path / "one").stat().st_ino == kept.stat().st_ino:
        assert (tmp_path / "one").stat().st_mode & 0o222 == 0
    else:
        (tmp_path / "one").write_text("changed")
        assert kept.read_text() == (tmp_path / "two").read_text() == "content"


def test_a_folder_is_kept_and_given_out(tmp_path: Path, who: str) -> None:
    cache = cache_of(tmp_path)
    with cache.making("a") as content:
        assert content is not None
        (content / "sub" / "empty").mkdir(parents=True)
        (content / "sub" / "file").write_text("x")
    assert cache.place("a", tmp_path / "one")
    assert (tmp_path / "one/sub/file").read_text() == "x"
    assert (tmp_path / "one/sub/empty").is_dir()


def test_what_a_task_has_changed_is_fetched_again(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    fill(cache, "a", "content")
    kept = tmp_path / "cache/a/content"
    kept.chmod(0o600)
    kept.write_text("spoilt!!")
    assert not cache.place("a", tmp_path / "one")
    fill(cache, "a", "content")
    assert cache.place("a", tmp_path / "one")
    assert (tmp_path / "one").read_text() == "content"


def test_what_fails_while_it_is_made_is_not_kept(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    with pytest.raises(OSError, match="broken"), cache.making("a") as content:
        assert content is not None
        content.write_text("half")
        raise OSError("broken")
    assert not cache.place("a", tmp_path / "one")
    assert {path.name for path in (tmp_path / "cache").iterdir()} <= {"a.lock"}


def test_one_makes_what_others_want(tmp_path: Path) -> None:
    cache, other = cache_of(tmp_path), cache_of(tmp_path)
    with cache.making("a") as content:
        assert content is not None
        content.write_text("x")
        with other.making("a") as nothing:
            assert nothing is None
        assert not other.place("a", tmp_path / "one")
        other.clean()  # does not touch what is being made
    assert other.place("a", tmp_path / "one")
    with other.making("a") as nothing:
        assert nothing is None


def test_the_cache_has_a_size_and_an_age(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, max_bytes=20)
    for number, key in enumerate("abc"):
        fill(cache, key, "0123456789")
        os.utime(tmp_path / "cache" / key, (number, 2e9 + number))
    assert cache.place("a", tmp_path / "one")  # used now, by its clock long before the others
    os.utime(tmp_path / "cache/a", (0, 3e9))
    cache.clean(keep={"b"})
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"a", "b", "a.lock", "b.lock"}
    os.utime(tmp_path / "cache/b", (0, 1e9))
    cache.clean()
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"a", "a.lock"}


def test_what_a_killed_service_was_making_goes(tmp_path: Path) -> None:
    left = tmp_path / "cache" / "a.12345678.part"
    left.mkdir(parents=True)
    (left / "content").write_text("half")
    cache_of(tmp_path).clean()
    assert list((tmp_path / "cache").iterdir()) == []


# -- roots -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["artifact_root", "pipeline_roots", "import_roots"])
def test_settings_name_places_of_stores_that_there_are(field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ArtifactStores(Settings(**{field: "gs://bucket/x"}))
    assert caught.value.violations[0][0] == field


@given(st.text(max_size=30))
def test_no_root_leads_out_of_those_that_are_allowed(text: str) -> None:
    stores = ArtifactStores(Settings(artifact_root="s3://bucket/a", pipeline_roots="minio://bucket/b/"))
    for asked in (text, f"s3://bucket/a{text}", f"s3://bucket/a/{text}", f"minio://bucket/b/{text}"):
        try:
            root = stores.pipeline_root(asked, "field")
        except (InvalidArgument, FailedPrecondition):
            continue
        assert (
            root == ""
            or root in {"s3://bucket/a", "minio://bucket/b"}
            or root.startswith(("s3://bucket/a/", "minio://bucket/b/"))
        )
        assert ".." not in root.split("/")


# -- transfers -------------------------------------------------------------------------------------------------------


def test_a_transfer_is_tried_again_while_the_store_is_away() -> None:
    told: list[str] = []
    tries: list[int] = []

    def job(_: object) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise Unavailable("it is away")
        return "done"

    assert asyncio.run(Transfers(1, 60).run(job, told.append)) == "done"
    assert len(tries) == 3 and told == ["it is away; trying again for 60 s"]
    with pytest.raises(StoreAway, match="it is away"):
        tries.clear()
        asyncio.run(Transfers(1, 60).run(job, told.append, patient=False))
    assert len(tries) == 1


def test_a_transfer_that_nobody_waits_for_stops() -> None:
    started, stopped = threading.Event(), threading.Event()

    def job(check) -> None:  # type: ignore[no-untyped-def]
        started.set()
        try:
            while True:
                check()
        except Stopped:
            stopped.set()
            raise

    async def cancelled() -> None:
        running = asyncio.create_task(Transfers(1, 60).run(job, print))
        await asyncio.to_thread(started.wait, 10)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert stopped.is_set()

    asyncio.run(cancelled())


def test_so_many_transfers_run_at_a_time() -> None:
    running, most, lock = 0, 0, threading.Lock()
    full = threading.Barrier(3, timeout=10)

    def job(_: object) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        full.wait()
        with lock:
            running -= 1

    async def all_of_them() -> None:
        transfers = Transfers(3, 60)
        await together(transfers.run(job, print) for _ in range(9))

    asyncio.run(all_of_them())
    assert most == 3


def test_the_first_failure_ends_the_others() -> None:
    async def fail() -> None:
        raise ValueError("first")

    async def wait() -> None:
        ended.append(False)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended[0] = True
            raise

    ended: list[bool] = []
    with pytest.raises(ValueError, match="first"):
        asyncio.run(together([wait(), fail()]))
    assert ended == [True]


# -- fetching --------------------------------------------------------------------------------------------------------


class Folder(FileStore):
    """A store that counts what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads = 0
        self.reading = threading.Event()

    def get_file(self, uri: str, path: Path, seen: Seen | None = None) -> None:
        self.reads += 1
        self.reading.set()
        super().get_file(uri, path, seen)

    def of(self, uri: str) -> "Folder":
        return self


def fetcher(folder: Path, *, room: int = 1 << 20, max_bytes: int = 1 << 20) -> tuple[InputFetcher, Folder]:
    store = Folder(folder)
    cache = InputCache(folder / "cache", room, 1000)
    return InputFetcher(store, Transfers(4, 0), cache, max_bytes), store  # type: ignore[arg-type]


def artifact(path: Path, *, digest: str | None = None) -> Artifact:
    found = digest_of(path.as_uri()) if digest is None else digest
    return Artifact("id", "data", "system.Dataset", "0.0.1", path.as_uri(), digest=found)


@pytest.mark.parametrize("room", [1 << 20, 0])
@pytest.mark.parametrize("digest", [None, ""], ids=["recorded", "imported"])
def test_what_many_want_is_fetched_once(tmp_path: Path, room: int, digest: str | None) -> None:
    (tmp_path / "data").write_bytes(b"x" * 5000)
    inputs, store = fetcher(tmp_path, room=room)
    targets = [tmp_path / f"target-{number}" for number in range(20)]
    wanted = artifact(tmp_path / "data", digest=digest)

    async def fetch_all() -> None:
        await together(inputs.fetch(wanted, target, print) for target in targets)

    asyncio.run(fetch_all())
    assert store.reads == 1
    assert {target.read_bytes() for target in targets} == {b"x" * 5000}


def test_what_is_too_large_or_has_changed_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 5000)
    small, store = fetcher(tmp_path, max_bytes=4999)
    with pytest.raises(Unusable, match="5000 bytes, at most 4999"):
        asyncio.run(small.fetch(artifact(tmp_path / "data"), tmp_path / "target", print))
    assert store.reads == 0
    inputs, _ = fetcher(tmp_path)
    wanted = artifact(tmp_path / "data")
    (tmp_path / "data").write_bytes(b"y" * 5000)
    with pytest.raises(Unusable, match="has changed"):
        asyncio.run(inputs.fetch(wanted, tmp_path / "target", print))
    (tmp_path / "data").unlink()
    with pytest.raises(NotFound):
        asyncio.run(inputs.fetch(wanted, tmp_path / "target", print))
    assert not (tmp_path / "target").exists()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize(
    ("size", "words"), [(10, "larger than was recorded"), (9000, "has changed"), (-1, "below zero")]
)
def test_a_record_that_lies_fills_no_disk(tmp_path: Path, size: int, words: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_bytes(b"x" * 5000)
    record = trees.dump_record(Tree((Member("x", size, "", ""),)))
    (tmp_path / "data.mlmesh-tree.json").write_bytes(record)
    inputs, _ = fetcher(tmp_path)
    with pytest.raises((Unusable, BadTree), match=words):
        asyncio.run(inputs.fetch(artifact(tmp_path / "data", digest=""), tmp_path / "target", print))
    assert not (tmp_path / "target").exists()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_folders_that_are_too_deep_are_refused_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, _ = fetcher(tmp_path)
    (tmp_path / "data").mkdir()
    names = ["/".join(["d"] * depth) + "/x" for depth in (800, 1500)]
    record = trees.dump_record(Tree(tuple(Member(name, 1, "", "") for name in names)))
    (tmp_path / "data.mlmesh-tree.json").write_bytes(record)
    with pytest.raises(BadTree, match="more than 200 deep"):
        asyncio.run(inputs.fetch(artifact(tmp_path / "data", digest=""), tmp_path / "target", print))
    left = tmp_path / "cache" / "key.0.part"  # of a service that knew no limit
    left.mkdir(parents=True)
    monkeypatch.chdir(left)
    for _ in range(4):
        Path(*["d"] * 400).mkdir(parents=True)
        os.chdir(Path(*["d"] * 400))
    monkeypatch.undo()
    try:
        InputCache(tmp_path / "cache", 0, 0).clean()
        assert not list((tmp_path / "cache").iterdir())
    finally:
        remove_tree(left)  # which pytest cannot


def test_who_gives_up_does_not_take_it_from_the_others(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x")
    inputs, store = fetcher(tmp_path)
    wanted = artifact(tmp_path / "data")

    async def fetch_two() -> None:
        first = asyncio.create_task(inputs.fetch(wanted, tmp_path / "one", print))
        second = asyncio.create_task(inputs.fetch(wanted, tmp_path / "two", print))
        assert await asyncio.to_thread(store.reading.wait, 10)
        first.cancel()
        await second

    asyncio.run(fetch_two())
    assert (tmp_path / "two").read_bytes() == b"x"
    assert store.reads == 1


def test_where_tasks_run_elsewhere_files_of_the_service_are_no_artifacts(tmp_path: Path) -> None:
    for name in ("root", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "other" / "file")
    (tmp_path / "root" / "folder").symlink_to(tmp_path / "other")
    reader = ArtifactReader(ArtifactStores(Settings(data_dir=tmp_path)), 60, [tmp_path / "root"])

    def of(name: str) -> Artifact:
        return Artifact("i", "a", "system.Artifact", "0.0.1", (tmp_path / name).as_uri())

    assert reader.content(of("root/file")).size == 1
    for name in ("other/file", "root/link", "root/folder", "root/folder/file", "root/../other/file"):
        for ask in (reader.content, reader.listing):
            with pytest.raises(FailedPrecondition, match="not on this machine"):
                ask(of(name))
