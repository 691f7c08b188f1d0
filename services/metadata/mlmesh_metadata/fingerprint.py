"""Has this execution been run on these inputs before?"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.comparison import path_of, properties_of
from mlmesh_metadata.kinds import ARTIFACT, EXECUTION, INPUTS, OUTPUTS, Node
from mlmesh_metadata.reserved import is_deleted
from mlmesh_metadata.store import Session

CANDIDATES = 200
"""So many executions, the newest that share an input (or, without inputs, the type), are looked at."""
_GONE = frozenset({mlpb.Artifact.DELETED, mlpb.Artifact.MARKED_FOR_DELETION})
_DONE = frozenset({mlpb.Execution.COMPLETE, mlpb.Execution.CACHED})


@dataclass(frozen=True)
class WantedInput:
    """An artifact that an execution would use.

    Args:
        name: Under which name; "": any.
        artifact_id: 0: not said.
        uri: Any artifact with it is the same data. "": not said.
    """

    name: str = ""
    artifact_id: int = 0
    uri: str = ""


@dataclass(frozen=True)
class Reason:
    """Why an execution is no hit; see MissReason for the codes."""

    code: str
    name: str = ""
    wanted: str = ""
    found: str = ""


@dataclass
class Found:
    """The answer.

    Args:
        hit: Whether it has been run.
        fingerprint: Of the question, SHA-256 in hexadecimal.
        execution: On a hit the newest; on a miss the nearest.
        outputs: What it made.
        reasons: On a miss: why the nearest one is none.
    """

    hit: bool
    fingerprint: str
    execution: Node | None = None
    outputs: list[Node] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)


def find_execution(
    session: Session, type_name: str, inputs: Sequence[WantedInput], properties: dict[str, Any]
) -> Found:
    """Looks for an execution of a type that is done, used these inputs and no others, and has these properties.

    Args:
        session: Of a transaction.
        type_name: Of the execution.
        inputs: What it would use.
        properties: Must be equal, as JSON has them, in declared or custom properties.

    Raises:
        InvalidArgument: No type, or an input that says no artifact.
        NotFound: An input's artifact_id does not exist.
    """
    if not type_name:
        raise InvalidArgument("is needed: the name of the execution's type", field="type")
    wanted = [_resolve(session, given, f"inputs[{index}]") for index, given in enumerate(inputs)]
    found = Found(False, _fingerprint(type_name, wanted, properties))
    declared = session.types.find(EXECUTION, type_name)
    shared = {node_id for one in wanted for node_id in one.ids}
    ids = session.nodes.newest_executions(declared.id, shared if wanted else None, CANDIDATES) if declared else []
    if declared and not ids and wanted:
        ids = session.nodes.newest_executions(declared.id, None, CANDIDATES)
    if not ids:
        found.reasons = [Reason("NO_EXECUTION_OF_TYPE", wanted=type_name)]
        return found
    best: tuple[int, Node, list[Reason], list[int]] | None = None
    for execution, events in _with_events(session, ids):
        if is_deleted(execution):  # nothing is known of how it was run
            continue
        reasons = _reasons(session, execution, events, wanted, properties)
        made = [event.artifact_id for event in events if event.type in OUTPUTS]
        if best is None or len(reasons) < best[0]:
            best = (len(reasons), execution, reasons, made)
        if not reasons:
            break
    if best is None:
        found.reasons = [Reason("NO_EXECUTION_OF_TYPE", wanted=type_name)]
        return found
    _, found.execution, found.reasons, made = best
    found.hit = not found.reasons
    found.outputs = session.nodes.by_ids(ARTIFACT, made)
    return found


@dataclass(frozen=True)
class _Wanted:
    """An input with the artifacts that are it."""

    name: str
    identity: str
    ids: frozenset[int]


def _resolve(session: Session, given: WantedInput, where: str) -> _Wanted:
    if not given.artifact_id and not given.uri:
        raise InvalidArgument("one of artifact_id and uri is needed", field=f"{where}.artifact_id")
    uri, ids = given.uri, {given.artifact_id} - {0}
    if given.artifact_id:
        found = session.nodes.by_ids(ARTIFACT, [given.artifact_id])
        if not found:
            raise NotFound("artifact", given.artifact_id)
        assert isinstance(found[0], mlpb.Artifact)
        uri = found[0].uri
    if uri:
        ids |= {node.id for node in session.nodes.by_uris([uri])}
    return _Wanted(given.name, uri or f"artifact {given.artifact_id}", frozenset(ids))


def _fingerprint(type_name: str, wanted: Sequence[_Wanted], properties: dict[str, Any]) -> str:
    content = [type_name, sorted((one.name, one.identity) for one in wanted), properties]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _with_events(session: Session, ids: Sequence[int]) -> list[tuple[Node, list[mlpb.Event]]]:
    """Gives executions, the newest first, with their events."""
    events: dict[int, list[mlpb.Event]] = {node_id: [] for node_id in ids}
    for event in session.links.events_of(EXECUTION, ids):
        events[event.execution_id].append(event)
    return [(node, events[node.id]) for node in reversed(session.nodes.by_ids(EXECUTION, ids))]


def _reasons(
    session: Session,
    execution: Node,
    events: Sequence[mlpb.Event],
    wanted: Sequence[_Wanted],
    properties: dict[str, Any],
) -> list[Reason]:
    assert isinstance(execution, mlpb.Execution)
    reasons = []
    if execution.last_known_state not in _DONE:
        state = mlpb.Execution.State.Name(execution.last_known_state)
        reasons.append(Reason("NOT_COMPLETE", wanted="COMPLETE", found=state))
    used = [(path_of(event), event.artifact_id) for event in events if event.type in INPUTS]
    for one in sorted(wanted, key=lambda one: not one.name):  # the named first: the others take what is left
        match = next((u for u in used if u[1] in one.ids and _is_named(u[0], one.name)), None)
        if match is not None:
            used.remove(match)
            continue
        other = next((u for u in used if one.name and _is_named(u[0], one.name)), None)
        if other is None:
            reasons.append(Reason("INPUT_MISSING", one.name, one.identity))
        else:
            used.remove(other)
            reasons.append(Reason("INPUT_DIFFERS", one.name, one.identity, f"artifact {other[1]}"))
    reasons += [Reason("INPUT_EXTRA", name, found=f"artifact {artifact_id}") for name, artifact_id in used]
    stored = properties_of(execution)
    for name, value in sorted(properties.items()):
        if name not in stored:
            reasons.append(Reason("PROPERTY_MISSING", name, json.dumps(value)))
        elif stored[name] != value:
            reasons.append(Reason("PROPERTY_DIFFERS", name, json.dumps(value), json.dumps(stored[name])))
    made = session.nodes.by_ids(ARTIFACT, {event.artifact_id for event in events if event.type in OUTPUTS})
    gone = [node for node in made if isinstance(node, mlpb.Artifact) and node.state in _GONE]
    return reasons + [Reason("OUTPUT_DELETED", node.name or str(node.id)) for node in gone]


def _is_named(path: str, name: str) -> bool:
    """KFP's paths are the name and an index: data.0 is data."""
    return not name or path == name or path.rpartition(".")[0] == name
