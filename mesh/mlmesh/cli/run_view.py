"""Runs, drawn."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlmesh.cli.times import local_time, seconds_between, short
from mlmesh.task_paths import paths_of

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text
    from rich.tree import Tree

Run = dict[str, Any]
Task = dict[str, Any]

FINAL = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
SHORT_ID = 8
"""So much of an id is shown where there are many; `mlmesh runs` takes it for the whole."""
_WIDE_LOOP, _WIDE_DAG = 10, 60
"""What has more iterations, or tasks, is shown as their numbers by state, with some that failed or run now."""
_SHOWN_FAILED, _SHOWN_RUNNING = 5, 3
STYLES = {
    "SUCCEEDED": "green",
    "CACHED": "cyan",
    "SKIPPED": "dim",
    "RUNNING": "yellow",
    "FAILED": "bold red",
    "CANCELING": "magenta",
    "CANCELED": "magenta",
}


def tasks_of(run: Run) -> list[Task]:
    """Gives the tasks of a run, parents before children."""
    details: list[Task] = run.get("run_details", {}).get("task_details", [])
    return [task for task in details if task.get("display_name") != "root"]


def state_of(task: Task) -> str:
    """Gives the state of a task or a run; CACHED for a task that was answered from the cache."""
    state = str(task.get("state", "PENDING"))
    from_cache = task.get("executor_detail", {}).get("pre_caching_check_job")
    return "CACHED" if state == "SKIPPED" and from_cache else state


def artifacts_of(task: Task) -> list[str]:
    """Names each artifact that a task made; with its id (`model #3`) once the metadata service has told it."""
    found = []
    for name, outputs in sorted(task.get("outputs", {}).items()):
        numbers = outputs.get("artifact_ids", [])
        found += [f"{name} #{number}" for number in numbers] or [name]
    return found


def attempts_of(task: Task) -> list[int]:
    """Gives the numbers of the attempts at a task, in order."""
    detail = task.get("executor_detail", {})
    jobs = [*detail.get("failed_main_jobs", []), *([detail["main_job"]] if detail.get("main_job") else [])]
    return sorted(int(number) for job in jobs if (number := str(job).rpartition("/")[2]).isdecimal())


def failures_of(run: Run) -> list[Task]:
    """Gives the tasks that failed of themselves, and not because one in them or before them did."""
    failed = [task for task in tasks_of(run) if state_of(task) == "FAILED"]
    around = {task.get("parent_task_id") for task in failed}
    return [task for task in failed if task.get("task_id") not in around]


def run_tree(run: Run, *, fold: bool = True) -> "Tree":
    """Draws a run: its tasks, those of a nested pipeline or a loop below it.

    Args:
        run: As RunService gives it.
        fold: Show of wide loops and pipelines only how many there are of each state, and some that failed or run now.
    """
    from rich.text import Text
    from rich.tree import Tree

    state = state_of(run)
    took = short(seconds_between(run.get("created_at"), run.get("finished_at")))
    root = Tree(
        Text.assemble(
            (str(run.get("display_name", "")), "bold"),
            "  ",
            (state, STYLES.get(state, "")),
            f"  {took}",
            (f"  {run.get('run_id', '')}", "dim"),
        )
    )
    tasks = tasks_of(run)
    children: dict[str, list[Task]] = {}
    for task in tasks:
        children.setdefault(str(task.get("parent_task_id") or ""), []).append(task)
    width = max((len(str(task.get("display_name", ""))) for task in tasks), default=0)

    def grow(branch: "Tree", task_id: str) -> None:
        below = children.get(task_id, [])
        shown, more = below, 0
        if fold and len(below) > (_WIDE_LOOP if _are_iterations(below) else _WIDE_DAG):
            branch.add(_counts(below))
            failed = [one for one in below if state_of(one) == "FAILED"]
            running = [one for one in below if state_of(one) == "RUNNING"]
            shown, more = failed[:_SHOWN_FAILED] + running[:_SHOWN_RUNNING], len(failed) - _SHOWN_FAILED
        for one in shown:
            grow(branch.add(_label(one, width)), str(one.get("task_id")))
        if more > 0:
            branch.add(Text(f"… and {more} more that failed", "red"))

    grow(root, "")
    return root


def _are_iterations(tasks: Sequence[Task]) -> bool:
    return bool(tasks) and str(tasks[0].get("display_name", "")).endswith("[0]")


def _counts(tasks: Sequence[Task]) -> "Text":
    from rich.text import Text

    counted = Counter(map(state_of, tasks))
    parts: list[Any] = [f"{len(tasks)} {'iterations' if _are_iterations(tasks) else 'tasks'}: "]
    for place, (state, count) in enumerate(sorted(counted.items())):
        parts += ["" if place == 0 else ", ", (f"{count} {state}", STYLES.get(state, ""))]
    return Text.assemble(*parts)


def _label(task: Task, width: int) -> "Text":
    from rich.text import Text

    state = state_of(task)
    took = short(seconds_between(task.get("start_time"), task.get("end_time"))) if state != "PENDING" else ""
    made = "  ".join(artifacts_of(task))
    error = task.get("error", {}).get("message", "").strip().splitlines()
    attempts = attempts_of(task)
    return Text.assemble(
        (str(task.get("display_name", "")).ljust(width), "bold"),
        "  ",
        (f"{state:<9}", STYLES.get(state, "")),
        f"  {took:>8}",
        (f"  attempt {attempts[-1]}", "magenta") if attempts and attempts[-1] > 1 else "",
        (f"  → {made}", "dim") if made else "",
        (f"  {error[0]}", "red" if state == "FAILED" else "dim") if error else "",
    )


def run_lines(run: Run) -> Iterator[str]:
    """Says what is true of a run, a line for each task."""
    tasks = tasks_of(run)
    paths = paths_of(tasks)
    for task in tasks:
        state, attempts = state_of(task), attempts_of(task)
        if state != "PENDING":
            again = f" (attempt {attempts[-1]})" if attempts and attempts[-1] > 1 else ""
            yield f"{paths[str(task.get('task_id'))]} {state}{again}"
    if state_of(run) in FINAL:
        yield f"run {run.get('run_id')} {state_of(run)}"


def run_table(runs: Sequence[Run]) -> "Table":
    """Draws a list of runs."""
    from rich.table import Table
    from rich.text import Text

    table = Table("run", "name", "state", "created", "took", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for run in runs:
        state = state_of(run)
        table.add_row(
            str(run.get("run_id"))[:SHORT_ID],
            str(run.get("display_name", "")),
            Text(state, STYLES.get(state, "")),
            local_time(run.get("created_at")),
            short(seconds_between(run.get("created_at"), run.get("finished_at"))),
        )
    return table
