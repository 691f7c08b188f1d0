"""The nouns of an InferenceGraph: nodes, and the steps in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from mlmesh_serving.graph.condition import Condition
from mlmesh_serving.remote.address import RemoteAddress

ROOT = "root"


class RouterType(Enum):
    """What a node does with its steps."""

    SEQUENCE = "Sequence"
    """One after the other."""
    SWITCH = "Switch"
    """The first whose condition holds."""
    SPLITTER = "Splitter"
    """One, drawn by weight."""
    ENSEMBLE = "Ensemble"
    """All at once; the answers are joined."""


class Dependency(Enum):
    """What the failure of a step means for its node."""

    SOFT = "Soft"
    HARD = "Hard"


class Data(Enum):
    """What a step of a Sequence is given."""

    REQUEST = "$request"
    """What the node was given."""
    RESPONSE = "$response"
    """What the step before it answered."""


@dataclass(frozen=True, slots=True)
class ServiceUrl:
    """A service elsewhere.

    Attributes:
        address: Of the server, without the path.
        path: That is posted to.
    """

    address: RemoteAddress
    path: str


@dataclass(frozen=True, slots=True)
class Step:
    """A step; one of the three targets is given.

    Attributes:
        name: In the answer of an Ensemble; its number where the user gave none.
        node: Name of a node of the graph.
        service: Name of an InferenceService in the graph's namespace.
        url: A service elsewhere.
        data: What it is given, in a Sequence.
        weight: Per cent of the requests, in a Splitter.
        condition: When it is taken, in a Switch; whether the Sequence goes on to it.
        dependency: Whether its failure is the node's.
        renames_predictions: Whether `predictions` of what it is given becomes `instances`.
    """

    name: str
    node: str = ""
    service: str = ""
    url: ServiceUrl | None = None
    data: Data = Data.REQUEST
    weight: int = 0
    condition: Condition | None = None
    dependency: Dependency = Dependency.SOFT
    renames_predictions: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A node."""

    router_type: RouterType
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class InferenceGraph:
    """A graph, checked: it has a root and no cycle.

    Attributes:
        name: Of the graph.
        nodes: By name.
        timeout_seconds: For an answer of the graph, if the client does not want it sooner.
        step_seconds: For an answer of a step.
    """

    name: str
    nodes: Mapping[str, Node]
    timeout_seconds: float
    step_seconds: float

    @property
    def services(self) -> frozenset[str]:
        """The InferenceServices that it may ask."""
        return frozenset(step.service for node in self.nodes.values() for step in node.steps if step.service)
