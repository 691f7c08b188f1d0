"""Runs one attempt at a task: a process with KFP's executor in it."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmesh_kit.errors import Unavailable
from mlmesh_kit.launch import ExitStatus, Process, ProcessSpec, WarmLauncher

from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.engine.executor_io import BadOutput, executor_input, read_output, report_of
from mlmesh_pipeline.engine.packages import NotInstalled, PackageFolders, missing, scratch_folder
from mlmesh_pipeline.ir.commands import BadCommand, CommandLine, fill_command, shell_of
from mlmesh_pipeline.ir.lightweight import LightweightComponent
from mlmesh_pipeline.resources import Values

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Iteration)[\w.]*(?::.*)?)$")
_TAIL_BYTES = 16 << 10


class TaskFailed(Exception):
    """The attempt failed; the message says why, for people."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(Exception):
    """The attempt was lost through no fault of the task; it is made again."""


@dataclass(frozen=True, slots=True)
class Work:
    """All that an attempt needs.

    Attributes:
        run_id, task_name: Given to the task in its environment.
        component: ComponentSpec.
        code: What is run.
        inputs: Values of the inputs.
        environment: Variables of the container.
        context: Values of placeholders such as `pipeline_job_name`.
        scratch: Folder of the attempt.
        log_path: Log of the attempt.
        output_uri: URI under which output artifacts go.
        timeout_seconds: Longest life; 0: no limit.
    """

    run_id: str
    task_name: str
    component: Any
    code: LightweightComponent | CommandLine
    inputs: Values
    environment: dict[str, str]
    context: dict[str, str]
    scratch: Path
    log_path: Path
    output_uri: str
    timeout_seconds: float


class Worker:
    """Runs attempts, in processes forked from one that has KFP's executor imported already.

    Args:
        settings: Of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._base = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._base |= {"_KFP_RUNTIME": "true", "PYTHONUNBUFFERED": "1"}
        preload = [name.strip() for name in settings.preload.split(",") if name.strip()]
        self._launcher = WarmLauncher(preload, env=self._base)
        self._packages = PackageFolders(settings.root / "packages", self._launcher, allowed=settings.install_packages)

    async def __aenter__(self) -> "Worker":
        await self._launcher.warm_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._launcher.close()

    async def run(self, work: Work, started: Callable[[Process], Awaitable[None]]) -> Values:
        """Runs an attempt to its end and reads its outputs; when cancelled, ends the whole process group.

        Args:
            work: What to run.
            started: Called with the process as soon as there is one.

        Raises:
            TaskFailed: It failed.
            Interrupted: It was lost.
        """
        work.log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with scratch_folder(work.scratch):
            environment = self._environment(work)
            given = executor_input(work.component, work.inputs, work.scratch, work.output_uri)
            spec = await self._spec(work, environment, given)
            try:
                process = await self._launcher.start(spec)
            except Unavailable as error:
                raise Interrupted(error.message) from error
            with report_of(given):
                status = await self._attend(process, started)
                return await self._outputs(work, given, status)

    async def _outputs(self, work: Work, given: dict[str, Any], status: ExitStatus) -> Values:
        """Reads the outputs of an attempt that has ended.

        Raises:
            TaskFailed, Interrupted: There are none.
        """
        if status.lost:
            raise Interrupted(status.describe())
        if not status.ok:
            raise TaskFailed(_why(status, work.log_path), status.code)
        try:
            outputs = await asyncio.to_thread(read_output, work.component, given, work.scratch)
        except BadOutput as error:
            raise TaskFailed(str(error), status.code) from error
        except OSError as error:
            raise TaskFailed(f"its outputs cannot be read: {error.strerror}", status.code) from error
        if isinstance(work.code, CommandLine):
            lacking = sorted(set(given["outputs"]["parameters"]) - set(outputs.parameters))
            if lacking:
                raise TaskFailed(f"it did not write the output parameter {lacking[0]!r}", status.code)
        return outputs

    async def _attend(self, process: Process, started: Callable[[Process], Awaitable[None]]) -> ExitStatus:
        try:
            await started(process)
            return await process.wait()
        except BaseException:
            with contextlib.suppress(Exception):
                await asyncio.shield(process.terminate(self._settings.terminate_grace_seconds))
            raise

    async def _spec(self, work: Work, environment: dict[str, str], given: dict[str, Any]) -> ProcessSpec:
        if isinstance(work.code, CommandLine):
            try:
                argv = fill_command(work.code, _with_task_inputs(given, work.inputs), work.context)
            except BadCommand as error:
                raise TaskFailed(str(error)) from error
            if argv[0] == "sh":
                argv[0] = shell_of(work.code.image)
            (work.scratch / "parameters").mkdir()
        else:
            argv = await self._executor(work, work.code, environment, given)
        if any("\0" in text for text in (*argv, *environment.values())):
            raise TaskFailed("its command or a variable holds a NUL character, which no process can be given")
        return ProcessSpec(
            argv=argv,
            cwd=work.scratch,
            env=environment,
            log_path=work.log_path,
            timeout_seconds=work.timeout_seconds or None,
            name=work.task_name,
        )

    async def _executor(
        self, work: Work, code: LightweightComponent, environment: dict[str, str], given: dict[str, Any]
    ) -> list[str]:
        """Gives the command of KFP's executor; installs what the component wants, and adds it to the environment."""
        wanted = missing(code.requirements)
        if wanted:
            try:
                folder = await self._packages.ensure(code.requirements, code.pip_options, environment, work.log_path)
            except NotInstalled as error:
                raise TaskFailed(str(error)) from error
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), environment.get("PYTHONPATH")]))
        module = work.scratch / "ephemeral_component.py"
        module.write_text(code.source)
        argv = [sys.executable, *(["-P"] if wanted else []), "-m", "kfp.dsl.executor_main"]
        argv += ["--component_module_path", str(module)]
        return [*argv, "--executor_input", json.dumps(given), "--function_to_execute", code.function]

    def _environment(self, work: Work) -> dict[str, str]:
        temporary = work.scratch / "tmp"
        temporary.mkdir()
        names = [name.strip() for name in self._settings.task_environment.split(",") if name.strip()]
        return {
            **self._base,
            **{name: os.environ[name] for name in names if name in os.environ},
            "TMPDIR": str(temporary),
            **work.environment,
            "MLMESH_INGRESS": self._settings.ingress_url,
            "MLMESH_RUN_ID": work.run_id,
            "MLMESH_TASK_NAME": work.task_name,
        }


def _with_task_inputs(given: dict[str, Any], inputs: Values) -> dict[str, Any]:
    """Adds what the compiler makes of f-strings: inputs of the task that its component does not declare."""
    values = {**inputs.parameters, **given["inputs"]["parameterValues"]}
    return {**given, "inputs": {**given["inputs"], "parameterValues": values}}


def _why(status: ExitStatus, log_path: Path) -> str:
    """Says why a process failed: how it ended, and the exception that its log ends with."""
    words = status.describe()
    try:
        with log_path.open("rb") as file:
            file.seek(max(0, log_path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return words
    found = next((match[1] for line in reversed(lines) if (match := _EXCEPTION.match(line))), "")
    return f"{words}: {found[:1000]}" if found else words
