"""Where in a pipeline a task is: paths such as `exit-handler-1/for-loop-2[3]/add`, found in the document."""

import re
from dataclasses import dataclass
from typing import Any

from mlmesh_pipeline.engine.steps import join
from mlmesh_pipeline.ir.document import PipelineDocument
from mlmesh_pipeline.resources import TaskKind

_SEGMENT = re.compile(r"([^\[\]]+)(?:\[(\d+)\])?")


@dataclass(frozen=True, slots=True)
class Place:
    """A task of a pipeline, or an iteration of one that is a loop.

    Attributes:
        path: Of it.
        name: Of the task.
        iteration: Its number; None: it is the task itself.
        spec: PipelineTaskSpec.
        component: ComponentSpec that it runs.
        around: Path of what it is in: of a DAG, of an iteration, or "" for the root.
        dag: ComponentSpec of the DAG that the task is in.
    """

    path: str
    name: str
    iteration: int | None
    spec: Any
    component: Any
    around: str
    dag: Any

    @property
    def is_loop(self) -> bool:
        """Whether it is a whole loop."""
        return self.iteration is None and self.spec.WhichOneof("iterator") is not None

    @property
    def is_dag(self) -> bool:
        """Whether it is a DAG, once: no loop."""
        return not self.is_loop and self.component.WhichOneof("implementation") == "dag"

    @property
    def item_input(self) -> str:
        """Input that has the item of an iteration."""
        return str(getattr(self.spec, self.spec.WhichOneof("iterator")).item_input)

    @property
    def loop_path(self) -> str:
        """Path of the loop that an iteration is of."""
        return self.path[: self.path.rindex("[")]


class NoPlace(ValueError):
    """There is no such task."""


class Tree:
    """The tasks of a pipeline, by path.

    Args:
        document: The pipeline.
    """

    def __init__(self, document: PipelineDocument) -> None:
        self.document = document

    def find(self, path: str) -> Place:
        """Gives a task.

        Raises:
            NoPlace: There is none.
        """
        component, around = self.document.spec.root, ""
        place = None
        for segment in path.split("/"):
            found = _SEGMENT.fullmatch(segment)
            if found is None or found[1] not in component.dag.tasks:
                raise NoPlace(f"there is no task {path!r}")
            place = self.child(component, around, found[1])
            if found[2] is not None:
                place = self.iteration(place, int(found[2]))
            component, around = place.component, place.path
        assert place is not None
        return place

    def child(self, dag: Any, around: str, name: str) -> Place:
        """Gives a task of a DAG.

        Args:
            dag: ComponentSpec of the DAG.
            around: Its path.
            name: Of the task.
        """
        spec = dag.dag.tasks[name]
        component = self.document.component(spec.component_ref.name)
        return Place(join(around, name), name, None, spec, component, around, dag)

    def iteration(self, loop: Place, number: int) -> Place:
        """Gives an iteration of a loop."""
        path = f"{loop.path}[{number}]"
        return Place(path, f"{loop.name}[{number}]", number, loop.spec, loop.component, loop.around, loop.dag)

    def kind(self, place: Place) -> TaskKind:
        """Says what a task is made of."""
        if place.is_loop:
            return TaskKind.LOOP
        if place.is_dag:
            return TaskKind.DAG if place.iteration is None else TaskKind.ITERATION
        executor = self.document.executor(place.component.executor_label)
        return TaskKind.IMPORTER if executor.WhichOneof("spec") == "importer" else TaskKind.CONTAINER
