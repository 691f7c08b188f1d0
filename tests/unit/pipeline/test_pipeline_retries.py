from mlmesh_pipeline.resources import RuntimeState, Task, TaskKind
from mlmesh_pipeline.retries import to_run_again

SUCCEEDED, FAILED, SKIPPED, CANCELED = (
    RuntimeState.SUCCEEDED,
    RuntimeState.FAILED,
    RuntimeState.SKIPPED,
    RuntimeState.CANCELED,
)


def _task(path: str, state: RuntimeState, *upstream: str) -> Task:
    parent, _, name = path.rpartition("/")
    return Task(path, "run", path, name, name, TaskKind.CONTAINER, parent_id=parent, state=state, upstream=upstream)


def test_what_succeeded_is_kept_and_what_waited_for_a_failure_runs():
    tasks = [
        _task("a", SUCCEEDED),
        _task("b", FAILED, "a"),
        _task("c", SKIPPED, "b"),
        _task("d", SKIPPED, "c"),
        _task("e", CANCELED),
        _task("no-condition", SKIPPED, "a"),
    ]
    assert to_run_again(tasks) == {"b", "c", "d", "e"}


def test_the_dags_around_a_failure_are_opened_and_what_succeeded_in_them_is_kept():
    tasks = [
        _task("loop", FAILED),
        _task("loop/0", SUCCEEDED),
        _task("loop/0/x", SUCCEEDED),
        _task("loop/1", FAILED),
        _task("loop/1/x", SUCCEEDED),
        _task("loop/1/y", FAILED, "x"),
        _task("other", SUCCEEDED),
        _task("other/x", SKIPPED),
    ]
    assert to_run_again(tasks) == {"loop", "loop/1", "loop/1/y"}


def test_what_was_given_something_that_changes_runs_whole():
    tasks = [
        _task("work", FAILED),
        _task("work/x", FAILED),
        _task("exit", SUCCEEDED, "work"),
        _task("exit/x", SUCCEEDED),
        _task("exit/x/y", SUCCEEDED),
        _task("after", SUCCEEDED, "exit"),
        _task("beside", SUCCEEDED),
    ]
    assert to_run_again(tasks) == {"work", "work/x", "exit", "exit/x", "exit/x/y", "after"}


def test_a_name_counts_within_its_dag():
    tasks = [_task("p", SUCCEEDED), _task("p/x", SUCCEEDED), _task("p/z", SUCCEEDED, "x"), _task("x", FAILED)]
    assert to_run_again(tasks) == {"x"}
