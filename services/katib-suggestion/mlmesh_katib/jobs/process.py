"""Trials that are processes of this machine: batch/v1 Jobs without a cluster."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlmesh_kit.launch import Launcher, Limits, Process, ProcessSpec, sweep
from mlmesh_kit.telemetry import trace_headers

from mlmesh_katib.jobs.base import Ended, Job, JobBackend, JobSpec
from mlmesh_katib.jobs.metadata import check_metadata
from mlmesh_katib.jobs.process_command import read_command
from mlmesh_katib.jobs.resource_limits import limited


class ProcessJob(Job):
    """A process that leads its own process group."""

    def __init__(self, process: Process, work_dir: Path, log_path: Path) -> None:
        self._process = process
        self.reference = {"pid": process.pid, "started": process.started}
        self.work_dir = work_dir
        self.log_path = log_path

    async def wait(self) -> Ended:
        """See `Job.wait`."""
        ended = await self._process.wait()
        return Ended(ended.ok, "" if ended.ok else f"it {ended.describe()}", ended.lost)

    async def kill(self) -> None:
        """See `Job.kill`."""
        self._process.kill()
        await self._process.wait()


class ProcessBackend(JobBackend):
    """Starts trials as processes.

    Args:
        launcher: Starts them.
        root: Holds their folders, `EXPERIMENT_ID/TRIAL/`: `work` and `log`.
        ingress_url: What trials get as MLMESH_INGRESS.
        timeout_seconds: Longest life of a trial.
        limits: What any trial may take; a container's own limits can only be smaller.
    """

    def __init__(
        self, launcher: Launcher, root: Path, ingress_url: str, timeout_seconds: float, limits: Limits
    ) -> None:
        self._launcher = launcher
        self._root = root
        self._ingress_url = ingress_url
        self._timeout_seconds = timeout_seconds
        self._limits = limits

    def check(self, manifest: Mapping[str, Any], primary_container: str, where: str) -> None:
        """See `JobBackend.check`."""
        check_metadata(manifest, where)
        read_command(manifest, primary_container, where)

    async def start(self, spec: JobSpec) -> Job:
        """See `JobBackend.start`."""
        command = read_command(spec.manifest, spec.primary_container, "trialSpec")
        folder = self._root / str(spec.experiment_id) / spec.trial
        work = folder / "work"
        log = folder / "log"
        told = await asyncio.to_thread(_prepare, spec, work, log)
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": str(work),
            "TMPDIR": str(work),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "MLMESH_INGRESS": self._ingress_url,
            "MLMESH_EXPERIMENT": spec.experiment,
            "MLMESH_TRIAL_NAME": spec.trial,
            "KATIB_TRIAL_NAME": spec.trial,  # read by report_metrics of Katib's own client
            "MLMESH_NAMESPACE": spec.namespace,
            **{key.upper(): value for key, value in trace_headers().items()},
            **told,
            **command.environment,
        }
        process = await self._launcher.start(
            ProcessSpec(
                argv=command.words,
                cwd=work,
                env=environment,
                log_path=log,
                timeout_seconds=self._timeout_seconds,
                limits=limited(self._limits, command.limits),
                name=spec.trial,
            )
        )
        return ProcessJob(process, work, log)

    async def find(self, spec: JobSpec, reference: Mapping[str, Any]) -> Job | None:
        """Kills what is left: a process of a service that is gone cannot be followed."""
        await asyncio.to_thread(sweep, reference.get("pid"), reference.get("started"))
        return None


def _prepare(spec: JobSpec, work: Path, log: Path) -> Mapping[str, str]:
    work.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)  # of an attempt that was interrupted
    return spec.prepare(work) if spec.prepare else {}
