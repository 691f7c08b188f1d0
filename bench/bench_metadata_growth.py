"""What reads of the metadata service cost while it grows: 10^4, 10^5 and 10^6 artifacts on SQLite, and its memory.

`make bench-metadata`. `SIZES=10000,100000` for other sizes. Milliseconds of a call over gRPC, median; beside each, what
it is of the smallest size's. Lineage is 50 executions and 51 artifacts deep.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service_pb2
from mlmesh_protos.ml_metadata import metadata_store_service_pb2_grpc as service_grpc

CALLS = 300
BATCH = 500


class Client:
    """The service's RPCs."""

    def __init__(self, process: ServiceProcess) -> None:
        self.stub: Any = service_grpc.MetadataStoreServiceStub(process.channel())

    def call(self, method: str, **fields: Any) -> Any:
        return getattr(self.stub, method)(getattr(service_pb2, f"{method}Request")(**fields), timeout=120)


def _artifact(type_id: int, number: int) -> mlpb.Artifact:
    made = mlpb.Artifact(type_id=type_id, uri=f"s3://bucket/data/{number}", name=f"artifact-{number}")
    made.properties["rows"].int_value = number
    made.properties["split"].string_value = "train" if number % 2 else "test"
    made.custom_properties["accuracy"].double_value = number / 7
    return made


def _median(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(CALLS):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return 1000 * statistics.median(times)


def _memory(pid: int) -> float:
    """Gives the resident memory of a process in MB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1000


def main() -> None:
    sizes = [int(size) for size in os.environ.get("SIZES", "10000,100000,1000000").split(",")]
    results: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", Path(folder)) as process,
    ):
        client = Client(process)
        properties = {"rows": mlpb.INT, "split": mlpb.STRING}
        given = mlpb.ArtifactType(name="Big", properties=properties)
        big = client.call("PutArtifactType", artifact_type=given).type_id
        job = client.call("PutExecutionType", execution_type=mlpb.ExecutionType(name="Job")).type_id
        group = client.call("PutContextType", context_type=mlpb.ContextType(name="Group")).type_id
        ids: list[int] = []
        links = client.call("PutExecutions", executions=[mlpb.Execution(type_id=job) for _ in range(50)]).execution_ids
        (context,) = client.call("PutContexts", contexts=[mlpb.Context(type_id=group, name="members")]).context_ids
        for size in sizes:
            while len(ids) < size:
                batch = [_artifact(big, number) for number in range(len(ids), min(len(ids) + BATCH, size))]
                ids += client.call("PutArtifacts", artifacts=batch).artifact_ids
            if size == sizes[0]:
                chain = ids[:51]
                kinds = ((mlpb.Event.INPUT, 0), (mlpb.Event.OUTPUT, 1))
                events = [
                    mlpb.Event(artifact_id=chain[n + step], execution_id=link, type=kind)
                    for n, link in enumerate(links)
                    for kind, step in kinds
                ]
                client.call("PutEvents", events=events)
                members = [mlpb.Attribution(artifact_id=one, context_id=context) for one in ids[:300]]
                client.call("PutAttributionsAndAssociations", attributions=members)
            for name, value in _measure(client, ids, context, chain).items():
                results.setdefault(name, []).append(value)
            results.setdefault("memory, MB", []).append(_memory(process.pid))
    print(f"{'':28}" + "".join(f"{size:>12} {'':6}" for size in sizes))
    for name, values in results.items():
        print(f"{name:28}" + "".join(f"{value:12.3f} {value / values[0]:5.2f}x" for value in values))


def _measure(client: Client, ids: list[int], context: int, chain: list[int]) -> dict[str, float]:
    page = mlpb.ListOperationOptions(max_result_size=20)
    query = f"properties.rows.int_value = {len(ids) // 2}"
    filtered = mlpb.ListOperationOptions(max_result_size=20, filter_query=query)
    lineage = mlpb.LineageSubgraphQueryOptions(max_num_hops=100, direction=mlpb.LineageSubgraphQueryOptions.UPSTREAM)
    lineage.starting_artifacts.filter_query = f"id = {chain[-1]}"
    return {
        "page of 20, ms": _median(lambda: client.call("GetArtifactsByType", type_name="Big", options=page)),
        "filter by property, ms": _median(lambda: client.call("GetArtifacts", options=filtered)),
        "300 of a context, ms": _median(lambda: client.call("GetArtifactsByContext", context_id=context)),
        "lineage of 100 hops, ms": _median(
            lambda: client.call("GetLineageSubgraph", lineage_subgraph_query_options=lineage)
        ),
        "one by id, ms": _median(lambda: client.call("GetArtifactsByID", artifact_ids=[ids[-1]])),
        "empty call, ms": _median(lambda: client.call("GetArtifactsByID", artifact_ids=[])),
    }


if __name__ == "__main__":
    main()
