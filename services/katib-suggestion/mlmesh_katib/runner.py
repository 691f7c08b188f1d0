"""Runs one trial as a local process and reads its metrics."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from mlmesh_kit.launch import Launcher, Process, ProcessSpec
from mlmesh_kit.telemetry import trace_headers

from mlmesh_katib.collector import collect
from mlmesh_katib.config import Settings
from mlmesh_katib.experiment import Experiment, Trial
from mlmesh_katib.manifest import ExperimentSpec
from mlmesh_katib.store import MetricLog
from mlmesh_katib.template import render


class TrialRunner:
    """Starts trials.

    Args:
        launcher: Starts their processes.
        settings: Of the service.
    """

    def __init__(self, launcher: Launcher, settings: Settings) -> None:
        self._launcher = launcher
        self._settings = settings
        self._root = settings.service_dir / "trials"

    def folder(self, experiment: Experiment, trial_name: str) -> Path:
        """Gives the folder of a trial: its working directory `work` and its log."""
        return self._root / str(experiment.id) / trial_name

    def log_path(self, experiment: Experiment, trial_name: str) -> Path:
        """Gives the file with what a trial printed."""
        return self.folder(experiment, trial_name) / "log"

    async def start(self, experiment: Experiment, spec: ExperimentSpec, trial: Trial) -> Process:
        """Starts a trial's process.

        Raises:
            Unavailable: The system refused.
        """
        folder = self.folder(experiment, trial.name)
        work = folder / "work"
        work.mkdir(parents=True, exist_ok=True)
        log = folder / "log"
        log.unlink(missing_ok=True)  # of an attempt that was interrupted
        command, variables = render(spec.template, trial.assignments, trial.name, experiment.namespace)
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": str(work),
            "TMPDIR": str(work),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "MLMESH_INGRESS": self._settings.ingress_url,
            "MLMESH_EXPERIMENT": experiment.name,
            "MLMESH_TRIAL_NAME": trial.name,
            "MLMESH_NAMESPACE": experiment.namespace,
            **{key.upper(): value for key, value in trace_headers().items()},
            **variables,
        }
        return await self._launcher.start(
            ProcessSpec(
                argv=command,
                cwd=work,
                env=environment,
                log_path=log,
                timeout_seconds=self._settings.trial_timeout_seconds,
                name=trial.name,
            )
        )

    def collect(self, experiment: Experiment, spec: ExperimentSpec, trial: Trial) -> list[MetricLog]:
        """Reads the metrics that a trial printed. Blocks.

        Raises:
            CollectionTimeout: The experiment's expressions take too long on it.
        """
        log = self.log_path(experiment, trial.name)
        found = collect(log, spec.objective.metrics, spec.filters, self._settings.collect_timeout_seconds)
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return [MetricLog(at, name, value) for name, value in found]
