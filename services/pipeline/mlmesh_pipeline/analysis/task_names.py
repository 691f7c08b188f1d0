"""How people name a task of a run: by path, by the end of its path, by display name, by id."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

from mlmesh_kit.errors import InvalidArgument, NotFound

from mlmesh_pipeline.ir.places import without_indices
from mlmesh_pipeline.resources import Task

_SHOWN = 20
_LONGEST = 300
_MOST_COMPARED = 1000


def titles_of(tasks: Sequence[Task]) -> dict[str, str]:
    """Gives the path of each task, by id, made of the names that are shown.

    Args:
        tasks: Of a run, parents before children.
    """
    found: dict[str, str] = {}
    for task in tasks:
        above = found.get(task.parent_id, "")
        if task.path.endswith("]"):  # an iteration stands for the loop that it is in
            found[task.task_id] = above + task.path[task.path.rindex("[") :]
        else:
            found[task.task_id] = f"{above}/{task.display_name}" if above else task.display_name
    return found


def find_task(tasks: Sequence[Task], name: str, field: str) -> Task:
    """Finds the task that a name is meant for.

    Args:
        tasks: Of the run, parents before children.
        name: As the user gave it.
        field: Of the request.

    Raises:
        InvalidArgument: No name was given, or it fits several.
        NotFound: It fits none; the message says what there is.
    """
    if not name:
        raise InvalidArgument("is required: the path, display name or id of a task", field=field)
    titles = titles_of(tasks)
    for exact in ({task.task_id: task for task in tasks}, {task.path: task for task in tasks}):
        if name in exact:
            return exact[name]
    found = [task for task in tasks if titles[task.task_id] == name] or [
        task
        for task in tasks
        if task.display_name == name or task.path.endswith(f"/{name}") or titles[task.task_id].endswith(f"/{name}")
    ]
    if not found:
        raise NotFound(message=f"the run has no task {_short(name)}{_there_are(name, [task.path for task in tasks])}")
    if len(found) > 1:
        paths = _listed([task.path for task in found])
        raise InvalidArgument(f"{name!r} fits several tasks, give the path of one: {paths}", field=field)
    return found[0]


class TaskPaths:
    """The paths of a pipeline's tasks, to be found by what users call them.

    Args:
        tasks: Of the earlier run, parents before children.
        static: Paths that the pipeline has, without iterations, and each of them made of the names that are shown.
    """

    def __init__(self, tasks: Sequence[Task], static: Mapping[str, str]) -> None:
        titles = titles_of(tasks)
        there = [task for task in tasks if without_indices(task.path) in static]
        self._static = static
        self._ids = {task.task_id: task.path for task in there}
        self._known = {*static, *self._ids.values()}
        self._whole: dict[str, set[str]] = {}
        self._ends: dict[str, set[str]] = {}
        aliases = [(path, path) for path in self._known] + [(title, path) for path, title in static.items()]
        for alias, path in aliases + [(titles[task.task_id], task.path) for task in there]:
            self._whole.setdefault(alias, set()).add(path)
            parts = alias.split("/")
            for start in range(1, len(parts)):
                self._ends.setdefault("/".join(parts[start:]), set()).add(path)

    def find(self, name: str, field: str) -> str:
        """Finds the path that a name is meant for; without iterations it is meant for all of them.

        Args:
            name: As the user gave it.
            field: Of the request.

        Raises:
            InvalidArgument: No name was given, or it fits tasks in several places.
            NotFound: It fits none.
        """
        if not name:
            raise InvalidArgument("must be the path, display name or id of a task", field=field)
        path = self._ids.get(name, name)
        if path in self._known:
            return path
        found = self._whole.get(name) or self._ends.get(name)
        if not found:
            raise NotFound(message=f"the pipeline has no task {_short(name)}{_there_are(name, self._static)}")
        places = {without_indices(one) for one in found}
        if len(places) > 1:
            raise InvalidArgument(f"{name!r} fits several tasks, give the path of one: {_listed(places)}", field=field)
        return next(iter(found)) if len(found) == 1 else places.pop()


def _short(name: str) -> str:
    return repr(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}...")


def _there_are(name: str, paths: Iterable[str]) -> str:
    known = sorted({without_indices(path) for path in paths} if "[" not in name else set(paths))
    near: list[str] = []
    if len(name) <= _LONGEST and len(known) <= _MOST_COMPARED:
        near = difflib.get_close_matches(name, [*known, *(path.rpartition("/")[2] for path in known)], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} (there are: {_listed(known)})" if known else "; none has begun"


def _listed(paths: Iterable[str]) -> str:
    known = sorted(paths)
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return ", ".join(known[:_SHOWN]) + more
