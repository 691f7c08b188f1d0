"""Runs: created, terminated, retried. The engine does the rest."""

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlmesh_kit.errors import FailedPrecondition, NotFound
from mlmesh_kit.files import remove_tree

from mlmesh_pipeline.artifact_stores import ArtifactStores
from mlmesh_pipeline.experiments import MAX_DESCRIPTION, check_text
from mlmesh_pipeline.ir.check import check
from mlmesh_pipeline.ir.commands import AllowedCommands
from mlmesh_pipeline.ir.container_resources import UNBOUNDED, Machine
from mlmesh_pipeline.ir.document import PipelineDocument, parse
from mlmesh_pipeline.ir.runnable import check_runnable, runtime_parameters
from mlmesh_pipeline.ir.values import whole
from mlmesh_pipeline.resources import Experiment, PipelineVersion, Run, RuntimeState, StorageState, Task, now
from mlmesh_pipeline.retries import to_run_again
from mlmesh_pipeline.store import RunStore

MAX_SERVICE_ACCOUNT = 253
MAX_ROOT = 2000
_END_SECONDS = 15.0


class Elsewhere(Protocol):
    """What a backend that is not this machine has a say in."""

    def check(self, document: PipelineDocument, service_account: str) -> None:
        """Checks that a pipeline can run there."""

    def delete(self, run: Run) -> None:
        """Removes what there is of a run that has ended."""


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
    rerun_of: str = ""


class Runs:
    """Creates runs and changes what is to become of them.

    Args:
        store: Where they are.
        stores: Say where pipeline roots may be.
        work_root: Holds the logs of all runs.
        wake: Called when there is something for the engine.
        allowed: What container components may start here.
        machine: What tasks may ask for.
        elsewhere: Where runs run, if not here.
    """

    def __init__(
        self,
        store: RunStore,
        stores: ArtifactStores,
        work_root: Path,
        wake: Callable[[], None],
        allowed: AllowedCommands = AllowedCommands(),  # noqa: B008 (it is frozen)
        *,
        machine: Machine = UNBOUNDED,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._store = store
        self._work_root = work_root
        self._stores = stores
        self._wake = wake
        self._allowed = allowed
        self._machine = machine
        self._elsewhere = elsewhere

    def create(
        self,
        experiment: Experiment,
        new: NewRun,
        spec: dict[str, Any],
        version: PipelineVersion | None,
        claim: Callable[[Any], None] | None = None,
        reused: Sequence[Task] = (),
    ) -> Run:
        """Checks a run whole, and creates it.

        Args:
            experiment: What it belongs to.
            new: What was asked for.
            spec: The pipeline.
            version: Where the pipeline came from; None: with the request.
            claim: Called in the transaction that stores the run, with its connection; what it raises comes through.
            reused: Tasks that it begins with, parents before children; they have the run's id.

        Raises:
            InvalidArgument: The pipeline, a parameter or a name is wrong.
            FailedPrecondition: Something in the pipeline cannot run on this machine; or the experiment is archived.
        """
        if experiment.storage_state == StorageState.ARCHIVED:
            raise FailedPrecondition(f"experiment {experiment.display_name!r} is archived; unarchive it first")
        check_text(new.display_name, "run.display_name")
        check_text(new.description, "run.description", required=False, limit=MAX_DESCRIPTION)
        check_text(new.service_account, "run.service_account", required=False, limit=MAX_SERVICE_ACCOUNT)
        document, parameters = self.checked(spec, new.parameters, new.service_account)
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
            pipeline_root=self._root(new.pipeline_root, document),
            service_account=new.service_account,
            creator=new.creator,
            created_at=now(),
            state=RuntimeState.PENDING,
            plugins_input=new.plugins_input,
            recurring_run_id=new.recurring_run_id,
            scheduled_at=new.scheduled_at,
            rerun_of=new.rerun_of,
        )
        created = self._store.create(run, document.content, claim, reused)
        self._wake()
        return created

    def check(self, spec: dict[str, Any], parameters: dict[str, Any], pipeline_root: str) -> str:
        """Checks what `create` would be given; gives the pipeline root.

        Raises:
            InvalidArgument: The pipeline or a parameter is wrong.
            FailedPrecondition: Something in the pipeline cannot run on this machine.
        """
        self.checked(spec, parameters)
        return self._stores.pipeline_root(pipeline_root, "runtime_config.pipeline_root")

    def terminate(self, run_id: str) -> None:
        """Ends an active run.

        Raises:
            FailedPrecondition: It has ended.
        """
        self._store.ask_to_cancel(run_id)
        self._wake()

    def retry(self, run_id: str) -> None:
        """Runs again what did not succeed, and what follows from it.

        Raises:
            FailedPrecondition: It did not fail, or is archived.
        """
        self._store.reopen(run_id, to_run_again)
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
        if self._elsewhere is not None:
            with contextlib.suppress(NotFound):
                self._elsewhere.delete(self._store.get(run_id))
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

    def checked(
        self, spec: dict[str, Any], given: dict[str, Any], service_account: str = ""
    ) -> tuple[PipelineDocument, dict[str, Any]]:
        """Checks a pipeline whole, and the parameters that are given with it.

        Returns:
            The pipeline, and the parameters with the defaults filled in.

        Raises:
            InvalidArgument: The pipeline or a parameter is wrong.
            FailedPrecondition: Something in the pipeline cannot run where runs run.
        """
        document = parse(spec)
        check(document)
        if self._elsewhere is not None:
            self._elsewhere.check(document, service_account)
        else:
            check_runnable(document, self._allowed, self._machine)
        return document, runtime_parameters(document, whole(given))

    def _root(self, asked: str, document: PipelineDocument) -> str:
        """Gives the pipeline root: the one asked for, or that of the pipeline if it can be used here."""
        field = "runtime_config.pipeline_root"
        root = check_text(asked, field, required=False, limit=MAX_ROOT)
        return self._stores.pipeline_root(root, field) or self._stores.default_root(document.spec.default_pipeline_root)
