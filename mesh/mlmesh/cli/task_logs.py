"""Logs of the tasks of a run: of one, or of all with the task before each line."""

import json
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from mlmesh.cli.finding_runs import read_run, run_path, task_name
from mlmesh.cli.output import console, emit

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

_POLL_SECONDS = 0.3
_STREAMS = 64
"""So many logs are followed at a time."""
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a task: what has a log."""

    task_id: str
    path: str
    number: int


class LinePrinter:
    """Prints lines of many logs, each whole.

    Args:
        prefixed: Put the task before each line.
        as_json: A JSON object for each line instead.
    """

    def __init__(self, *, prefixed: bool, as_json: bool) -> None:
        self._prefixed = prefixed
        self._as_json = as_json
        self._lock = threading.Lock()
        self._console = console()
        self._colours: dict[str, str] = {}

    def __call__(self, attempt: Attempt, line: str) -> None:
        """Prints a line of an attempt's log."""
        with self._lock:
            if self._as_json:
                sys.stdout.write(json.dumps({"task": attempt.path, "attempt": attempt.number, "line": line}) + "\n")
            elif self._prefixed:
                from rich.text import Text

                colour = self._colours.setdefault(attempt.path, _COLOURS[len(self._colours) % len(_COLOURS)])
                self._console.print(Text.assemble((f"{attempt.path} | ", colour), line), soft_wrap=True)
            else:
                sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


def print_logs(
    mesh: "Ingress", run_id: str, name: str = "", *, number: int = 0, follow: bool = False, as_json: bool = False
) -> None:
    """Prints logs of a run.

    Args:
        mesh: Where it is.
        run_id: Its id.
        name: A task, or a nested pipeline or loop; "": the whole run.
        number: Which attempt; 0: the latest, and when following, all that come.
        follow: Go on until what was named has ended.
        as_json: Print JSON: one object for all; when following, one for each line.

    Raises:
        DocumentError: There is no such task or attempt.
        typer.Exit: With 130, the user interrupted; the run goes on.
    """
    name = task_name(mesh, read_run(mesh, run_id, as_json), name) if name else ""
    try:
        if follow:
            _follow(mesh, run_id, name, number, as_json)
        else:
            _print(mesh, run_id, name, number, as_json)
    except KeyboardInterrupt:
        if follow:
            again = f"mlmesh logs {run_id} {shlex.quote(name)} -f" if name else f"mlmesh logs {run_id} -f"
            sys.stderr.write(f"\nmlmesh: the run goes on; come back with: {again}\n")
        raise typer.Exit(130) from None


def _print(mesh: "Ingress", run_id: str, name: str, number: int, as_json: bool) -> None:
    run = read_run(mesh, run_id, as_json)
    attempts = _latest(_attempts(run, name), number)
    if not attempts:
        _refuse_attempt(run, name, number)
    printer = LinePrinter(prefixed=not _is_single(run, name), as_json=False)
    found = []
    for attempt in attempts:
        lines = _lines(mesh, run_id, attempt, follow=False)
        if as_json:
            one = {"task": attempt.path, "task_id": attempt.task_id, "attempt": attempt.number, "log": list(lines)}
            found.append(one)
            continue
        for line in lines:
            printer(attempt, line)
    if as_json:
        emit({"run_id": run_id, "tasks": found})


def _follow(mesh: "Ingress", run_id: str, name: str, number: int, as_json: bool) -> None:
    from mlmesh.cli.watching import PATIENCE_SECONDS

    streams: _Streams | None = None
    while True:
        run = read_run(mesh, run_id, as_json, PATIENCE_SECONDS)
        known = not name or _is_known(run, name)
        ended = _has_ended(run, name if known else "")
        if known:
            printer = LinePrinter(prefixed=not _is_single(run, name), as_json=as_json)
            streams = streams or _Streams(mesh, run_id, printer)
            streams.add(one for one in _attempts(run, name) if number in {0, one.number})
        if ended:
            if streams is None or not streams.join():
                _refuse_attempt(run, name, number)
            if not name:
                sys.stderr.write(f"mlmesh: run {run_id} {run.get('state')}\n")
            return
        time.sleep(_POLL_SECONDS)


class _Streams:
    """Follows logs, each in a thread of its own. They are daemons: a stream that is silent ends with the command.

    Args:
        mesh: Where they are.
        run_id: Of the run.
        show: Prints a line.
    """

    def __init__(self, mesh: "Ingress", run_id: str, show: Callable[[Attempt, str], None]) -> None:
        self._mesh = mesh
        self._run_id = run_id
        self._show = show
        self._slots = threading.Semaphore(_STREAMS)
        self._threads: dict[Attempt, threading.Thread] = {}
        self._errors: list[Exception] = []

    def add(self, attempts: Iterable[Attempt]) -> None:
        """Follows those that are not followed yet; raises what went wrong with one that was."""
        for attempt in attempts:
            if attempt not in self._threads:
                thread = threading.Thread(target=self._follow, args=(attempt,), daemon=True)
                self._threads[attempt] = thread
                thread.start()
        self._check()

    def join(self) -> bool:
        """Waits for the end of all; tells whether there were any."""
        for thread in self._threads.values():
            thread.join()
        self._check()
        return bool(self._threads)

    def _check(self) -> None:
        if self._errors:
            raise self._errors[0]

    def _follow(self, attempt: Attempt) -> None:
        with self._slots:
            try:
                _stream(self._mesh, self._run_id, attempt, self._show)
            except Exception as error:  # raised again where the command can tell it
                self._errors.append(error)


def _stream(mesh: "Ingress", run_id: str, attempt: Attempt, show: Callable[[Attempt, str], None]) -> None:
    """Shows a log to its end; takes it up again where it was when the service restarts meanwhile."""
    from mlmesh.cli.client import IngressError
    from mlmesh.cli.watching import PATIENCE_SECONDS

    shown = 0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            for place, line in enumerate(_lines(mesh, run_id, attempt, follow=True)):
                if place >= shown:
                    show(attempt, line)
                    shown += 1
                deadline = time.monotonic() + PATIENCE_SECONDS
            return
        except IngressError as error:
            if error.status not in {0, 502, 503, 504} or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _lines(mesh: "Ingress", run_id: str, attempt: Attempt, *, follow: bool) -> Iterator[str]:
    query = {"attempt": str(attempt.number), **({"follow": "true"} if follow else {})}
    return mesh.lines(f"{run_path(run_id)}/tasks/{attempt.task_id}/log", **query)


def _chosen(run: dict[str, Any], name: str) -> list[dict[str, Any]]:
    from mlmesh.cli.run_view import tasks_of
    from mlmesh.task_paths import find_tasks, within

    tasks = tasks_of(run)
    return within(tasks, find_tasks(tasks, name)) if name else tasks


def _is_known(run: dict[str, Any], name: str) -> bool:
    """Tells whether the run has what was named; it may come yet, unless the run has ended."""
    from mlmesh.cli.run_view import FINAL, state_of
    from mlmesh.documents import DocumentError

    try:
        return bool(_chosen(run, name))
    except DocumentError:
        if state_of(run) in FINAL:
            raise
        return False


def _is_single(run: dict[str, Any], name: str) -> bool:
    return bool(name) and len(_chosen(run, name)) == 1


def _attempts(run: dict[str, Any], name: str) -> list[Attempt]:
    from mlmesh.cli.run_view import attempts_of, tasks_of
    from mlmesh.task_paths import paths_of

    paths = paths_of(tasks_of(run))
    chosen = sorted(_chosen(run, name), key=lambda task: str(task.get("start_time") or ""))
    return [
        Attempt(str(task["task_id"]), paths[str(task["task_id"])], number)
        for task in chosen
        for number in attempts_of(task)
    ]


def _latest(attempts: list[Attempt], number: int) -> list[Attempt]:
    """Gives the attempt of this number of each task, or the latest."""
    if number:
        return [attempt for attempt in attempts if attempt.number == number]
    return list({attempt.task_id: attempt for attempt in attempts}.values())


def _has_ended(run: dict[str, Any], name: str) -> bool:
    """Tells whether nothing more is written; what was named may also end before its run does."""
    from mlmesh.cli.run_view import FINAL, state_of

    if state_of(run) in FINAL:
        return True
    return bool(name) and all(str(task.get("state")) in FINAL for task in _chosen(run, name))


def _refuse_attempt(run: dict[str, Any], name: str, number: int) -> None:
    """Says why there is no log."""
    from mlmesh.cli.run_view import state_of
    from mlmesh.documents import DocumentError

    what = f"task {name}" if name else f"run {run.get('run_id')}"
    attempts = _attempts(run, name)
    if number and attempts:
        numbers = ", ".join(str(one) for one in sorted({attempt.number for attempt in attempts}))
        raise DocumentError(f"{what} has no attempt {number}; there are: {numbers}")
    states = {state_of(task) for task in _chosen(run, name)}
    why = "answered from the cache" if states == {"CACHED"} else (", ".join(sorted(states)) or state_of(run))
    raise DocumentError(f"{what} has no log: no process of it has run ({why})")
