"""The load of bench_metadata, in the environment of the stock client: `metadata_load.py TARGET ROWS`.

TARGET is `sqlite:FILE` or `postgresql:HOST:PORT:DATABASE:USER` (ML Metadata's own store, in this process) or
`grpc:HOST:PORT`. Prints JSON: milliseconds or rates.
"""

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import ml_metadata
from ml_metadata.proto import metadata_store_pb2 as mlpb
from ml_metadata.proto import metadata_store_service_pb2 as service

SECONDS = 2.0


def connect(target: str) -> Any:
    kind, _, rest = target.partition(":")
    if kind == "sqlite":
        config = mlpb.ConnectionConfig()
        config.sqlite.filename_uri = rest
        config.sqlite.connection_mode = 3
        return ml_metadata.MetadataStore(config)
    if kind == "postgresql":
        postgresql = mlpb.ConnectionConfig().postgresql
        postgresql.host, postgresql.port, postgresql.dbname, postgresql.user = rest.split(":")
        postgresql.password, postgresql.skip_db_creation = "none", True
        return ml_metadata.MetadataStore(mlpb.ConnectionConfig(postgresql=postgresql))
    host, _, port = rest.partition(":")
    return ml_metadata.MetadataStore(mlpb.MetadataStoreClientConfig(host=host, port=int(port)))


def artifact(type_id: int, number: int) -> Any:
    made = mlpb.Artifact(type_id=type_id, uri=f"s3://bucket/data/{number}", name=f"artifact-{number}")
    made.properties["rows"].int_value = number
    made.properties["split"].string_value = "train" if number % 2 else "test"
    made.custom_properties["accuracy"].double_value = number / 7
    made.state = mlpb.Artifact.LIVE
    return made


def event(artifact_id: int, execution_id: int, made: int) -> Any:
    kind = mlpb.Event.OUTPUT if made else mlpb.Event.INPUT
    return mlpb.Event(artifact_id=artifact_id, execution_id=execution_id, type=kind)


def rate(call: Callable[[], Any]) -> float:
    """Calls a second."""
    call()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        call()
        count += 1
    return count / (time.perf_counter() - started)


def median(call: Callable[[], Any], least: int = 5) -> float:
    """Median seconds of a call."""
    call()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < least or (time.perf_counter() - started < SECONDS and len(times) < 2000):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def ask(store: Any, method: str, **fields: Any) -> Any:
    response = getattr(service, f"{method}Response")()
    store._call(method, getattr(service, f"{method}Request")(**fields), response)
    return response


def main() -> None:
    target, rows = sys.argv[1], int(sys.argv[2])
    store = connect(target)
    kind = mlpb.ArtifactType(name="Data")
    kind.properties["rows"] = mlpb.INT
    kind.properties["split"] = mlpb.STRING
    data = store.put_artifact_type(kind)
    kind.name = "Big"
    big = store.put_artifact_type(kind)
    job = store.put_execution_type(mlpb.ExecutionType(name="Job"))
    group = store.put_context_type(mlpb.ContextType(name="Group"))
    ids: list[int] = []
    for start in range(0, rows, 100):
        ids += store.put_artifacts([artifact(big, n) for n in range(start, min(start + 100, rows))])
    (context,) = store.put_contexts([mlpb.Context(type_id=group, name="members")])
    members = ids[:: max(1, len(ids) // 300)][:300]
    store.put_attributions_and_associations([mlpb.Attribution(artifact_id=i, context_id=context) for i in members], [])
    chain = store.put_artifacts([mlpb.Artifact(type_id=data, name=f"chain-{n}") for n in range(51)])
    # What put_execution uses is no part of the chain: else its lineage would hold a context for each call before.
    (used,) = store.put_artifacts([mlpb.Artifact(type_id=data, name="used")])
    links = store.put_executions([mlpb.Execution(type_id=job, name=f"link-{n}") for n in range(50)])
    store.put_events([event(chain[n + into], links[n], into) for n in range(50) for into in (0, 1)])
    numbers = iter(range(10**7, 10**9))
    lineage = mlpb.LineageSubgraphQueryOptions(max_num_hops=100, direction=mlpb.LineageSubgraphQueryOptions.UPSTREAM)
    lineage.starting_artifacts.filter_query = f"id = {chain[-1]}"

    def put_execution() -> None:
        number = next(numbers)
        store.put_execution(
            mlpb.Execution(type_id=job, name=f"run-{number}"),
            [
                (mlpb.Artifact(id=used, type_id=data, name="used"), mlpb.Event(type=mlpb.Event.INPUT)),
                (artifact(data, number), mlpb.Event(type=mlpb.Event.OUTPUT)),
            ],
            [mlpb.Context(type_id=group, name=f"context-{number}")],
        )

    page = mlpb.ListOperationOptions(max_result_size=20)
    filtered = mlpb.ListOperationOptions(max_result_size=20, filter_query=f"properties.rows.int_value = {rows // 2}")
    result = {
        "put_artifacts of 1, calls/s": rate(lambda: store.put_artifacts([artifact(data, next(numbers))])),
        "put_artifacts of 100, calls/s": rate(
            lambda: store.put_artifacts([artifact(data, next(numbers)) for _ in range(100)])
        ),
        "put_execution, calls/s": rate(put_execution),
        "all of a type, ms": 1000 * median(lambda: store.get_artifacts_by_type("Big")),
        "page of 20, ms": 1000 * median(lambda: ask(store, "GetArtifactsByType", type_name="Big", options=page)),
        "filter by property, ms": 1000 * median(lambda: ask(store, "GetArtifacts", options=filtered)),
        "artifacts of a context (300), ms": 1000 * median(lambda: store.get_artifacts_by_context(context)),
        # The client's own method asks again for each kind of node; the second is the RPC that walks, alone.
        "lineage of 100 hops, ms": 1000 * median(lambda: store.get_lineage_subgraph(lineage)),
        "lineage of 100 hops, one RPC, ms": 1000
        * median(lambda: ask(store, "GetLineageSubgraph", lineage_subgraph_query_options=lineage)),
        "one by id, ms": 1000 * median(lambda: store.get_artifacts_by_id([ids[0]])),
        "empty call, ms": 1000 * median(lambda: store.get_artifacts_by_id([])),
    }
    if target.startswith(("sqlite", "postgresql")):
        result["16 clients, mixed, calls/s"] = mixed([store] * 16, data, ids, numbers)
    else:
        result["16 clients, mixed, calls/s"] = mixed([connect(target) for _ in range(16)], data, ids, numbers)
    json.dump(result, sys.stdout)


def mixed(stores: list[Any], data: int, ids: list[int], numbers: Any) -> float:
    """Reads and writes from 16 threads: three reads by id, one page, one put each."""
    counts = [0] * len(stores)
    lock = threading.Lock()
    end = time.perf_counter() + 2 * SECONDS
    page = mlpb.ListOperationOptions(max_result_size=20)

    def work(index: int) -> None:
        store = stores[index]
        while time.perf_counter() < end:
            for step in range(3):
                store.get_artifacts_by_id([ids[(index * 31 + counts[index] + step) % len(ids)]])
            ask(store, "GetArtifactsByType", type_name="Big", options=page)
            with lock:
                number = next(numbers)
            store.put_artifacts([artifact(data, number)])
            counts[index] += 5

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(stores))]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
