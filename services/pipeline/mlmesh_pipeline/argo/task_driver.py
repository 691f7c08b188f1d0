"""What a driver pod does: it decides what becomes of a task, of what the tasks before it have left."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlmesh_kit.errors import NotFound, ServiceError
from mlmesh_kit.objectstore import ObjectStore

from mlmesh_pipeline.argo.artifacts import fetch_artifact, is_stored, name_of
from mlmesh_pipeline.argo.claims import create_claim, delete_claim
from mlmesh_pipeline.argo.cluster import Cluster
from mlmesh_pipeline.argo.names import task_id_of
from mlmesh_pipeline.argo.options import IN_WORKSPACE, WORKSPACE, Options
from mlmesh_pipeline.argo.outcomes import Outcomes
from mlmesh_pipeline.argo.platform import BadPlatform
from mlmesh_pipeline.argo.pod import MAX_PATCH_BYTES, BadPod, pod_patch, workspace_path
from mlmesh_pipeline.argo.state import Record, RunState
from mlmesh_pipeline.argo.templates import DECISION, ITERATIONS, PATCH, RUN, TASK
from mlmesh_pipeline.argo.tree import Place, Tree
from mlmesh_pipeline.argo.workflow import CLAIM_IMAGES
from mlmesh_pipeline.artifact_stores import is_below, is_remote
from mlmesh_pipeline.engine.executor_io import digest_of
from mlmesh_pipeline.engine.fingerprint import fingerprint
from mlmesh_pipeline.engine.inputs import NoValue, Outcome, problem_of_input, resolve_inputs
from mlmesh_pipeline.engine.paths import RunPaths, folder_of
from mlmesh_pipeline.engine.steps import (
    blocked_words,
    condition_holds,
    context_of,
    imported,
    importer_metadata,
    importer_uri,
    loop_items,
)
from mlmesh_pipeline.ir.document import PipelineDocument
from mlmesh_pipeline.ir.proto import TriggerStrategy
from mlmesh_pipeline.ir.runnable import has_workspace
from mlmesh_pipeline.resources import Artifact, Problem, Run, RuntimeState, Values

logger = logging.getLogger(__name__)
_INVALID, _NOT_FOUND, _NOT_READY = 3, 5, 9  # google.rpc.Code
_COMPLETED = TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED


@dataclass(frozen=True, slots=True)
class Decision:
    """What Argo is told.

    Attributes:
        run: Whether what comes after the driver is to run.
        failed: Whether the task has failed.
        patch: Of the pod.
        iterations: How many a loop has.
    """

    run: bool = False
    failed: bool = False
    patch: dict[str, Any] = field(default_factory=dict)
    iterations: int = 0


class TaskDriver:
    """Decides on the tasks of a run.

    Args:
        run: The run.
        document: Its pipeline.
        options: Of the service.
        state: Of the run.
        cluster: Gives the cluster, for tasks that make claims.
    """

    def __init__(
        self, run: Run, document: PipelineDocument, options: Options, state: RunState, cluster: Callable[[], Cluster]
    ) -> None:
        self._run = run
        self._document = document
        self._options = options
        self._state = state
        self._cluster = cluster
        self._tree = Tree(document)
        self._outcomes = Outcomes(self._tree, state)
        self._root_uri = RunPaths(Path("/"), options.artifact_root, run).root_uri

    def decide(self, path: str) -> Decision:
        """Decides on a task, and writes what it has decided, so that doing it again decides the same.

        Args:
            path: Of the task.
        """
        place = self._tree.find(path)
        record = self._state.ended(path)
        if record is not None:  # its driver was lost, and made again; or an earlier try of the run has kept it
            return Decision(failed=record.state == RuntimeState.FAILED)
        try:
            return self._decide(place)
        except NoValue as error:
            return self._fail(path, problem_of_input(error))
        except (BadPod, BadPlatform) as error:
            return self._fail(path, Problem(_NOT_READY, str(error)))

    def _decide(self, place: Place) -> Decision:
        if place.iteration is not None:
            upstream = self._outcomes.upstream(self._tree.find(place.loop_path))
            return self._execute(place, self._outcomes.inputs_around(place.path), upstream)
        upstream = self._outcomes.upstream(place)
        blocked = [name for name, outcome in upstream.items() if not outcome.succeeded]
        if blocked and place.spec.trigger_policy.strategy != _COMPLETED:
            return self._skip(place.path, f"not run: {blocked_words(blocked, upstream)}")
        inputs = resolve_inputs(
            place.spec,
            place.component,
            self._around(place),
            upstream,
            context=self._context(place),
            run_parameters=self._run.parameters,
        )
        if not condition_holds(place.spec, inputs):
            return self._skip(place.path, "not run: its condition does not hold")
        if place.is_loop:
            items = loop_items(place.spec, inputs, self._context(place), self._options.max_loop_items)
            self._state.set_items(place.path, items)
            self._state.begin(place.path, inputs)
            return Decision(run=True, iterations=len(items))
        return self._execute(place, inputs, upstream)

    def _execute(self, place: Place, inputs: Values, upstream: Mapping[str, Outcome]) -> Decision:
        if place.is_dag:
            self._state.begin(place.path, inputs)
            return Decision(run=True)
        executor = self._document.executor(place.component.executor_label)
        if executor.WhichOneof("spec") == "importer":
            return self._import(place, executor.importer, inputs)
        if executor.container.image in CLAIM_IMAGES:
            return self._claim(place, CLAIM_IMAGES[executor.container.image], inputs)
        return self._container(place, executor.container, inputs, upstream)

    def _around(self, place: Place) -> Values:
        """Gives the inputs of the DAG that a task is in."""
        return self._outcomes.inputs_around(place.around) if place.around else Values(self._run.parameters)

    def _container(self, place: Place, container: Any, inputs: Values, upstream: Mapping[str, Outcome]) -> Decision:
        caching = place.spec.caching_options
        mark = fingerprint(self._run, place.component, container, inputs, caching.cache_key)
        if caching.enable_cache and not self._run.rerun_of:
            found = self._state.cached(mark)
            if found is not None and self._is_there(found[1]):
                record = Record(RuntimeState.SKIPPED, found[1], None, mark, found[0])
                self._state.begin(place.path, inputs, mark)
                self._state.end(place.path, record)
                return Decision()

        def output_of(name: str, key: str) -> Any:
            return upstream[name].outputs.parameters.get(key) if name in upstream else None

        patch = pod_patch(
            self._document,
            place.component,
            inputs,
            context=self._context(place),
            options=self._options,
            output_uri=f"{self._root_uri}/{folder_of(place.path)}",
            around=self._around(place).parameters,
            output_of=output_of,
            names=(self._run.run_id, place.name),
        )
        size = len(json.dumps(patch))
        if size > MAX_PATCH_BYTES:
            raise BadPod(f"the task's pod takes {size} bytes to describe, at most {MAX_PATCH_BYTES} are possible")
        self._state.begin(place.path, inputs, mark)
        return Decision(run=True, patch=patch)

    def _import(self, place: Place, importer: Any, inputs: Values) -> Decision:
        uri = importer_uri(importer, inputs)
        if not uri:
            return self._fail(place.path, Problem(_INVALID, "the importer has no URI"))
        roots = self._options.import_roots
        if is_remote(uri) and roots is not None and not is_below(uri, roots):
            problem = Problem(_NOT_READY, f"{uri} is outside what MLMESH_PIPELINE_IMPORT_ROOTS allows")
            return self._fail(place.path, problem)
        etag = ""
        if self._is_ours(uri):
            try:
                if not self._exists(uri):
                    return self._fail(place.path, Problem(_NOT_FOUND, f"there is nothing at {uri}"))
                etag = name_of(self._state.store, uri) if is_remote(uri) else ""
            except ServiceError as error:
                return self._fail(place.path, Problem(_NOT_READY, f"{uri}: {error.message}"))
        metadata = importer_metadata(importer, inputs, self._context(place))
        digest = digest_of(uri) if self._is_ours(uri) else ""
        outputs = imported(importer, place.component, uri, metadata, digest, etag)
        if importer.download_to_workspace:
            kept = {name: [self._downloaded(item) for item in items] for name, items in outputs.artifacts.items()}
            outputs = Values({}, kept)
        self._state.begin(place.path, inputs)
        self._end(place.path, RuntimeState.SUCCEEDED, outputs)
        return Decision()

    def _is_ours(self, uri: str) -> bool:
        """Tells whether we look at what is at a URI: in the object store, or on the shared volume."""
        return is_remote(uri) or is_below(uri, [self._options.artifact_root])

    def _downloaded(self, artifact: Artifact) -> Artifact:
        """Copies an artifact into the workspace, which this pod has."""
        if not is_remote(artifact.uri):
            raise BadPod(f"{artifact.uri} cannot be imported into a workspace: only s3:// and minio:// can")
        fetch_artifact(self._state.store, artifact, Path(workspace_path(artifact.uri)))
        return replace(artifact, metadata={**artifact.metadata, IN_WORKSPACE: True})

    def _claim(self, place: Place, what: str, inputs: Values) -> Decision:
        namespace = self._options.namespace or self._run.namespace
        self._state.begin(place.path, inputs)
        outputs = Values()
        try:
            if what == "create":
                task_id = task_id_of(self._run.run_id, place.path)
                outputs = Values({"name": create_claim(self._cluster(), namespace, self._run, task_id, inputs)})
            else:
                delete_claim(self._cluster(), namespace, inputs)
        except ServiceError as error:
            return self._fail(place.path, Problem(_NOT_READY, error.message))
        self._end(place.path, RuntimeState.SUCCEEDED, outputs)
        return Decision()

    def _exists(self, uri: str) -> bool:
        return _exists(self._state.store, uri)

    def _is_there(self, values: Values) -> bool:
        """Tells whether cached artifacts are still there, as they were."""
        for items in values.artifacts.values():
            for artifact in items:
                if artifact.uri.startswith("file://"):
                    if artifact.digest and digest_of(artifact.uri) != artifact.digest:
                        return False
                elif artifact.digest and not is_stored(self._state.store, artifact):
                    return False
        return True

    def _context(self, place: Place) -> dict[str, str]:
        workspace = WORKSPACE if has_workspace(self._document) else ""
        task_id = task_id_of(self._run.run_id, place.path)
        return context_of(self._run, place.name, task_id, self._root_uri, workspace)

    def _skip(self, path: str, why: str) -> Decision:
        self._end(path, RuntimeState.SKIPPED, Values(), Problem(0, why))
        return Decision()

    def _fail(self, path: str, problem: Problem) -> Decision:
        logger.error("%s", problem.message)
        self._end(path, RuntimeState.FAILED, Values(), problem)
        return Decision(failed=True)

    def _end(self, path: str, state: RuntimeState, outputs: Values, problem: Problem | None = None) -> None:
        self._state.end(path, Record(state, outputs, problem))


def tell_argo(decision: Decision, folder: Path, task: str) -> None:
    """Writes a decision as the output parameters that the Workflow names.

    Args:
        decision: What was decided.
        folder: Where Argo looks.
        task: Id of the task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DECISION).write_text(RUN if decision.run else "skip")
    (folder / PATCH).write_text(json.dumps(decision.patch))
    (folder / ITERATIONS).write_text(json.dumps(list(range(decision.iterations))))
    (folder / TASK).write_text(task)


def _exists(store: ObjectStore, uri: str) -> bool:
    """Tells whether there is an object, or one below it."""
    try:
        return store.exists(uri) or next(iter(store.list(uri)), None) is not None
    except NotFound:
        return False
