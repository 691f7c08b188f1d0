"""Tasks of a run by path (`for-loop-2[3]/train`), as the pipeline service names them."""

import difflib
import re
from typing import Any

from mlmesh.documents import DocumentError

_INDEX = re.compile(r"\[\d+\]")
_SHOWN = 20


def paths_of(tasks: list[dict[str, Any]]) -> dict[str, str]:
    """Gives the path of each task, by id.

    Args:
        tasks: `task_details` of a run, parents before children.
    """
    found: dict[str, str] = {}
    names: dict[str, str] = {}
    for task in tasks:
        task_id, name = str(task.get("task_id", "")), str(task.get("display_name", ""))
        parent = str(task.get("parent_task_id") or "")
        above = found.get(parent, "")
        if above and _is_iteration(name, names.get(parent, "")):
            found[task_id] = above + name[len(names[parent]) :]
        else:
            found[task_id] = f"{above}/{name}" if above else name
        names[task_id] = name
    return found


def _is_iteration(name: str, parent: str) -> bool:
    return name.startswith(f"{parent}[") and _INDEX.fullmatch(name, len(parent)) is not None


def find_tasks(tasks: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Finds the tasks that a name is meant for; one that fits several places is meant for all of them.

    Args:
        tasks: Of a run.
        name: A path or the end of one, with or without iterations, a display name, or an id.

    Raises:
        DocumentError: It fits none; the message says what there is.
    """
    paths = paths_of(tasks)
    exact = [task for task in tasks if name in {task.get("task_id"), paths[str(task.get("task_id"))]}]
    if exact:
        return exact

    def fits(task: dict[str, Any]) -> bool:
        path = paths[str(task.get("task_id"))]
        plain = _INDEX.sub("", path)
        return task.get("display_name") == name or any(one == name or one.endswith(f"/{name}") for one in (path, plain))

    found = [task for task in tasks if fits(task)]
    if not found:
        raise DocumentError(f"there is no task {name!r}{_there_are(name, paths)}")
    return found


def within(tasks: list[dict[str, Any]], chosen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives the chosen tasks, and all that is in those that are nested pipelines or loops."""
    ids = {task.get("task_id") for task in chosen}
    for task in tasks:  # parents come before children
        if task.get("parent_task_id") in ids:
            ids.add(task.get("task_id"))
    return [task for task in tasks if task.get("task_id") in ids]


def _there_are(name: str, paths: dict[str, str]) -> str:
    known = sorted({_INDEX.sub("", path) for path in paths.values()})
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"{hint}; there are: {', '.join(known[:_SHOWN]) or 'none yet'}{more}"
