"""Which tasks of a run that has ended are to be run again."""

from collections.abc import Iterable

from mlmesh_pipeline.resources import RuntimeState, Task


def to_run_again(tasks: Iterable[Task]) -> set[str]:
    """Gives the ids of the tasks that a retry runs again: those that did not succeed, and what follows from them.

    A task that succeeded is kept, with its outputs. But one that comes after a task that is run again was given what is
    no longer so (the final status that an exit handler's task reads, say), and is run again as well, with all in it.
    One that was skipped because its condition did not hold is kept if what it depends on is.

    Args:
        tasks: Of one run.
    """
    of_run = list(tasks)
    by_id = {task.task_id: task for task in of_run}
    by_name = {(task.parent_id, task.name): task for task in of_run}
    followers: dict[str, list[Task]] = {}
    children: dict[str, list[Task]] = {}
    for task in of_run:
        if task.parent_id:
            children.setdefault(task.parent_id, []).append(task)
        for name in task.upstream:
            if (task.parent_id, name) in by_name:
                followers.setdefault(by_name[task.parent_id, name].task_id, []).append(task)
    again: set[str] = set()
    whole: set[str] = set()
    waiting = [(task, False) for task in of_run if task.state not in {RuntimeState.SUCCEEDED, RuntimeState.SKIPPED}]
    while waiting:
        task, all_of_it = waiting.pop()
        if task.task_id in again and (task.task_id in whole or not all_of_it):
            continue
        again.add(task.task_id)
        if all_of_it:
            whole.add(task.task_id)
            waiting += [(child, True) for child in children.get(task.task_id, ())]
        if task.parent_id in by_id:
            waiting.append((by_id[task.parent_id], False))
        waiting += [(follower, True) for follower in followers.get(task.task_id, ())]
    return again
