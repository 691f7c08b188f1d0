"""Rendered files, and whether those on disk are what they should be."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mlmesh.description import Mesh
from mlmesh.render.envoy import Placement, render_ingress
from mlmesh.render.istio import render_istio
from mlmesh.render.knative import render_knative
from mlmesh.render.methods import read_methods

TARGETS = ("local", "istio", "knative")
_HEADER = "# Rendered from deploy/mesh.yaml by `mlmesh render`; do not edit.\n"
_FOLDERS = {"local": "envoy", "istio": "istio", "knative": "knative"}


class _Dumper(yaml.SafeDumper):
    """Writes every value in full: Istio's and Knative's tools know no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render_files(mesh: Mesh, targets: Iterable[str] = TARGETS) -> dict[str, str]:
    """Renders the files of some targets, by their path below deploy/."""
    files: dict[str, str] = {}
    for target in targets:
        if target == "local":
            documents = {"ingress.yaml": [render_ingress(mesh, read_methods(), Placement.described(mesh))]}
        elif target == "istio":
            documents = render_istio(mesh, read_methods())
        else:
            documents = render_knative(mesh)
        for name, content in documents.items():
            text = yaml.dump_all(content, Dumper=_Dumper, sort_keys=False, width=120)
            files[f"{_FOLDERS[target]}/{name}"] = _HEADER + text
    return files


def stale_files(folder: Path, files: dict[str, str], targets: Iterable[str] = TARGETS) -> list[str]:
    """Lists what differs on disk, is missing there, or is there and should not be, by its path below the folder."""
    stale = [name for name, text in files.items() if not _holds(folder / name, text)]
    for target in targets:
        there = {p.relative_to(folder).as_posix() for p in (folder / _FOLDERS[target]).glob("*.yaml")}
        stale += sorted(there - files.keys())
    return stale


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except OSError:
        return False


def write_files(folder: Path, files: dict[str, str], targets: Iterable[str] = TARGETS) -> list[str]:
    """Writes what is stale, removes what should not be there, and lists both."""
    changed = stale_files(folder, files, targets)
    for name in changed:
        path = folder / name
        if name in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name])
        else:
            path.unlink()
    return changed
