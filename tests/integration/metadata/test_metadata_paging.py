"""Pages of lists: each item once and in order, whatever is added meanwhile."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

Order = mlpb.ListOperationOptions.OrderByField
FIELDS = {"create time": Order.CREATE_TIME, "last update time": Order.LAST_UPDATE_TIME, "id": Order.ID}
DIRECTIONS = {"ascending": True, "descending": False}


def options(size: int, order: str, direction: str, token: str = "") -> mlpb.ListOperationOptions:
    made = mlpb.ListOperationOptions(max_result_size=size, next_page_token=token)
    made.order_by_field.field = FIELDS[order]
    made.order_by_field.is_asc = DIRECTIONS[direction]
    return made


def pages(
    client: Any,
    method: str,
    size: int,
    order: str,
    direction: str,
    between: Callable[[], None] = lambda: None,
    **of: Any,
) -> Iterator[list[mlpb.Artifact]]:
    token = ""
    for _ in range(100):
        answer = client.call(method, options=options(size, order, direction, token), **of)
        yield list(answer.artifacts)
        token = answer.next_page_token
        if not token:
            return
        between()
    raise AssertionError("the list does not end")


def sort_key(order: str) -> Callable[[mlpb.Artifact], tuple[int, int]]:
    field = {"create time": "create_time_since_epoch", "last update time": "last_update_time_since_epoch", "id": "id"}
    return lambda node: (getattr(node, field[order]), node.id)


@pytest.fixture
def shelf(client: Any, fresh_name: Any) -> tuple[str, int, int, list[int]]:
    """Artifacts of one type and in one context: in two batches (so that times are equal), some changed since."""
    name = fresh_name("Paged")
    type_id = client.artifact_type(name)
    (context,) = client.contexts(mlpb.Context(type_id=client.context_type(), name=name))
    ids = client.artifacts(*(mlpb.Artifact(type_id=type_id) for _ in range(9)))
    ids += client.artifacts(*(mlpb.Artifact(type_id=type_id) for _ in range(9)))
    for artifact_id in (ids[3], ids[12], ids[0]):
        client.artifacts(mlpb.Artifact(id=artifact_id, uri="changed"))
    links = [mlpb.Attribution(artifact_id=artifact_id, context_id=context) for artifact_id in ids]
    client.call("PutAttributionsAndAssociations", attributions=links)
    return name, type_id, context, ids


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("order", FIELDS)
@pytest.mark.parametrize("method", ["GetArtifacts", "GetArtifactsByType", "GetArtifactsByContext"])
def test_inserts_between_pages_repeat_and_lose_nothing(
    client: Any, shelf: tuple[str, int, int, list[int]], method: str, order: str, direction: str
) -> None:
    name, type_id, context, ids = shelf
    of = {"GetArtifactsByType": {"type_name": name}, "GetArtifactsByContext": {"context_id": context}}.get(method, {})
    inserted: set[int] = set()

    def insert() -> None:
        new = client.artifacts(*(mlpb.Artifact(type_id=type_id) for _ in range(3)))
        links = [mlpb.Attribution(artifact_id=artifact_id, context_id=context) for artifact_id in new]
        client.call("PutAttributionsAndAssociations", attributions=links)
        inserted.update(new)

    rounds = itertools.count()
    seen = [
        node
        for page in pages(client, method, 5, order, direction, lambda: insert() if next(rounds) < 3 else None, **of)
        for node in page
    ]
    seen_ids = [node.id for node in seen]
    assert len(seen_ids) == len(set(seen_ids))
    assert set(ids) <= set(seen_ids)
    assert inserted
    keys = [sort_key(order)(node) for node in seen]
    assert keys == sorted(keys, reverse=not DIRECTIONS[direction])
    if direction == "descending":  # what is new comes first, on a page that has been read
        assert not inserted & set(seen_ids)
    else:
        assert inserted <= set(seen_ids)


@pytest.mark.parametrize("size", [1, 6, 9, 17, 18, 19])
def test_pages_are_full_and_the_last_has_no_token(
    client: Any, shelf: tuple[str, int, int, list[int]], size: int
) -> None:
    name, _, _, ids = shelf
    lengths = [len(page) for page in pages(client, "GetArtifactsByType", size, "id", "ascending", type_name=name)]
    assert sum(lengths) == len(ids)
    assert all(length == size for length in lengths[:-1]) and 0 < lengths[-1] <= size


def test_a_page_has_at_most_100(client: Any) -> None:
    type_id = client.artifact_type("Crowd")
    client.artifacts(*(mlpb.Artifact(type_id=type_id) for _ in range(101)))
    sizes = [len(page) for page in pages(client, "GetArtifactsByType", 2**31 - 1, "id", "ascending", type_name="Crowd")]
    assert sizes == [100, 1]
    assert len(client.call("GetArtifactsByType", type_name="Crowd").artifacts) == 101  # without options: all


def test_a_token_is_good_for_its_own_list_only(
    client: Any, shelf: tuple[str, int, int, list[int]], refused: Any
) -> None:
    name, _, context, _ = shelf
    client.artifact_type("Other shelf")
    first = client.call("GetArtifactsByType", type_name=name, options=options(5, "id", "ascending"))
    token = first.next_page_token
    elsewhere: list[tuple[str, dict[str, Any], str, str]] = [
        ("GetArtifactsByType", {"type_name": name}, "id", "descending"),
        ("GetArtifactsByType", {"type_name": name}, "create time", "ascending"),
        ("GetArtifactsByType", {"type_name": "Other shelf"}, "id", "ascending"),
        ("GetArtifactsByContext", {"context_id": context}, "id", "ascending"),
        ("GetArtifacts", {}, "id", "ascending"),
        ("GetExecutions", {}, "id", "ascending"),
    ]
    for method, of, order, direction in elsewhere:
        asked = options(5, order, direction, token)
        refusal = refused(lambda m=method, o=of, a=asked: client.call(m, options=a, **o))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.fields == ("options.next_page_token",), method
    other_size = client.call("GetArtifactsByType", type_name=name, options=options(7, "id", "ascending", token))
    assert len(other_size.artifacts) == 7
