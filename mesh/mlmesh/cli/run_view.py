"""Runs, drawn."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlmesh.cli.times import local_time, seconds_between, short

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text
    from rich.tree import Tree

Run = dict[str, Any]
Task = dict[str, Any]

FINAL = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
SHORT_ID = 8
"""So much of an id is shown where there are many; `mlmesh runs` takes it for the whole."""
_STYLES = {
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


def run_tree(run: Run) -> "Tree":
    """Draws a run: its tasks, those of a nested pipeline or a loop below it."""
    from rich.text import Text
    from rich.tree import Tree

    state = state_of(run)
    took = short(seconds_between(run.get("created_at"), run.get("finished_at")))
    root = Tree(
        Text.assemble(
            (str(run.get("display_name", "")), "bold"),
            "  ",
            (state, _STYLES.get(state, "")),
            f"  {took}",
            (f"  {run.get('run_id', '')}", "dim"),
        )
    )
    branches: dict[str, Tree] = {}
    tasks = tasks_of(run)
    width = max((len(str(task.get("display_name", ""))) for task in tasks), default=0)
    for task in tasks:
        parent = branches.get(str(task.get("parent_task_id", "")), root)
        branches[str(task.get("task_id"))] = parent.add(_label(task, width))
    return root


def _label(task: Task, width: int) -> "Text":
    from rich.text import Text

    state = state_of(task)
    took = short(seconds_between(task.get("start_time"), task.get("end_time"))) if state != "PENDING" else ""
    made = "  ".join(artifacts_of(task))
    error = task.get("error", {}).get("message", "").strip().splitlines()
    return Text.assemble(
        (str(task.get("display_name", "")).ljust(width), "bold"),
        "  ",
        (f"{state:<9}", _STYLES.get(state, "")),
        f"  {took:>8}",
        (f"  → {made}", "dim") if made else "",
        (f"  {error[0]}", "red" if state == "FAILED" else "dim") if error else "",
    )


def run_lines(run: Run) -> Iterator[str]:
    """Says what is true of a run, a line for each task."""
    for task in tasks_of(run):
        state = state_of(task)
        if state != "PENDING":
            yield f"{task.get('display_name')} {state}"
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
            Text(state, _STYLES.get(state, "")),
            local_time(run.get("created_at")),
            short(seconds_between(run.get("created_at"), run.get("finished_at"))),
        )
    return table
