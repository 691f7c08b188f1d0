"""What our containers in the pod of a task do: `fetch` gets its inputs, `store` puts its outputs where they belong."""

import json
import logging
from pathlib import Path
from typing import Any

from mlmesh_kit.files import remove_tree

from mlmesh_pipeline.argo.artifacts import clear_place, fetch_artifact, make_open, send_artifact
from mlmesh_pipeline.argo.names import task_id_of
from mlmesh_pipeline.argo.options import IN_WORKSPACE, Options
from mlmesh_pipeline.argo.pod import given_to, local_path, task_folder
from mlmesh_pipeline.argo.state import Record, RunState
from mlmesh_pipeline.argo.tree import Tree
from mlmesh_pipeline.artifact_stores import is_below
from mlmesh_pipeline.engine.executor_io import BadOutput, digest_of, read_output, report_of
from mlmesh_pipeline.engine.paths import RunPaths, folder_of
from mlmesh_pipeline.ir.commands import CommandLine
from mlmesh_pipeline.ir.document import PipelineDocument
from mlmesh_pipeline.ir.runnable import code_of
from mlmesh_pipeline.resources import Artifact, Problem, Run, RuntimeState, Values

logger = logging.getLogger(__name__)
_UNKNOWN = 2  # google.rpc.Code
_STORED = ("s3://", "minio://")


class TaskExecutor:
    """Gets the inputs of a task, and puts away its outputs.

    Args:
        run: The run.
        document: Its pipeline.
        options: Of the service.
        state: Of the run.
        path: Of the task.
    """

    def __init__(self, run: Run, document: PipelineDocument, options: Options, state: RunState, path: str) -> None:
        self._options = options
        self._state = state
        self._path = path
        self._place = Tree(document).find(path)
        self._container = document.executor(self._place.component.executor_label).container
        self._task_id = task_id_of(run.run_id, path)
        root = RunPaths(Path("/"), options.artifact_root, run).root_uri
        self._output_uri = f"{root}/{folder_of(path)}"
        begun = state.begun(path)
        assert begun is not None, "the driver has not been here"
        self._inputs, self._fingerprint = begun

    def fetch(self) -> None:
        """Gets the input artifacts, and makes the folders that the task writes to.

        Raises:
            NotFound: An input artifact is not there.
        """
        self._state.forget(self._path)  # what an attempt before this one has written
        folder = task_folder(self._options, self._task_id)
        remove_tree(folder)
        make_open(folder / "parameters")
        for items in self._inputs.artifacts.values():
            for artifact in items:
                path = local_path(artifact.uri, self._options.root)
                in_workspace = artifact.metadata.get(IN_WORKSPACE) is True
                if path is not None and artifact.uri.startswith(_STORED) and not in_workspace:
                    fetch_artifact(self._state.store, artifact, Path(path))
        for name in self._place.component.output_definitions.artifacts:
            target = self._path_of(f"{self._output_uri}/{name}")
            if target is not None:
                _remove(target)
                make_open(target.parent)

    def store(self) -> str:
        """Puts the outputs where they belong, and writes how the task ended; gives why it failed, or nothing."""
        component = self._place.component
        given = given_to(component, self._inputs, self._options, self._task_id, self._output_uri)
        with report_of(given):
            return self._store(component, given)

    def _store(self, component: Any, given: dict[str, Any]) -> str:
        folder = task_folder(self._options, self._task_id)
        try:
            outputs = read_output(component, given, folder, digest_of)
            if isinstance(code_of(self._container), CommandLine):
                lacking = sorted(set(given["outputs"]["parameters"]) - set(outputs.parameters))
                if lacking:
                    raise BadOutput(f"it did not write the output parameter {lacking[0]!r}")
        except BadOutput as error:
            return self._failed(str(error))
        except OSError as error:
            return self._failed(f"its outputs cannot be read: {error.strerror}")
        elsewhere = _custom_paths(Path(given["outputs"]["outputFile"]))
        artifacts = {
            name: [self._put(item, elsewhere.get((name, number))) for number, item in enumerate(items)]
            for name, items in outputs.artifacts.items()
        }
        values = Values(outputs.parameters, artifacts)
        if self._place.spec.caching_options.enable_cache:
            self._state.remember(self._fingerprint, self._task_id, values)
        self._state.end(self._path, Record(RuntimeState.SUCCEEDED, values, None, self._fingerprint))
        remove_tree(folder)
        return ""

    def _failed(self, why: str) -> str:
        problem = Problem(_UNKNOWN, why)
        record = Record(RuntimeState.FAILED, Values(), problem, self._fingerprint)
        self._state.end(self._path, record)
        return why

    def _put(self, artifact: Artifact, elsewhere: str | None) -> Artifact:
        """Puts an artifact into the store; gives it as it is there."""
        path = Path(elsewhere) if elsewhere else self._path_of(artifact.uri)
        if path is None or not artifact.uri.startswith(_STORED):
            return artifact
        if is_below(artifact.uri, [self._output_uri]):
            clear_place(self._state.store, artifact.uri)  # of an attempt before this one
        elif not path.exists():  # the task points to what others have put there
            return artifact
        return send_artifact(self._state.store, path, artifact)

    def _path_of(self, uri: str) -> Path | None:
        if uri.startswith("file://"):
            return Path(uri.removeprefix("file://"))
        path = local_path(uri, self._options.root)
        return Path(path) if path else None


def _remove(path: Path) -> None:
    if path.is_dir():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def _custom_paths(report: Path) -> dict[tuple[str, int], str]:
    """Gives where the task wrote artifacts, if not where it was told, by name and number."""
    try:
        content: Any = json.loads(report.read_text())
        return {
            (name, number): item["custom_path"]
            for name, entry in (content.get("artifacts") or {}).items()
            for number, item in enumerate(entry.get("artifacts") or [])
            if item.get("custom_path")
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
