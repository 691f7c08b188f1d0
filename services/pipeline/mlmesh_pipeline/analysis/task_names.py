"""How people name a task of a run: by path, by the end of its path, by display name, by id."""

import difflib
from collections.abc import Iterable, Sequence

from mlmesh_kit.errors import InvalidArgument, NotFound

from mlmesh_pipeline.ir.places import without_indices
from mlmesh_pipeline.resources import Task

_SHOWN = 20
_LONGEST = 300
_MOST_COMPARED = 1000


def find_task(tasks: Sequence[Task], name: str, field: str) -> Task:
    """Finds the task that a name is meant for.

    Args:
        tasks: Of the run.
        name: As the user gave it.
        field: Of the request.

    Raises:
        InvalidArgument: No name was given, or it fits several.
        NotFound: It fits none; the message says what there is.
    """
    if not name:
        raise InvalidArgument("is required: the path, display name or id of a task", field=field)
    for exact in ({task.task_id: task for task in tasks}, {task.path: task for task in tasks}):
        if name in exact:
            return exact[name]
    found = [task for task in tasks if task.display_name == name or task.path.endswith(f"/{name}")]
    if not found:
        raise NotFound(message=f"the run has no task {_short(name)}{_there_are(name, [task.path for task in tasks])}")
    if len(found) > 1:
        paths = _listed([task.path for task in found])
        raise InvalidArgument(f"{name!r} fits several tasks, give the path of one: {paths}", field=field)
    return found[0]


class TaskPaths:
    """The paths of a pipeline's tasks, to be found by what users call them.

    Args:
        tasks: Of the earlier run.
        static: Paths that the pipeline has, without iterations.
    """

    def __init__(self, tasks: Sequence[Task], static: Sequence[str]) -> None:
        self._static = static
        self._ids = {task.task_id: task.path for task in tasks}
        known = set(static)
        self._known = known | {task.path for task in tasks if without_indices(task.path) in known}
        self._by_name: dict[str, set[str]] = {}
        for path in self._known:
            parts = path.split("/")
            for start in range(1, len(parts)):
                self._by_name.setdefault("/".join(parts[start:]), set()).add(path)
        for task in tasks:
            if task.path in self._known:
                self._by_name.setdefault(task.display_name, set()).add(task.path)

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
        found = self._by_name.get(name, set())
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
