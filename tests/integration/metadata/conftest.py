import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service_pb2
from mlmesh_protos.ml_metadata import metadata_store_service_pb2_grpc as service_grpc
from mlmesh_protos.mlmesh.metadata.v1 import lineage_pb2, lineage_pb2_grpc, retention_pb2_grpc

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Refusal:
    code: grpc.StatusCode
    message: str
    fields: tuple[str, ...]


class MetadataClient:
    """The service's RPCs, and short ways to put what tests need."""

    def __init__(self, process: ServiceProcess) -> None:
        self.process = process
        self.channel = process.channel()
        self.store: Any = service_grpc.MetadataStoreServiceStub(self.channel)
        self.lineage: Any = lineage_pb2_grpc.LineageServiceStub(self.channel)
        self.retention: Any = retention_pb2_grpc.RetentionServiceStub(self.channel)

    def call(self, method: str, **fields: Any) -> Any:
        return getattr(self.store, method)(getattr(service_pb2, f"{method}Request")(**fields), timeout=30)

    def query(self, **fields: Any) -> lineage_pb2.QueryLineageResponse:
        answer: lineage_pb2.QueryLineageResponse = self.lineage.QueryLineage(
            lineage_pb2.QueryLineageRequest(**fields), timeout=30
        )
        return answer

    def artifact_type(self, name: str = "", **properties: int) -> int:
        given = mlpb.ArtifactType(name=name or unique("artifacts"), properties=properties)
        return int(self.call("PutArtifactType", artifact_type=given).type_id)

    def execution_type(self, name: str = "", **properties: int) -> int:
        given = mlpb.ExecutionType(name=name or unique("executions"), properties=properties)
        return int(self.call("PutExecutionType", execution_type=given).type_id)

    def context_type(self, name: str = "", **properties: int) -> int:
        given = mlpb.ContextType(name=name or unique("contexts"), properties=properties)
        return int(self.call("PutContextType", context_type=given).type_id)

    def artifacts(self, *nodes: mlpb.Artifact) -> list[int]:
        return list(self.call("PutArtifacts", artifacts=nodes).artifact_ids)

    def executions(self, *nodes: mlpb.Execution) -> list[int]:
        return list(self.call("PutExecutions", executions=nodes).execution_ids)

    def contexts(self, *nodes: mlpb.Context) -> list[int]:
        return list(self.call("PutContexts", contexts=nodes).context_ids)

    def artifact(self, artifact_id: int) -> mlpb.Artifact:
        found: mlpb.Artifact = self.call("GetArtifactsByID", artifact_ids=[artifact_id]).artifacts[0]
        return found

    def connect(self, execution_id: int, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        kinds = [(mlpb.Event.INPUT, inputs), (mlpb.Event.OUTPUT, outputs)]
        events = [
            mlpb.Event(artifact_id=artifact_id, execution_id=execution_id, type=kind)
            for kind, ids in kinds
            for artifact_id in ids
        ]
        self.call("PutEvents", events=events)

    def everything(self) -> list[bytes]:
        """All that is stored and can be listed, to see that nothing has changed."""
        kinds = ("Artifact", "Execution", "Context")
        nodes = [self.call(f"Get{kind}s") for kind in kinds]
        answers = [*nodes, *(self.call(f"Get{kind}Types") for kind in kinds)]
        artifacts = [node.id for node in nodes[0].artifacts]
        contexts = [node.id for node in nodes[2].contexts]
        answers.append(self.call("GetEventsByArtifactIDs", artifact_ids=artifacts))
        answers.append(self.call("GetParentContextsByContexts", context_ids=contexts))
        for context_id in contexts:
            answers.append(self.call("GetArtifactsByContext", context_id=context_id))
            answers.append(self.call("GetExecutionsByContext", context_id=context_id))
        return [answer.SerializeToString(deterministic=True) for answer in answers]


def unique(prefix: str) -> str:
    return f"{prefix}-{next(_numbers)}"


@pytest.fixture(scope="session")
def fresh_name() -> Callable[[str], str]:
    """Gives a name that no other test of the session has."""
    return unique


@pytest.fixture(scope="session")
def connect() -> Callable[[ServiceProcess], MetadataClient]:
    return MetadataClient


@pytest.fixture(scope="session")
def refused() -> Callable[[Callable[[], object]], Refusal]:
    """Makes a call that must fail and gives how it did: code, message and the fields that are named."""

    def call(function: Callable[[], object]) -> Refusal:
        with pytest.raises(grpc.RpcError) as caught:
            function()
        bad = error_details_pb2.BadRequest()
        status = rpc_status.from_call(caught.value)
        for detail in status.details if status is not None else []:
            detail.Unpack(bad)
        fields = tuple(violation.field for violation in bad.field_violations)
        message = caught.value.details()
        assert "Traceback" not in message and "sqlite" not in message.lower(), message
        return Refusal(caught.value.code(), message, fields)

    return call


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    data_dir: Path = tmp_path_factory.mktemp("metadata")
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", data_dir) as process:
        yield process
        # Whatever a test asked for, the service had an answer to.
        assert "Traceback" not in process.log_path.read_text()


@pytest.fixture(scope="module")
def client(service: ServiceProcess) -> Iterator[MetadataClient]:
    made = MetadataClient(service)
    yield made
    made.channel.close()
