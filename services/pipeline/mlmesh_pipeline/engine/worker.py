"""Runs one attempt at a task: a process with KFP's executor in it."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlmesh_kit.errors import Unavailable
from mlmesh_kit.launch import ExecLauncher, ExitStatus, Launcher, Limits, Process, ProcessSpec, WarmLauncher

from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.engine.executor_io import BadOutput, executor_input, read_output, report_of
from mlmesh_pipeline.engine.packages import NotInstalled, PackageLimits, Packages, activate, missing
from mlmesh_pipeline.engine.paths import file_path
from mlmesh_pipeline.engine.scratch import scratch_folder
from mlmesh_pipeline.engine.staging import NotStaged, Staged, Staging
from mlmesh_pipeline.engine.steps import with_task_inputs
from mlmesh_pipeline.engine.task_limits import (
    disk_limit,
    limits_of,
    memory_of_all,
    thread_variables,
    used_bytes,
    wait_for_excess,
)
from mlmesh_pipeline.ir.commands import BadCommand, CommandLine, fill_command, shell_of
from mlmesh_pipeline.ir.container_resources import Resources
from mlmesh_pipeline.ir.lightweight import LightweightComponent
from mlmesh_pipeline.resources import Values

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
_EXCEPTION = re.compile(r"^[A-Za-z_]([\w.]*)(:.*)?$")
_EXCEPTIONS = ("Error", "Exception", "Exit", "Interrupt", "Warning", "Iteration")
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
        resources: What the component asks for and may take.
        mark: By which its processes are found when the service that started them has died.
        number: Of the attempt, from 1.
        alone: Whether it gets a launcher of its own: one that died with it too often is not to take others along.
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
    resources: Resources
    mark: str
    number: int = 1
    alone: bool = False


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
        self._launcher = WarmLauncher(preload, env=self._base, total_memory_bytes=memory_of_all(settings))
        limits = PackageLimits(settings.packages_max_age_days * 86400, settings.packages_max_bytes)
        root = settings.root / "packages"
        self._packages = Packages(root, self._launcher, allowed=settings.install_packages, limits=limits)
        self._cleaning: asyncio.Task[None] | None = None
        self.staging = Staging(settings)
        self._running = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Worker":
        await self._running.enter_async_context(self.staging.running())
        await self._launcher.warm_up()
        self._cleaning = asyncio.create_task(self._packages.keep_clean(), name="packages")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._cleaning is not None:
            self._cleaning.cancel()
        await self._running.aclose()
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
        if work.alone:
            async with ExecLauncher() as launcher:
                return await self._run(work, started, launcher)
        return await self._run(work, started, self._launcher)

    async def _run(self, work: Work, started: Callable[[Process], Awaitable[None]], launcher: Launcher) -> Values:
        work.log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(scratch_folder(work.scratch))
            environment = self._environment(work)
            try:
                staged = await self.staging.fetch(work)
            except NotStaged as error:
                raise TaskFailed(str(error)) from error
            fetched = await asyncio.to_thread(used_bytes, [work.scratch]) if staged.origins else 0
            given = executor_input(work.component, staged.inputs, work.scratch, staged.output_uri)
            spec = await self._spec(work, environment, given, stack)
            try:
                process = await launcher.start(spec)
            except Unavailable as error:
                raise Interrupted(error.message) from error
            with report_of(given):
                status = await self._attend(process, started, work, fetched)
                return await self._outputs(work, given, staged, status)

    async def _outputs(self, work: Work, given: dict[str, Any], staged: Staged, status: ExitStatus) -> Values:
        """Reads the outputs of an attempt that has ended, and stores them.

        Raises:
            TaskFailed, Interrupted: There are none.
        """
        if status.lost:
            raise Interrupted(status.describe())
        if not status.ok:
            raise TaskFailed(_why(status, work.log_path) + staged.hint, status.code)
        try:
            outputs = await asyncio.to_thread(read_output, work.component, given, work.scratch, staged.digest)
        except BadOutput as error:
            raise TaskFailed(str(error), status.code) from error
        except RecursionError as error:
            raise TaskFailed("its outputs are nested too deep", status.code) from error
        except OSError as error:
            raise TaskFailed(f"its outputs cannot be read: {error.strerror}", status.code) from error
        if isinstance(work.code, CommandLine):
            lacking = sorted(set(given["outputs"]["parameters"]) - set(outputs.parameters))
            if lacking:
                raise TaskFailed(f"it did not write the output parameter {lacking[0]!r}", status.code)
        try:
            return await self.staging.store(work, staged, outputs)
        except NotStaged as error:
            raise TaskFailed(str(error), status.code) from error

    async def _attend(
        self, process: Process, started: Callable[[Process], Awaitable[None]], work: Work, fetched: int
    ) -> ExitStatus:
        folders = [folder for folder in (work.scratch, file_path(work.output_uri)) if folder is not None]
        excess = asyncio.create_task(wait_for_excess(folders, process.spec.limits.file_bytes, fetched))
        excess.add_done_callback(lambda task: None if task.cancelled() or task.exception() else process.kill())
        try:
            await started(process)
            status = await process.wait()
            wrote = excess.result() if excess.done() and not excess.exception() else ""
            return replace(status, exceeded=status.exceeded or wrote)
        except BaseException:
            with contextlib.suppress(Exception):
                await asyncio.shield(process.terminate(self._settings.terminate_grace_seconds))
            raise
        finally:
            excess.cancel()

    async def _spec(
        self, work: Work, environment: dict[str, str], given: dict[str, Any], stack: contextlib.AsyncExitStack
    ) -> ProcessSpec:
        limits = limits_of(self._settings, work.resources, disk_limit(self._settings, work.scratch))
        if isinstance(work.code, CommandLine):
            try:
                argv = fill_command(work.code, with_task_inputs(given, work.inputs), work.context)
            except BadCommand as error:
                raise TaskFailed(str(error)) from error
            if argv[0] == "sh":
                argv[0] = shell_of(work.code.image)
            (work.scratch / "parameters").mkdir()
        else:
            installing = self._installed(work, work.code, environment, limits)
            argv = self._executor(work, work.code, await stack.enter_async_context(installing), given)
        if any("\0" in text for text in (*argv, *environment.values())):
            raise TaskFailed("its command or a variable holds a NUL character, which no process can be given")
        return ProcessSpec(
            argv=argv,
            cwd=work.scratch,
            env=environment,
            log_path=work.log_path,
            timeout_seconds=work.timeout_seconds or None,
            limits=limits,
            mark=work.mark,
            name=work.task_name,
        )

    @contextlib.asynccontextmanager
    async def _installed(
        self, work: Work, code: LightweightComponent, environment: dict[str, str], limits: Limits
    ) -> AsyncIterator[list[str]]:
        """Gives the interpreter that has what a component wants, and holds it; sets its variables."""
        if not missing(code.requirements):
            yield [sys.executable]
            return
        async with contextlib.AsyncExitStack() as stack:
            wanted = self._packages.installed(code.requirements, code.pip_options, environment, work.log_path, limits)
            try:
                folder = await stack.enter_async_context(wanted)
            except NotInstalled as error:
                raise TaskFailed(str(error)) from error
            yield [activate(folder, environment), "-P"]

    def _executor(
        self, work: Work, code: LightweightComponent, interpreter: list[str], given: dict[str, Any]
    ) -> list[str]:
        """Gives the command of KFP's executor."""
        module = work.scratch / "ephemeral_component.py"
        module.write_text(code.source)
        argv = [*interpreter, "-m", "kfp.dsl.executor_main", "--component_module_path", str(module)]
        return [*argv, "--executor_input", json.dumps(given), "--function_to_execute", code.function]

    def _environment(self, work: Work) -> dict[str, str]:
        temporary = work.scratch / "tmp"
        temporary.mkdir()
        names = [name.strip() for name in self._settings.task_environment.split(",") if name.strip()]
        return {
            **self._base,
            **{name: os.environ[name] for name in names if name in os.environ},
            "TMPDIR": str(temporary),
            **thread_variables(work.resources),
            **work.environment,
            "MLMESH_INGRESS": self._settings.ingress_url,
            "MLMESH_RUN_ID": work.run_id,
            "MLMESH_TASK_NAME": work.task_name,
        }


def _why(status: ExitStatus, log_path: Path) -> str:
    """Says why a process failed: how it ended, and the exception that its log ends with."""
    words = status.describe()
    if status.exceeded:
        return words
    try:
        with log_path.open("rb") as file:
            file.seek(max(0, log_path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return words
    found = last_exception(lines)
    return f"{words}: {found}" if found else words


def last_exception(lines: list[str]) -> str:
    """Gives the exception that a log ends with; nothing if it does not."""
    for line in reversed(lines):
        match = _EXCEPTION.match(line)
        if match and any(word in match[1] for word in _EXCEPTIONS):
            return line[:1000]
    return ""
