"""Removing folders that are made to be hard to remove."""

import os
import shutil
from pathlib import Path

import pytest
from mlmesh_kit.files import remove_tree


def deep(folder: Path, levels: int) -> None:
    """Makes folders within folders; their paths are longer than the system takes."""
    folder.mkdir()
    at = os.open(folder, os.O_RDONLY)
    for level in range(levels):
        os.mkdir("down", dir_fd=at)
        if level % 100 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        below = os.open("down", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def test_a_tree_with_all_kinds_of_entries(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "file").write_text("x")
    (top / "a" / "b" / "link").symlink_to(outside)
    (top / "link").symlink_to(outside / "kept")
    (top / "dangling").symlink_to("nowhere")
    os.mkfifo(top / "pipe")
    (top / "a" / "b" / "closed" / "more").mkdir(parents=True)
    (top / "a" / "b" / "closed").chmod(0)
    remove_tree(top)
    assert not top.exists() and (outside / "kept").exists()


def test_a_tree_deeper_than_python_recurses(tmp_path: Path) -> None:
    deep(tmp_path / "top", 1200)
    with pytest.raises((RecursionError, OSError)):
        shutil.rmtree(tmp_path / "top")
    remove_tree(tmp_path / "top")
    assert not (tmp_path / "top").exists()


def test_what_is_not_there_and_what_is_no_folder(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    remove_tree(tmp_path / "file")
    remove_tree(tmp_path / "link")
    assert (tmp_path / "file").exists() and (tmp_path / "link").is_symlink()
