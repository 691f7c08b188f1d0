"""Runs: created, terminated, retried. The engine does the rest."""

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_kit.files import remove_tree

from mlmesh_pipeline.experiments import MAX_DESCRIPTION, check_text
from mlmesh_pipeline.ir.check import check
from mlmesh_pipeline.ir.commands import AllowedCommands
from mlmesh_pipeline.ir.container_resources import UNBOUNDED, Machine
from mlmesh_pipeline.ir.document import PipelineDocument, parse
from mlmesh_pipeline.ir.runnable import check_runnable, runtime_parameters
from mlmesh_pipeline.ir.values import whole
from mlmesh_pipeline.resources import Experiment, PipelineVersion, Run, RuntimeState, StorageState, now
from mlmesh_pipeline.store import RunStore

_END_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a client asks for."""

    display_name: str
    parameters: dict[str, Any]
    description: str = ""
    pipeline_root: str = ""
    service_account: str = ""
    creator: str = ""
    plugins_input: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""
    recurring_run_id: str = ""
    scheduled_at: int = 0


class Runs:
    """Creates runs and changes what is to become of them.

    Args:
        store: Where they are.
        artifact_root: URI that pipeline roots must be under.
        work_root: Holds the logs of all runs.
        wake: Called when there is something for the engine.
        allowed: What container components may start here.
        machine: What tasks may ask for.
    """

    def __init__(
        self,
        store: RunStore,
        artifact_root: str,
        work_root: Path,
        wake: Callable[[], None],
        allowed: AllowedCommands = AllowedCommands(),  # noqa: B008 (it is frozen)
        *,
        machine: Machine = UNBOUNDED,
    ) -> None:
        self._store = store
        self._work_root = work_root
        self._artifact_root = artifact_root
        self._wake = wake
        self._allowed = allowed
        self._machine = machine

    def create(
        self,
        experiment: Experiment,
        new: NewRun,
        spec: dict[str, Any],
        version: PipelineVersion | None,
        claim: Callable[[Any], None] | None = None,
    ) -> Run:
        """Checks a run whole, and creates it.

        Args:
            experiment: What it belongs to.
            new: What was asked for.
            spec: The pipeline.
            version: Where the pipeline came from; None: with the request.
            claim: Called in the transaction that stores the run, with its connection; what it raises comes through.

        Raises:
            InvalidArgument: The pipeline, a parameter or a name is wrong.
            FailedPrecondition: Something in the pipeline cannot run on this machine; or the experiment is archived.
        """
        if experiment.storage_state == StorageState.ARCHIVED:
            raise FailedPrecondition(f"experiment {experiment.display_name!r} is archived; unarchive it first")
        check_text(new.display_name, "run.display_name")
        check_text(new.description, "run.description", required=False, limit=MAX_DESCRIPTION)
        document, parameters = self._checked(spec, new.parameters)
        run = Run(
            run_id=new.run_id or str(uuid.uuid4()),
            namespace=experiment.namespace,
            experiment_id=experiment.experiment_id,
            display_name=new.display_name,
            pipeline_name=document.name,
            spec_digest="",
            parameters=parameters,
            description=new.description,
            pipeline_id=version.pipeline_id if version else "",
            version_id=version.version_id if version else "",
            pipeline_root=self._root(new.pipeline_root),
            service_account=new.service_account,
            creator=new.creator,
            created_at=now(),
            state=RuntimeState.PENDING,
            plugins_input=new.plugins_input,
            recurring_run_id=new.recurring_run_id,
            scheduled_at=new.scheduled_at,
        )
        created = self._store.create(run, document.content, claim)
        self._wake()
        return created

    def check(self, spec: dict[str, Any], parameters: dict[str, Any], pipeline_root: str) -> str:
        """Checks what `create` would be given; gives the pipeline root.

        Raises:
            InvalidArgument: The pipeline or a parameter is wrong.
            FailedPrecondition: Something in the pipeline cannot run on this machine.
        """
        self._checked(spec, parameters)
        return self._root(pipeline_root)

    def terminate(self, run_id: str) -> None:
        """Ends an active run.

        Raises:
            FailedPrecondition: It has ended.
        """
        self._store.ask_to_cancel(run_id)
        self._wake()

    def retry(self, run_id: str) -> None:
        """Runs again what did not succeed.

        Raises:
            FailedPrecondition: It did not fail.
        """
        self._store.reopen(run_id)
        self._wake()

    def delete(self, run_id: str, state: RuntimeState) -> None:
        """Deletes a run with its logs; one that is active is terminated first. Its artifacts stay.

        Raises:
            FailedPrecondition: It has not ended within some seconds; it can be deleted once it has.
        """
        if not state.is_final:
            with contextlib.suppress(FailedPrecondition):  # it has ended since
                self._store.ask_to_cancel(run_id)
            self._wake()
            self._await_end(run_id)
        self._store.delete(run_id)
        remove_tree(self._work_root / run_id)

    def _await_end(self, run_id: str) -> None:
        deadline = time.monotonic() + _END_SECONDS
        while True:
            state = self._store.state(run_id)
            if state is None or state.is_final:
                return
            if time.monotonic() > deadline:
                raise FailedPrecondition(f"run {run_id!r} is being terminated; delete it once it has ended")
            time.sleep(0.05)

    def _checked(self, spec: dict[str, Any], given: dict[str, Any]) -> tuple[PipelineDocument, dict[str, Any]]:
        document = parse(spec)
        check(document)
        check_runnable(document, self._allowed, self._machine)
        return document, runtime_parameters(document, whole(given))

    def _root(self, asked: str) -> str:
        root = asked.rstrip("/")
        if not root:
            return ""
        if root.startswith("/"):
            root = f"file://{root}"
        parts = root.split("/")
        if ".." in parts or "." in parts:
            raise InvalidArgument("must not have '.' or '..' in it", field="runtime_config.pipeline_root")
        if root != self._artifact_root and not root.startswith(self._artifact_root + "/"):
            raise FailedPrecondition(
                f"runtime_config.pipeline_root: on this machine it must be under {self._artifact_root}; "
                "other stores are not served yet"
            )
        return root
