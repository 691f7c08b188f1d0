"""A walk that finds too much stops; what it leaves out leaves no loose ends."""

from pathlib import Path

import pytest
from mlmesh_kit.database import create_engine
from mlmesh_metadata import lineage
from mlmesh_metadata.kinds import ARTIFACT, EXECUTION
from mlmesh_metadata.lineage import Start, query_lineage
from mlmesh_metadata.links import put_event
from mlmesh_metadata.nodes import put_node
from mlmesh_metadata.store import Session, Store
from mlmesh_metadata.typing_rules import put_type
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(create_engine(f"sqlite:///{tmp_path}/metadata.db"))


def fan(session: Session) -> int:
    """One artifact that two executions used, which made ten artifacts each."""
    rules = {"can_add_fields": False, "can_omit_fields": False, "field": ""}
    data = put_type(session, ARTIFACT, mlpb.ArtifactType(name="Data"), **rules)
    job = put_type(session, EXECUTION, mlpb.ExecutionType(name="Job"), **rules)
    source = put_node(session, ARTIFACT, mlpb.Artifact(type_id=data), now=1, field="")
    for _ in range(2):
        run = put_node(session, EXECUTION, mlpb.Execution(type_id=job), now=1, field="")
        put_event(session, mlpb.Event(artifact_id=source, execution_id=run, type=mlpb.Event.INPUT), 1, "")
        for _ in range(10):
            made = put_node(session, ARTIFACT, mlpb.Artifact(type_id=data), now=1, field="")
            put_event(session, mlpb.Event(artifact_id=made, execution_id=run, type=mlpb.Event.OUTPUT), 1, "")
    return source


@pytest.mark.parametrize(
    ("limit", "found", "truncated"), [(2, 2, True), (12, 12, True), (22, 22, True), (23, 23, False)]
)
def test_no_more_nodes_than_the_limit(
    store: Store, monkeypatch: pytest.MonkeyPatch, limit: int, found: int, truncated: bool
) -> None:
    monkeypatch.setattr(lineage, "MAX_NODES", limit)
    source = store.write(fan)
    with store.read() as session:
        answer = query_lineage(session, Start(source), upstream=False, downstream=True, max_depth=0)
    assert (len(answer.nodes), answer.truncated) == (found, truncated)
    there = {(kind.name, node.id) for kind, node, _ in answer.nodes}
    for event in answer.events:
        assert {("artifact", event.artifact_id), ("execution", event.execution_id)} <= there
