"""The interface of what runs a trial."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A trial to be run.

    Attributes:
        experiment_id: Of the experiment in the database.
        namespace: Of the experiment.
        experiment: Its name.
        trial: Name of the trial.
        manifest: The trial's `trialSpec`, every placeholder filled in.
        primary_container: Name of the container whose command or log counts; empty: the first.
        success_condition: Katib's, a GJSON path over the resource; empty: by the kind of the resource.
        failure_condition: The same.
        retain: Whether the resource is kept after its end.
        labels: Of the trial.
        primary_pod_labels: Katib's: which of its pods has the container whose log counts; None or empty: by the kind of
            the resource.
        prepare: Makes what the trial's metrics are written to in its working directory, where that is on this machine,
            and gives the variables that tell the trial of it.
    """

    experiment_id: int
    namespace: str
    experiment: str
    trial: str
    manifest: Mapping[str, Any]
    primary_container: str = ""
    success_condition: str = ""
    failure_condition: str = ""
    retain: bool = False
    labels: Mapping[str, str] | None = None
    primary_pod_labels: Mapping[str, str] | None = None
    prepare: Callable[[Path], Mapping[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended.

    Attributes:
        ok: It succeeded.
        message: What happened, for people.
        lost: It was not the trial that ended but what held it: the trial has to run again.
    """

    ok: bool
    message: str = ""
    lost: bool = False


class Job(ABC):
    """A trial that was started.

    Attributes:
        reference: What finds it again after a crash of the service: a few plain values, kept with the trial.
        work_dir: Its working directory, where that is on this machine; None elsewhere.
        log_path: What it prints, as a file of this machine that grows; None: see `log`.
        reports_metrics: Whether it knows its metrics itself (`reports`), so that no collector reads its log.
    """

    reference: Mapping[str, Any]
    work_dir: Path | None = None
    log_path: Path | None = None
    reports_metrics: bool = False

    @abstractmethod
    async def wait(self) -> Ended:
        """Waits for its end. May be called once; being cancelled leaves the job alone."""

    @abstractmethod
    async def kill(self) -> None:
        """Ends it, with all that it started, and returns when nothing of it runs any more. It may have ended."""

    def log(self) -> AsyncIterator[bytes]:
        """Gives what it prints as it comes, to its end, where there is no `log_path`."""
        raise NotImplementedError

    async def reports(self) -> Sequence[tuple[str, str]]:
        """Gives the metrics, name and value, that it has reported and that were not given before.

        Called now and then while it runs, and once more after `wait`; only where `reports_metrics`.
        """
        return ()


class JobBackend(ABC):
    """Starts the trials of some kinds of resource."""

    @abstractmethod
    def check(self, manifest: Mapping[str, Any], primary_container: str, where: str) -> None:
        """Checks a `trialSpec` when an experiment is made; its placeholders are not filled in yet.

        Args:
            manifest: The `trialSpec`.
            primary_container: As in the template; empty: none given.
            where: Path of the `trialSpec`, for errors.

        Raises:
            InvalidArgument: A field is missing or wrong.
            FailedPrecondition: It asks for what this backend has not.
        """

    @abstractmethod
    async def start(self, spec: JobSpec) -> Job:
        """Starts a trial. Starting again what runs already (by its name) gives the job that runs.

        Raises:
            Unavailable: It cannot be started now.
        """

    @abstractmethod
    async def find(self, spec: JobSpec, reference: Mapping[str, Any]) -> Job | None:
        """Gives a job that was started before the service was; None if it cannot be followed any more.

        A backend that gives None has cleared away what was left of it, so that the trial can run again.
        """

    async def cleanup(self, spec: JobSpec, reference: Mapping[str, Any]) -> None:  # noqa: B027  # most leave nothing
        """Removes what is left of a trial that has ended, unless it is to be kept."""
