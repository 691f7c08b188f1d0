"""`packages_to_install`, offline: tiny wheels made here, installed by the real pip into environments that are kept."""

import asyncio
import base64
import contextlib
import hashlib
import os
import sys
import time
import zipfile
from pathlib import Path

import pytest
import requests
from kfp import dsl
from mlmesh_kit.launch import Limits, WarmLauncher
from mlmesh_pipeline.engine.environments import EnvironmentFolder, content_hash
from mlmesh_pipeline.engine.packages import NotInstalled, PackageLimits, Packages
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
FOREVER = PackageLimits(max_age_seconds=1e9, max_bytes=1 << 40)


def make_wheel(folder: Path, name: str, version: str, *metadata: str) -> Path:
    """Makes a wheel with one module, which knows its version, and one program."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": f"VERSION = {version!r}\ndef main(): print({name!r}, VERSION)\n",
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {module}:main\n",
    }
    record = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text)}")
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "mlmesh-tiny", "1.0", "Provides-Extra: more", "Requires-Dist: mlmesh-other; extra == 'more'")
    make_wheel(folder, "mlmesh-tiny", "2.0")
    make_wheel(folder, "mlmesh-other", "3.0", "Requires-Dist: pip")  # pip is there already, and there is no index
    return folder


@dsl.component
def report() -> str:
    import subprocess
    import sys

    import mlmesh_tiny

    said = subprocess.run(["mlmesh-tiny"], capture_output=True, text=True, check=True).stdout.strip()
    child = subprocess.run([sys.executable, "-c", "import mlmesh_tiny, kfp"], check=False).returncode
    return f"{mlmesh_tiny.VERSION} {said} {child}"


@dsl.pipeline(name="with-packages")
def with_packages():
    report().set_display_name("report")
    report().set_display_name("again")


def asking(compile_pipeline, *packages: str) -> dict:
    """The pipeline as the compiler writes it with packages_to_install."""
    component = dsl.component(packages_to_install=list(packages), use_venv=True)(report.python_func)

    @dsl.pipeline(name="with-packages")
    def with_packages():
        component().set_display_name("report")
        component().set_display_name("again")

    return compile_pipeline(with_packages, caching=False)


def test_through_the_service(wheels, make_service, connect, compile_pipeline, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_RETRIES", "0")
    service = make_service()
    client = connect(service)
    spec = asking(compile_pipeline, "mlmesh-tiny[more]==1.0", "mlmesh-other; python_version<'3'", "packaging>=1")
    run = client.run(spec)
    assert run.state == run_pb2.SUCCEEDED, run.error
    for task in run.run_details.task_details:
        url = f"{service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{task.task_id}/outputs"
        said = requests.get(url, timeout=10).json()["parameters"]["Output"]
        assert said == "1.0 mlmesh-tiny 1.0 0"
    folders = [path for path in (service.data_dir / "packages").iterdir() if path.is_dir()]
    assert len(folders) == 1, "both tasks use the same"
    installed = {path.name for path in folders[0].glob("lib/*/site-packages/*.dist-info")}
    assert installed == {"mlmesh_tiny-1.0.dist-info", "mlmesh_other-3.0.dist-info"}, "what is there is not installed"
    ready = (folders[0] / ".ready").read_bytes(), folders[0].stat().st_ctime_ns
    monkeypatch.undo()
    assert client.run(spec).state == run_pb2.SUCCEEDED
    assert ((folders[0] / ".ready").read_bytes(), folders[0].stat().st_ctime_ns) == ready, "nothing is installed again"
    run = client.run(asking(compile_pipeline, "mlmesh-tiny==9", "x @ https://user:hunter2@localhost:1/x.whl"))
    assert run.state == run_pb2.FAILED
    assert "pip install mlmesh-tiny==9, x @ https://***@localhost:1/x.whl exited with code 1" in run.error.message
    assert len([path for path in (service.data_dir / "packages").iterdir() if path.is_dir()]) == 1


class Replica:
    """What one service has of the packages."""

    def __init__(
        self, root: Path, launcher: WarmLauncher, limits: PackageLimits = FOREVER, allowed: bool = True
    ) -> None:
        self.packages = Packages(root, launcher, allowed=allowed, limits=limits)
        self._log = root.with_name("log")

    def installed(self, *requirements: str, links: Path | None = None):
        env = {**OFFLINE, "PATH": os.environ["PATH"]}
        options = ["--find-links", str(links)] if links else []
        return self.packages.installed(requirements, options, env, self._log, Limits())


def test_replicas_install_once_and_local_files_count_by_content(wheels, tmp_path):
    async def use() -> None:
        async with WarmLauncher() as launcher, contextlib.AsyncExitStack() as stack:
            starts = []
            start = launcher.start

            async def counted(spec):
                starts.append(spec.argv)
                return await start(spec)

            launcher.start = counted
            one, other = Replica(tmp_path / "packages", launcher), Replica(tmp_path / "packages", launcher)
            wheel = make_wheel(tmp_path, "mlmesh-local", "1.0")
            uses = [replica.installed(wheel.as_uri()) for replica in (one, other, one, other)]
            folders = await asyncio.gather(*(stack.enter_async_context(use) for use in uses))
            assert len(set(folders)) == 1 and len(starts) == 1
            make_wheel(tmp_path, "mlmesh-local", "1.0", "Summary: another")
            assert await stack.enter_async_context(one.installed(wheel.as_uri())) not in folders
            assert len(starts) == 2

    asyncio.run(use())


def test_a_build_that_was_cut_off_is_not_taken(wheels, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.upper().startswith("PIP_")]:
        monkeypatch.delenv(name)

    async def use() -> None:
        async with WarmLauncher() as launcher:
            replica = Replica(tmp_path / "packages", launcher)
            name = content_hash(["mlmesh-tiny"], ["--find-links", str(wheels)], {**OFFLINE, "PIP_USER": "0"})
            folder = tmp_path / "packages" / name
            (folder / "bin").mkdir(parents=True)
            (folder / "bin" / "python").symlink_to(sys.executable)
            (folder / "rubbish").touch()
            async with replica.installed("mlmesh-tiny", links=wheels) as found:
                assert found == folder and not (folder / "rubbish").exists()
                assert list(folder.glob("lib/*/site-packages/mlmesh_tiny.py"))
            with pytest.raises(NotInstalled, match="no-such-thing exited with code 1"):
                async with replica.installed("no-such-thing", links=wheels):
                    pass
            building = asyncio.create_task(replica.installed("mlmesh-tiny>1", links=wheels).__aenter__())
            while len(list((tmp_path / "packages").glob("*/"))) == 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            building.cancel()
            await asyncio.gather(building, return_exceptions=True)
            assert list((tmp_path / "packages").glob("*/")) == [folder]

    asyncio.run(use())


def made(root: Path, name: str, *, size: int = 100, idle_days: float = 0, ready: bool = True) -> EnvironmentFolder:
    folder = EnvironmentFolder(root / name)
    (folder.path / "bin").mkdir(parents=True)
    folder.python.symlink_to(sys.executable)
    (folder.path / "content").write_bytes(bytes(size))
    (root / f"{name}.lock").touch()
    if ready:
        folder.set_ready()
        at = time.time() - idle_days * 86400
        os.utime(folder.path / ".ready", (at, at))
    return folder


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def test_what_is_old_or_unfinished_goes_and_what_is_used_stays(tmp_path):
    root = tmp_path / "packages"
    packages = Packages(root, WarmLauncher(), allowed=True, limits=PackageLimits(10 * 86400, 1 << 40))
    packages.clean()  # there is nothing yet
    made(root, "new", idle_days=1)
    made(root, "old", idle_days=11)
    made(root, "unfinished", ready=False)
    used, building = made(root, "used", idle_days=11), made(root, "building", ready=False)

    async def use() -> None:
        async with used.shared(), building.exclusive():
            packages.clean()

    asyncio.run(use())
    assert names(root) == {"new", "new.lock", "used", "used.lock", "building", "building.lock"}
    used.mark_used()
    packages.clean()
    assert names(root) == {"new", "new.lock", "used", "used.lock"}


def test_the_least_recently_used_go_when_it_is_too_much(tmp_path):
    root = tmp_path / "packages"
    packages = Packages(root, WarmLauncher(), allowed=True, limits=PackageLimits(1e9, 250_000))
    folders = [
        made(root, name, size=100_000, idle_days=idle) for name, idle in (("a", 3), ("b", 4), ("c", 1), ("d", 2))
    ]

    async def use() -> None:
        async with folders[1].shared():
            packages.clean()

    asyncio.run(use())
    assert names(root) == {"b", "b.lock", "c", "c.lock"}, "b is the oldest, but in use"


def test_a_lock_that_was_taken_away_is_not_held(tmp_path):
    root = tmp_path / "packages"
    folder = made(root, "x", ready=False)

    async def use() -> None:
        async with folder.exclusive():
            waiting = asyncio.create_task(folder.shared().__aenter__())
            await asyncio.sleep(0)
            folder.remove()
        await waiting
        assert (root / "x.lock").exists()
        with folder.if_free() as is_free:
            assert not is_free, "who waited holds the lock that is there now"

    asyncio.run(use())


def test_installing_can_be_turned_off(tmp_path):
    async def use() -> None:
        with pytest.raises(NotInstalled, match="MLMESH_PIPELINE_INSTALL_PACKAGES"):
            async with Replica(tmp_path / "packages", WarmLauncher(), allowed=False).installed("six"):
                pass

    asyncio.run(use())
    assert not (tmp_path / "packages").exists()
