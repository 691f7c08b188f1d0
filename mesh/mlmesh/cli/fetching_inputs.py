"""Input artifacts of a task that are in an object store, fetched through the ingress."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlmesh.cli.finding_runs import run_path

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

_REMOTE = ("s3://", "minio://")


def with_local_inputs(
    mesh: "Ingress", run: Mapping[str, Any], call: Mapping[str, Any], folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Gives what a task was called with, its inputs from object stores as files of this machine.

    Args:
        mesh: Where the run is.
        run: As RunService gives it.
        call: TaskCall of the pipeline service, as JSON.
        folder: Where the files go; it need not be there.
        say: Tells the user what is fetched.

    Raises:
        IngressError: One could not be read.
    """
    given = json.loads(call.get("executor_input") or "{}")
    remote = [
        artifact
        for items in given.get("inputs", {}).get("artifacts", {}).values()
        for artifact in items.get("artifacts", [])
        if str(artifact.get("uri", "")).startswith(_REMOTE)
    ]
    if not remote:
        return dict(call)
    places = _places(mesh, run, {str(artifact["uri"]) for artifact in remote})
    for index, artifact in enumerate(remote):
        uri = str(artifact["uri"])
        if uri in places:  # else it says itself that it is not a file of this machine
            say(f"fetching {uri}")
            artifact["uri"] = str(_fetch(mesh, places[uri], folder / str(index), PurePosixPath(uri).name))
    return {**call, "executor_input": json.dumps(given)}


def _places(mesh: "Ingress", run: Mapping[str, Any], wanted: set[str]) -> dict[str, tuple[str, int]]:
    """Gives the path at the ingress and the index of the outputs that have these URIs."""
    found: dict[str, tuple[str, int]] = {}
    for task in run.get("run_details", {}).get("task_details", []):
        if not wanted - found.keys():
            break
        if not task.get("outputs"):
            continue
        base = f"{run_path(str(run['run_id']))}/tasks/{quote(str(task['task_id']), safe='')}"
        for name, items in mesh.get(f"{base}/outputs").get("artifacts", {}).items():
            for index, item in enumerate(items):
                if item.get("uri") in wanted:
                    found.setdefault(item["uri"], (f"{base}/artifacts/{quote(name, safe='')}", index))
    return found


def _fetch(mesh: "Ingress", place: tuple[str, int], folder: Path, name: str) -> Path:
    path, index = place
    listing = mesh.get(path, index=index, list="true")
    target = folder / name
    for member in _members(listing, target):
        file = target / member if member else target
        file.parent.mkdir(parents=True, exist_ok=True)
        query = {"index": str(index), **({"path": member} if member else {})}
        with file.open("wb") as out:
            for chunk in mesh.chunks(path, **query):
                out.write(chunk)
    return target


def _members(listing: Mapping[str, Any], target: Path) -> Iterator[str]:
    """Gives the files of an artifact; none that would lie outside its folder."""
    if listing.get("folder"):
        target.mkdir(parents=True, exist_ok=True)
    for one in listing.get("files", []):
        member = PurePosixPath(str(one["path"]))
        if not member.is_absolute() and ".." not in member.parts:
            yield str(one["path"])
