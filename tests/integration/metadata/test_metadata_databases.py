"""The same on every database: SQLite, PostgreSQL, MariaDB."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import struct_pb2
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb


def test_what_is_written_comes_back(database_url: str, tmp_path: Path, connect: Any) -> None:
    struct = struct_pb2.Struct()
    struct.update({"list": [1, "zwei", None], "deep": {"on": True}})
    values = {
        "int": mlpb.Value(int_value=-(2**63)),
        "double": mlpb.Value(double_value=1e-300),
        "text": mlpb.Value(string_value="é \U0001f600 'quoted' " + "x" * 100_000),
        "yes": mlpb.Value(bool_value=True),
        "struct": mlpb.Value(struct_value=struct),
    }
    process = ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path, {"DATABASE_URL": database_url})
    with process:
        client = connect(process)
        data, job = client.artifact_type("Data", number=mlpb.INT), client.execution_type("Job")
        node = mlpb.Artifact(type_id=data, name="é" * 255, uri="u" * 2000, custom_properties=values)
        node.properties["number"].int_value = 1
        upper, lower = (mlpb.Artifact(type_id=data, name=name) for name in ("SECOND", "second"))
        first, _, second = client.artifacts(node, upper, lower)
        (run,) = client.executions(mlpb.Execution(type_id=job))
        client.connect(run, [first], [second])

        def contend(number: int) -> Any:
            try:
                return client.artifacts(mlpb.Artifact(type_id=data, name="contested", uri=str(number)))
            except grpc.RpcError as error:
                return error.code()

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(contend, range(8)))
        assert answers.count(grpc.StatusCode.ALREADY_EXISTS) == 7
        node.id = first
        node.properties["number"].int_value = 2
        client.artifacts(node)
        found = client.artifact(first)
        assert found.properties["number"].int_value == 2
        assert found.custom_properties == values and (found.name, found.uri) == (node.name, node.uri)
        assert [n.name for n in client.call("GetArtifactsByURI", uris=["u" * 2000]).artifacts] == [node.name]
        options = {"max_result_size": 2, "filter_query": "properties.number.int_value = 2"}
        assert [n.id for n in client.call("GetArtifacts", options=options).artifacts] == [first]
        history = {(node.kind, node.id) for node in client.query(artifact_id=second).nodes}
        assert history == {("artifact", first), ("artifact", second), ("execution", run)}
        client.channel.close()


def test_nodes_that_are_put_together(database_url: str, tmp_path: Path, connect: Any) -> None:
    """All or nothing, and the first fault of the request is the one that is told, by its node."""
    process = ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path, {"DATABASE_URL": database_url})
    with process:
        client = connect(process)
        data = client.artifact_type("Data", number=mlpb.INT)

        def made(name: str, **fields: Any) -> mlpb.Artifact:
            return mlpb.Artifact(type_id=data, name=name, **fields)

        def refused(*artifacts: mlpb.Artifact) -> tuple[Any, str]:
            try:
                client.artifacts(*artifacts)
            except grpc.RpcError as error:
                return error.code(), str(error.details())
            raise AssertionError("was not refused")

        (taken,) = client.artifacts(made("taken", external_id="outside"))
        bad = made("bad")
        bad.properties["number"].string_value = "one"
        exists, invalid = grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.INVALID_ARGUMENT
        code, words = refused(made("a"), made("b"), made("taken"), made("c"))
        assert code == exists and "'taken'" in words
        code, words = refused(made("a"), made("b", external_id="outside"))
        assert code == exists and "'outside'" in words
        code, words = refused(made("twice"), made("a"), made("twice"))
        assert code == exists and "'twice'" in words
        assert refused(made("a"), made("taken"), bad)[0] == exists
        assert refused(made("a"), bad, made("taken"))[0] == invalid
        assert [node.id for node in client.call("GetArtifacts").artifacts] == [taken]
        new = [made(f"new-{number}") for number in range(3)]
        for number, node in enumerate(new):
            node.properties["number"].int_value = number
        changed = made("taken", id=taken, uri="moved")
        ids = client.artifacts(new[0], changed, *new[1:])
        assert ids[1] == taken and sorted({*ids}) == [taken, ids[0], ids[2], ids[3]]
        found = {node.id: node for node in client.call("GetArtifactsByID", artifact_ids=ids).artifacts}
        assert found[taken].uri == "moved"
        assert [found[i].properties["number"].int_value for i in (ids[0], *ids[2:])] == [0, 1, 2]
        (after,) = client.artifacts(made("after"))
        assert after > max(ids)
        client.channel.close()
