"""Values that one database stores and another cannot: stored, or refused; never an internal error."""

import math
from pathlib import Path
from typing import Any

import grpc
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb


def test_infinity_and_nul(database_url: str, tmp_path: Path, connect: Any) -> None:
    settings = {"DATABASE_URL": database_url}
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path, settings) as process:
        client = connect(process)
        data = client.artifact_type("Data")
        for field, value in (("double_value", math.inf), ("string_value", "a\0b")):
            node = mlpb.Artifact(type_id=data)
            setattr(node.custom_properties["x"], field, value)
            before = len(client.call("GetArtifacts").artifacts)
            try:
                (made,) = client.artifacts(node)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
                assert "cannot store" in error.details()
                assert len(client.call("GetArtifacts").artifacts) == before
            else:
                assert getattr(client.artifact(made).custom_properties["x"], field) == value
        client.channel.close()
