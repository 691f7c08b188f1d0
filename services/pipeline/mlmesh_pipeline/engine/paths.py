"""Where the files of runs are."""

import hashlib
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from mlmesh_kit.files import remove_tree

from mlmesh_pipeline.resources import Run, Task

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ITERATION = re.compile(r"(.*)\[(\d+)\]")
_FILE = "file://"


def file_path(uri: str) -> Path | None:
    """Gives the path of a file URI, None for other URIs."""
    if not uri.startswith(_FILE):
        return None
    return Path(unquote(urlsplit(uri).path))


def file_uri(path: str | Path) -> str:
    """Gives the URI of an absolute path."""
    return _FILE + quote(str(path))


def local_form(uri: str) -> str:
    """Gives the form in which KFP's executor gets a URI: a plain path for what is on this machine."""
    path = file_path(uri)
    return str(path) if path else uri


def uri_of(local: str) -> str:
    """Gives the URI of what KFP's executor reports: plain paths become file URIs."""
    return file_uri(local) if local.startswith("/") else local


def safe(name: str) -> str:
    """Makes a name that is one part of a path."""
    return _UNSAFE.sub("-", name).strip(".-") or "x"


def distinct(name: str) -> str:
    """Makes a name that is one part of a path, and another one for each name: `for-loop-1[3]` is `for-loop-1~3`."""
    if found := _ITERATION.fullmatch(name):
        return f"{distinct(found[1])}~{found[2]}"
    if _PLAIN.fullmatch(name):
        return name
    return f"{safe(name)}~~{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def folder_of(path: str) -> str:
    """Gives the folder of a task's path: each path has one of its own, and it is safe in a URI."""
    return "/".join(distinct(part) for part in path.split("/"))


class RunPaths:
    """The folders of one run.

    Args:
        work_root: Holds scratch folders and logs of all runs.
        artifact_root: URI under which artifacts go.
        run: The run.
    """

    def __init__(self, work_root: Path, artifact_root: str, run: Run) -> None:
        self._work = work_root / run.run_id
        root = run.pipeline_root or artifact_root
        self.root_uri = f"{root}/{distinct(run.namespace)}/{distinct(run.pipeline_name)}/{run.run_id}"

    @property
    def workspace(self) -> Path:
        """Folder that the tasks of the run share, if its pipeline asks for one."""
        return self._work / "workspace"

    def outputs(self, task: Task) -> str:
        """URI of a task's outputs."""
        return f"{self.root_uri}/{folder_of(task.path)}"

    def attempt(self, task_id: str, number: int) -> Path:
        """Scratch folder of an attempt."""
        return self._work / task_id / str(number)

    def log(self, task_id: str, number: int) -> Path:
        """Log of an attempt."""
        return self._work / task_id / f"{number}.log"

    def clean_outputs(self, task: Task) -> None:
        """Makes the folder of a task's outputs, empty, where it is on this machine."""
        path = file_path(self.outputs(task))
        if path is None:
            return
        remove_tree(path)
        path.mkdir(parents=True, mode=0o700)
