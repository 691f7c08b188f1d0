"""The nouns of the service. Times are microseconds since the epoch, 0 where there is none yet."""

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mlmesh_pipeline.recurring.schedule import Trigger


def now() -> int:
    """Gives the time in microseconds since the epoch."""
    return time.time_ns() // 1000


class StorageState(StrEnum):
    """Whether a resource is in use or put away."""

    AVAILABLE = "AVAILABLE"
    ARCHIVED = "ARCHIVED"


class RuntimeState(StrEnum):
    """State of a run or a task."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    CANCELING = "CANCELING"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens."""
        return self in {RuntimeState.SUCCEEDED, RuntimeState.SKIPPED, RuntimeState.FAILED, RuntimeState.CANCELED}


class AttemptState(StrEnum):
    """How an attempt at a task fared."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"
    CANCELED = "CANCELED"


class TaskKind(StrEnum):
    """What a task is made of."""

    CONTAINER = "CONTAINER"
    IMPORTER = "IMPORTER"
    DAG = "DAG"
    LOOP = "LOOP"
    ITERATION = "ITERATION"


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong: a `google.rpc` code and words for people."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """A named group of runs."""

    experiment_id: str
    namespace: str
    display_name: str
    description: str = ""
    created_at: int = 0
    storage_state: StorageState = StorageState.AVAILABLE
    last_run_created_at: int = 0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A named pipeline."""

    pipeline_id: str
    namespace: str
    name: str
    display_name: str
    description: str = ""
    created_at: int = 0
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PipelineVersion:
    """One version of a pipeline; `spec` is its content as submitted."""

    version_id: str
    pipeline_id: str
    name: str
    display_name: str
    spec: dict[str, Any]
    description: str = ""
    created_at: int = 0
    package_url: str = ""
    code_source_url: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a pipeline. `pipeline_id` is empty where the specification came with the request.

    `rerun_of` is the run whose outputs it has taken over; what it has not, it runs anew, whatever the cache has.
    """

    run_id: str
    namespace: str
    experiment_id: str
    display_name: str
    pipeline_name: str
    spec_digest: str
    parameters: dict[str, Any]
    description: str = ""
    storage_state: StorageState = StorageState.AVAILABLE
    pipeline_id: str = ""
    version_id: str = ""
    pipeline_root: str = ""
    service_account: str = ""
    creator: str = ""
    created_at: int = 0
    finished_at: int = 0
    state: RuntimeState = RuntimeState.PENDING
    problem: Problem | None = None
    plugins_input: dict[str, Any] = field(default_factory=dict)
    pipeline_context_id: int = 0
    run_context_id: int = 0
    recurring_run_id: str = ""
    scheduled_at: int = 0
    rerun_of: str = ""


@dataclass(frozen=True, slots=True)
class RecurringRun:
    """A rule that makes runs. `version_id` is empty where each run takes the pipeline's latest version, and
    `pipeline_id` where the specification came with the request.

    `last_scheduled` and `next_at` are whole seconds since the epoch.
    """

    recurring_run_id: str
    namespace: str
    experiment_id: str
    display_name: str
    parameters: dict[str, Any]
    trigger: Trigger
    description: str = ""
    pipeline_id: str = ""
    version_id: str = ""
    spec_digest: str = ""
    pipeline_root: str = ""
    service_account: str = ""
    creator: str = ""
    plugins_input: dict[str, Any] = field(default_factory=dict)
    max_concurrency: int = 1
    no_catchup: bool = False
    enabled: bool = True
    created_at: int = 0
    updated_at: int = 0
    last_scheduled: int = 0
    last_index: int = 0
    next_at: int = 0
    problem: Problem | None = None


NO_CONTENT = "-"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file or folder that a task wrote or an importer found.

    Attributes:
        artifact_id: Our own id; the metadata store has it as external id.
        name: Name of the output.
        kind: Schema title (`system.Model`).
        version: Schema version.
        uri: Absolute URI (`file:///...`).
        metadata: What the task logged.
        digest: SHA-256 of the content; empty where it is not on this machine.
        metadata_id: Id in the metadata store; 0 until it is known.
        etag: What the object store calls this content (of a folder: its record); `NO_CONTENT`: the task wrote nothing.
    """

    artifact_id: str
    name: str
    kind: str
    version: str
    uri: str
    metadata: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    metadata_id: int = 0
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Values:
    """Parameters and artifacts by name: the inputs or the outputs of a task."""

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[Artifact]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a run. `path` says where in the pipeline it is, and is its identity over restarts."""

    task_id: str
    run_id: str
    path: str
    name: str
    display_name: str
    kind: TaskKind
    parent_id: str = ""
    iteration: int = -1
    state: RuntimeState = RuntimeState.PENDING
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    inputs: Values = field(default_factory=Values)
    outputs: Values = field(default_factory=Values)
    problem: Problem | None = None
    fingerprint: str = ""
    cached_from: str = ""
    upstream: tuple[str, ...] = ()
    execution_id: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a task: a process, or a pod."""

    attempt_id: str
    task_id: str
    run_id: str
    number: int
    state: AttemptState
    owner: str
    pid: int = 0
    pid_started: float = 0.0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int | None = None
    message: str = ""
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A change of state of a run (`task_id` empty) or of a task."""

    at: int
    task_id: str
    state: RuntimeState
    problem: Problem | None = None
