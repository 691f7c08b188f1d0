"""Why a task was answered from the cache, or why it was not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mlmesh_pipeline.analysis.differences import Difference, content_differences
from mlmesh_pipeline.analysis.outputs import Look, changed_outputs
from mlmesh_pipeline.engine.fingerprint import fingerprint_content
from mlmesh_pipeline.ir.places import Place
from mlmesh_pipeline.resources import Run, Task, TaskKind


class Verdict(StrEnum):
    """What became of the look into the cache."""

    HIT = "HIT"
    REUSED = "REUSED"
    NOT_CACHEABLE = "NOT_CACHEABLE"
    NOT_STARTED = "NOT_STARTED"
    ANEW = "ANEW"
    DISABLED = "DISABLED"
    NO_EARLIER = "NO_EARLIER"
    CHANGED = "CHANGED"
    CONCURRENT = "CONCURRENT"
    NOT_STORED = "NOT_STORED"
    OUTPUTS_CHANGED = "OUTPUTS_CHANGED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Execution:
    """A task with what its run's pipeline says of it."""

    run: Run
    task: Task
    place: Place

    @property
    def content(self) -> dict[str, Any]:
        """What its fingerprint is made of."""
        place = self.place
        return fingerprint_content(self.run, place.component, place.container, self.task.inputs, place.cache_key)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer.

    Attributes:
        verdict: What became of the look into the cache.
        message: The same, for people.
        earlier: What the task was compared with.
        differences: In what they differ.
        cache_key: The user's own key.
    """

    verdict: Verdict
    message: str
    earlier: Execution | None = None
    differences: list[Difference] = field(default_factory=list)
    cache_key: str = ""


def explain(one: Execution, earlier: Sequence[Execution], look: Look) -> Explanation:
    """Explains what became of a task's look into the cache.

    Args:
        one: The task; it was not answered from the cache.
        earlier: Executions that it could have had its outputs from, the likeliest first.
        look: Looks at artifacts as they are now.
    """
    if one.task.kind != TaskKind.CONTAINER:
        return Explanation(
            Verdict.NOT_CACHEABLE,
            f"a task of kind {one.task.kind} is not cached itself"
            + ("" if one.task.kind == TaskKind.IMPORTER else ": ask for a task in it"),
        )
    if not one.task.fingerprint:
        why = f": {one.task.problem.message}" if one.task.problem else ""
        return Explanation(Verdict.NOT_STARTED, f"the task did not get as far as the cache ({one.task.state}){why}")
    nearest, differences = _nearest(one, earlier)
    if one.run.rerun_of:
        words = "the run was made to run this task anew, whatever the cache has"
        return Explanation(Verdict.ANEW, words, nearest, differences)
    if not one.place.is_cached:
        words = (
            "caching is off for this task, by the pipeline (set_caching_options(False)) or for the run (--no-cache, "
            "enable_caching=False)"
        )
        return Explanation(Verdict.DISABLED, f"{words}{_otherwise(nearest, differences)}", nearest, differences)
    if nearest is None:
        words = (
            f"no earlier execution of it succeeded in the runs of pipeline {one.run.pipeline_name!r} "
            f"in namespace {one.run.namespace!r}; pipelines have caches of their own"
        )
        return Explanation(Verdict.NO_EARLIER, words)
    if differences:
        names = ", ".join(f"{each.kind.lower()} {each.name}" for each in differences[:3])
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        return Explanation(
            Verdict.CHANGED, f"it differs from the nearest earlier execution: {names}{more}", nearest, differences
        )
    return _missed_equal(one, nearest, look)


def _missed_equal(one: Execution, equal: Execution, look: Look) -> Explanation:
    """Explains a miss in spite of an execution with the same fingerprint."""
    if equal.task.finished_at > one.task.started_at:
        return Explanation(Verdict.CONCURRENT, "an equal task had not ended yet when this one began", equal)
    if not equal.place.is_cached and not equal.task.cached_from:
        words = "an equal task has run, but with caching off: its outputs were not put into the cache"
        return Explanation(Verdict.NOT_STORED, words, equal)
    changed = changed_outputs(equal.task.outputs, look)
    if changed:
        words = f"an equal task has run, but its outputs are not what they were: {'; '.join(changed)}"
        return Explanation(Verdict.OUTPUTS_CHANGED, words, equal)
    words = (
        "an equal task has run, and its outputs are there now; they were not when this task began, or the run that had "
        "put them into the cache has been deleted"
    )
    return Explanation(Verdict.UNKNOWN, words, equal)


def _nearest(one: Execution, earlier: Sequence[Execution]) -> tuple[Execution | None, list[Difference]]:
    """Gives the execution with the fewest differences, and these; of several the first."""
    content = one.content
    nearest: Execution | None = None
    fewest = 0
    for other in earlier:
        if other.task.fingerprint == one.task.fingerprint:
            return other, []
        if other.run.run_id == one.run.run_id:  # another iteration: no earlier execution of this task
            continue
        count = len(content_differences(other.content, content, texts=False))
        if nearest is None or count < fewest:
            nearest, fewest = other, count
    return nearest, content_differences(nearest.content, content) if nearest is not None else []


def _otherwise(nearest: Execution | None, differences: Sequence[Difference]) -> str:
    if nearest is None:
        return ""
    return "; otherwise it would have differed, too" if differences else "; an equal task has run before"
