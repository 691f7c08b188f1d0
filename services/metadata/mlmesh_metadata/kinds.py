"""Artifacts, executions and contexts: three kinds of node with one life.

ML Metadata's own messages are what this service works with; see docs/decisions/0020-messages-as-domain-objects.md.
"""

from dataclasses import dataclass
from typing import TypeAlias

from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

Node: TypeAlias = mlpb.Artifact | mlpb.Execution | mlpb.Context
NodeType: TypeAlias = mlpb.ArtifactType | mlpb.ExecutionType | mlpb.ContextType


@dataclass(frozen=True)
class Kind:
    """What differs between the three.

    Args:
        name: artifact, execution or context.
        number: How MLMD's table `Type` knows it.
        message: Of a node.
        type_message: Of a node's type.
        state_field: The field with its state, "" if it has none.
        bases: MLMD's simple types, which a type of this kind can have as its base: number and name.
        name_required: Whether a node must have a name.
        name_mutable: Whether an update may change the name.
    """

    name: str
    number: int
    message: type[Node]
    type_message: type[NodeType]
    state_field: str
    bases: tuple[tuple[int, str], ...]
    name_required: bool = False
    name_mutable: bool = False


ARTIFACT = Kind(
    name="artifact",
    number=1,
    message=mlpb.Artifact,
    type_message=mlpb.ArtifactType,
    state_field="state",
    bases=((1, "mlmd.Dataset"), (2, "mlmd.Model"), (3, "mlmd.Metrics"), (4, "mlmd.Statistics")),
)
EXECUTION = Kind(
    name="execution",
    number=0,
    message=mlpb.Execution,
    type_message=mlpb.ExecutionType,
    state_field="last_known_state",
    bases=((1, "mlmd.Train"), (2, "mlmd.Transform"), (3, "mlmd.Process"), (4, "mlmd.Evaluate"), (5, "mlmd.Deploy")),
)
CONTEXT = Kind(
    name="context",
    number=2,
    message=mlpb.Context,
    type_message=mlpb.ContextType,
    state_field="",
    bases=(),
    name_required=True,
    name_mutable=True,
)
KINDS = (ARTIFACT, EXECUTION, CONTEXT)
SIMPLE_TYPES = frozenset(name for kind in KINDS for _, name in kind.bases)

INPUTS: frozenset[int] = frozenset({mlpb.Event.INPUT, mlpb.Event.DECLARED_INPUT, mlpb.Event.INTERNAL_INPUT})
"""Types of events that say that an execution used an artifact."""
OUTPUTS: frozenset[int] = frozenset(
    {mlpb.Event.OUTPUT, mlpb.Event.DECLARED_OUTPUT, mlpb.Event.INTERNAL_OUTPUT, mlpb.Event.PENDING_OUTPUT}
)
"""Types of events that say that it made one."""
