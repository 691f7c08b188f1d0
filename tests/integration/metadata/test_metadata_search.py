"""Full-text search, on each database: what is found, in which order, and that the index follows what is stored."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import question_pb2

OPERATORS = [
    'classifier" OR "nightly',
    "classifier OR nightly",
    "classifier | nightly",
    "classifier || nightly",
    "classifier -absent",
    "classifier NOT absent",
    "classifier & !absent",
    "words : classifier",
    "NEAR(classifier digits)",
    "classifier) OR (nightly",
    "+classifier ~absent >absent <absent",
    "classifier ^absent @2",
    "classifier' OR '1'='1",
    "classifier'; DROP TABLE mlmesh_search_document; --",
    "classifier <-> absent",
    "classifier:A | absent",
    "%s :query $1 ? {classifier} \\'",
]
"""Each has a word that no document has beside the others: whoever answers took something for an operator."""


@dataclass
class Searcher:
    """A service with a few nodes in it."""

    client: Any
    database_url: str

    def ask(self, query: str, **more: Any) -> question_pb2.SearchNodesResponse:
        request = question_pb2.SearchNodesRequest(query=query, **more)
        answer: question_pb2.SearchNodesResponse = self.client.lineage.SearchNodes(request, timeout=30)
        return answer

    def names(self, query: str, **more: Any) -> list[str]:
        return [node.name for node in self.ask(query, **more).nodes]


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"], scope="module")
def searcher(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, connect: Any
) -> Iterator[Searcher]:
    folder: Path = tmp_path_factory.mktemp("search")
    if request.param == "sqlite":
        url = f"sqlite:///{folder}/test.db"
    else:
        url = request.getfixturevalue(f"{request.param}_server").make_database()
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", folder, {"DATABASE_URL": url}) as process:
        client = connect(process)
        model = client.artifact_type("system.Model", accuracy=mlpb.DOUBLE)
        data = client.artifact_type("system.Dataset")
        job = client.execution_type("train.Job")
        digits = mlpb.Artifact(
            type_id=model, name="digits-classifier", uri="s3://models/digits/v7/model.pkl", external_id="ext-4711"
        )
        digits.properties["accuracy"].double_value = 0.96875
        digits.custom_properties["owner"].string_value = "Zoë Müller"
        digits.custom_properties["settings"].struct_value.update({"layers": [128, 64], "dropout": {"rate": 0.5}})
        client.artifacts(
            digits,
            mlpb.Artifact(type_id=data, name="digits training set", uri="file:///data/digits.csv"),
            mlpb.Artifact(type_id=data, name="the is at", uri="file:///a/b"),
            mlpb.Artifact(type_id=data, name="数据集 обучение 𠀋"),
            mlpb.Artifact(type_id=data, name="training digits " * 3, uri="file:///c"),
        )
        client.executions(mlpb.Execution(type_id=job, name="train digits"))
        client.contexts(mlpb.Context(type_id=client.context_type("run"), name="nightly run 12"))
        yield Searcher(client, url)
        client.channel.close()
        assert "Traceback" not in process.log_path.read_text()


def test_words_phrases_and_beginnings(searcher: Searcher) -> None:
    names = searcher.names
    assert names("classifier") == ["digits-classifier"]
    assert names("CLASSIFIER Digits") == ["digits-classifier"]
    assert names("class") == [] and names("class*") == ["digits-classifier"]
    assert names("digits class* system.Mod*") == ["digits-classifier"]
    assert names("ext-4711") == ["digits-classifier"] and names("4711-ext") == []
    assert names("s3://models/digits/v7/model.pkl") == ["digits-classifier"]
    assert names("muller zoe") == ["digits-classifier"] == names('"zoë MÜLLER"')
    assert names("0.96875") == ["digits-classifier"] == names("accuracy layers 128 dropout 0.5")
    assert names('"training digits"') == ["training digits " * 3]
    assert names('"digits training"  set') == ["digits training set"]
    assert names('"set file"') == [], "a phrase went from one field into the next"
    assert names("classifier train*") == []
    assert names("数据") == names("据集 обуч*") == names("𠀋") == ["数据集 обучение 𠀋"] and names("集据") == []
    # What MariaDB alone would not index: stop words and short ones.
    assert names("the") == names('"is at"') == names("a b the") == ["the is at"]
    assert searcher.ask("classifier").complete


def test_order_and_filters(searcher: Searcher) -> None:
    found = searcher.names("digits training")
    assert found[0] == "training digits " * 3, "it has the words most often, in the shortest text"
    assert set(found) == {"training digits " * 3, "digits training set"}
    assert {(node.kind, node.name) for node in searcher.ask("train* digits").nodes} >= {("execution", "train digits")}
    assert searcher.names("digits", kind="execution") == ["train digits"]
    assert searcher.names("digits", kind="context") == []
    assert searcher.names("digits", type="system.Model") == ["digits-classifier"]
    assert searcher.names("digits", kind="execution", type="system.Model") == []
    (node,) = searcher.ask("nightly").nodes
    assert (node.kind, node.type, node.name) == ("context", "run", "nightly run 12")


@pytest.mark.parametrize("query", OPERATORS)
def test_operators_are_words(searcher: Searcher, query: str, refused: Any) -> None:
    try:
        assert searcher.names(query) == []
    except grpc.RpcError:
        assert refused(lambda: searcher.ask(query)).code == grpc.StatusCode.INVALID_ARGUMENT
    assert searcher.names("classifier") == ["digits-classifier"]


def test_bad_requests(searcher: Searcher, refused: Any) -> None:
    token = searcher.ask("digits", page_size=1).next_page_token
    bad: list[tuple[str, dict[str, Any]]] = [
        ("query", {"query": ""}),
        ("query", {"query": " ... -- \u2026 * "}),
        ("query", {"query": "x" * 1001}),
        ("query", {"query": "a " * 21}),
        ("query", {"query": '"no end'}),
        ("query", {"query": "mo*el"}),
        ("kind", {"query": "a", "kind": "Artifact"}),
        ("page_size", {"query": "a", "page_size": 1001}),
        ("page_size", {"query": "a", "page_size": -1}),
        ("page_token", {"query": "a", "page_token": "x"}),
        ("page_token", {"query": "model", "page_token": token}),
    ]
    for field, request in bad:
        refusal = refused(lambda request=request: searcher.ask(**request))
        assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,)), request


def test_the_index_follows(searcher: Searcher) -> None:
    client = searcher.client
    (first,) = client.artifacts(mlpb.Artifact(type_id=client.artifact_type("system.Dataset"), name="follower"))
    assert searcher.names("follower") == ["follower"] and searcher.names("sunflower") == []
    node = client.artifact(first)
    node.custom_properties["plant"].string_value = "sunflower"
    client.artifacts(node)
    assert searcher.names("sunflower") == ["follower"]
    node.custom_properties["plant"].string_value = "rose"
    client.artifacts(node)
    assert searcher.names("sunflower") == [] and searcher.names("rose") == ["follower"]


def test_what_others_write_is_found(searcher: Searcher) -> None:
    """Another writer, as MLMD is: its transaction began before others that committed earlier and were searched for."""
    client = searcher.client
    engine = sa.create_engine(searcher.database_url)
    now = int(time.time() * 1000)
    name = "Artifact" if engine.dialect.name != "postgresql" else "artifact"
    table = sa.Table(name, sa.MetaData(), autoload_with=engine)
    type_id = client.artifact_type("system.Dataset")
    with engine.begin() as connection:
        row = {"type_id": type_id, "name": "foreign", "create_time_since_epoch": now - 20_000}
        if engine.dialect.name != "sqlite":  # which has one writer at a time
            connection.execute(sa.insert(table).values(**row, last_update_time_since_epoch=now - 20_000))
        client.artifacts(mlpb.Artifact(type_id=type_id, name="domestic"))
        assert searcher.names("domestic") == ["domestic"] and searcher.names("foreign") == []
        if engine.dialect.name == "sqlite":
            connection.execute(sa.insert(table).values(**row, last_update_time_since_epoch=now - 20_000))
    assert searcher.names("foreign") == ["foreign"]
    with engine.begin() as connection:
        connection.execute(sa.delete(table).where(table.c.name == "foreign"))
    assert searcher.names("foreign") == []
    engine.dispose()


def test_pages(searcher: Searcher) -> None:
    client = searcher.client
    type_id = client.artifact_type("paged")
    client.artifacts(*(mlpb.Artifact(type_id=type_id, name=f"page {number}") for number in range(25)))
    seen, token = [], ""
    while True:
        answer = searcher.ask("page", type="paged", page_size=7, page_token=token)
        seen += [node.id for node in answer.nodes]
        token = answer.next_page_token
        if not token:
            break
    assert len(seen) == 25 == len(set(seen))
    assert seen == [node.id for node in searcher.ask("page", type="paged").nodes]
    assert seen == sorted(seen, reverse=True), "of equally good ones the newest comes first"


def test_searches_and_writers_at_once(searcher: Searcher) -> None:
    client = searcher.client
    type_id = client.artifact_type("contended")

    def write_and_find(number: int) -> list[str]:
        word = f"contender{number}"
        client.artifacts(mlpb.Artifact(type_id=type_id, name=word))
        return searcher.names(word)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write_and_find, range(40))) == [[f"contender{number}"] for number in range(40)]


def test_a_large_database_is_indexed_in_parts(tmp_path: Path, connect: Any, fresh_name: Callable[[str], str]) -> None:
    """More than one search indexes: written while there was no service, found when the background has caught up."""
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path) as process:
        client = connect(process)
        type_id = client.artifact_type("large")
        (last,) = client.artifacts(mlpb.Artifact(type_id=type_id, name="newest"))
        client.channel.close()
    engine = sa.create_engine(f"sqlite:///{next(tmp_path.rglob('*.db'))}")
    table = sa.Table("Artifact", sa.MetaData(), autoload_with=engine)
    now = int(time.time() * 1000)
    rows = [
        {"type_id": type_id, "name": f"n{number}", "create_time_since_epoch": now, "last_update_time_since_epoch": now}
        for number in range(30_000)
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(table), rows)
    engine.dispose()
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path) as process:
        client = connect(process)
        searcher = Searcher(client, "")
        assert not searcher.ask("newest").complete
        deadline = time.monotonic() + 60
        while not searcher.ask("newest").complete:
            assert time.monotonic() < deadline
        assert searcher.names("n29999") == ["n29999"]
        assert last in {node.id for node in searcher.ask("newest").nodes}
        client.channel.close()
