"""Where in a pipeline a task is, by its path."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlmesh_pipeline.ir.document import PipelineDocument

_INDEX = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True)
class Place:
    """What a pipeline says of a task.

    Attributes:
        task: PipelineTaskSpec.
        component: Its ComponentSpec.
        container: What runs it; None for importers, DAGs and loops.
    """

    task: Any
    component: Any
    container: Any

    @property
    def is_cached(self) -> bool:
        """Whether caching is on for the task."""
        return bool(self.task.caching_options.enable_cache)

    @property
    def cache_key(self) -> str:
        """The user's own key."""
        return str(self.task.caching_options.cache_key)


def without_indices(path: str) -> str:
    """Gives the path of a task as the pipeline has it: without the iterations that it is in."""
    return _INDEX.sub("", path)


def place_of(document: PipelineDocument, path: str) -> Place | None:
    """Finds a task by its path; None where the pipeline has none there.

    Args:
        document: The pipeline.
        path: With or without iterations (`for-loop-2[3]/train`).
    """
    component, task = document.spec.root, None
    for name in without_indices(path).split("/"):
        if component.WhichOneof("implementation") != "dag" or name not in component.dag.tasks:
            return None
        task = component.dag.tasks[name]
        component = document.component(task.component_ref.name)
    return Place(task, component, container_of(document, component))


def container_of(document: PipelineDocument, component: Any) -> Any:
    """Gives the container that a component runs in; None for importers and DAGs."""
    if component.WhichOneof("implementation") != "executor_label":
        return None
    executor = document.executor(component.executor_label)
    return executor.container if executor.WhichOneof("spec") == "container" else None


def paths_in(document: PipelineDocument) -> Iterator[str]:
    """Gives the paths of all tasks of a pipeline, without iterations; those of a DAG after it."""
    return (path for path, _ in paths_and_titles_in(document))


def paths_and_titles_in(document: PipelineDocument) -> Iterator[tuple[str, str]]:
    """Gives each path as `paths_in`, and the same made of the names that are shown."""

    def walk(component: Any, prefix: str, shown: str) -> Iterator[tuple[str, str]]:
        if component.WhichOneof("implementation") != "dag":
            return
        for name, task in component.dag.tasks.items():
            title = task.task_info.name or name
            yield prefix + name, shown + title
            yield from walk(document.component(task.component_ref.name), f"{prefix}{name}/", f"{shown}{title}/")

    return walk(document.spec.root, "", "")
