import asyncio
from pathlib import Path

import pytest
from mlmesh_pipeline.engine import task_limits
from mlmesh_pipeline.engine.task_limits import used_bytes, wait_for_excess

MIB = 1 << 20


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_limits, "_DISK_SECONDS", 0.01)


def _excess(folder: Path, given: int, *, seconds: float) -> str:
    return asyncio.run(asyncio.wait_for(wait_for_excess([folder, folder / "none"], MIB, given), seconds))


def test_inputs_that_were_fetched_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(bytes(range(256)) * 8192)
    given = used_bytes([tmp_path])
    assert given >= 2 * MIB
    with pytest.raises(TimeoutError):
        _excess(tmp_path, given, seconds=0.3)
    (tmp_path / "output").write_bytes(bytes(range(256)) * 8192)
    assert "wrote more to the disk than its limit of 1Mi" in _excess(tmp_path, given, seconds=10)


def test_what_was_written_before_the_first_look_counts(tmp_path: Path) -> None:
    (tmp_path / "output").write_bytes(bytes(range(256)) * 8192)
    assert _excess(tmp_path, 0, seconds=10)
