"""A request for everything, of a store that holds more than one answer may."""

import pytest
from mlmesh_kit.database import create_engine
from mlmesh_kit.errors import ResourceExhausted
from mlmesh_metadata import listing
from mlmesh_metadata.kinds import ARTIFACT
from mlmesh_metadata.nodes import put_node
from mlmesh_metadata.store import Store
from mlmesh_metadata.typing_rules import put_type
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb


def test_a_request_for_everything_ends_at_the_limit(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(create_engine(f"sqlite:///{tmp_path}/m.db"))
    monkeypatch.setattr(listing, "MAX_UNPAGED", 3)

    def fill(session, count: int) -> None:
        given = mlpb.ArtifactType(name="Data")
        type_id = put_type(session, ARTIFACT, given, can_add_fields=False, can_omit_fields=False, field="t")
        for _ in range(count):
            put_node(session, ARTIFACT, mlpb.Artifact(type_id=type_id), now=1, field="a")

    store.write(lambda session: fill(session, 3))
    with store.read() as session:
        assert len(listing.list_page(session, ARTIFACT, None).stamps) == 3
    store.write(lambda session: fill(session, 1))
    with store.read() as session, pytest.raises(ResourceExhausted, match="max_result_size"):
        listing.list_page(session, ARTIFACT, None)
