"""Updates by a mask: what it names is taken from the request, and nothing else."""

from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st
from mlmesh_metadata.nodes import _masked
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

T = TypeVar("T")
FIXED = ("id", "name", "type_id", "type", "create_time_since_epoch", "last_update_time_since_epoch")
MUTABLE = ("uri", "state", "external_id", "properties", "custom_properties")
KEYS = st.sampled_from(["a", "b", "c", "dotted.key", "é"])


def maybe(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    return st.none() | strategy


properties = st.dictionaries(KEYS, st.integers(0, 3).map(lambda v: mlpb.Value(int_value=v)), max_size=4)
artifacts = st.builds(
    mlpb.Artifact,
    id=st.integers(1, 3),
    type_id=maybe(st.integers(1, 3)),
    type=maybe(st.text(max_size=2)),
    name=maybe(st.text(max_size=2)),
    uri=maybe(st.text(max_size=2)),
    external_id=maybe(st.text(max_size=2)),
    state=maybe(st.sampled_from([mlpb.Artifact.LIVE, mlpb.Artifact.DELETED])),
    create_time_since_epoch=maybe(st.integers(0, 3)),
    last_update_time_since_epoch=maybe(st.integers(0, 3)),
    properties=properties,
    custom_properties=properties,
)
keyed = st.builds("{}.{}".format, st.sampled_from(["properties", "custom_properties"]), KEYS)
paths = st.sampled_from([*MUTABLE, *FIXED, "nothing", "", ".", "uri.x"]) | keyed
masks = st.lists(paths, max_size=6)


def field(node: mlpb.Artifact, name: str) -> object:
    value = getattr(node, name)
    if name.endswith("properties"):
        return {key: item.SerializeToString() for key, item in value.items()}
    return (node.HasField(name), value)


@given(artifacts, artifacts, masks)
def test_fixed_fields_and_those_not_named_stay(stored: mlpb.Artifact, request: mlpb.Artifact, mask: list[str]) -> None:
    result = _masked(stored, request, mask)
    named = {path.partition(".")[0] for path in mask}
    for name in (*FIXED, *(name for name in MUTABLE if name not in named)):
        assert field(result, name) == field(stored, name)


@given(artifacts, artifacts, masks)
def test_what_is_named_whole_is_as_requested(stored: mlpb.Artifact, request: mlpb.Artifact, mask: list[str]) -> None:
    result = _masked(stored, request, mask)
    for name in set(MUTABLE) & set(mask):
        assert field(result, name) == field(request, name)


@given(artifacts, artifacts, st.lists(keyed, max_size=6))
def test_a_property_is_changed_alone(stored: mlpb.Artifact, request: mlpb.Artifact, mask: list[str]) -> None:
    result = _masked(stored, request, mask)
    for name in ("properties", "custom_properties"):
        before, wanted, after = (getattr(node, name) for node in (stored, request, result))
        for key in {*before, *wanted}:
            source = wanted if f"{name}.{key}" in mask else before
            assert after.get(key) == source.get(key)
        assert set(after) <= {*before, *wanted}


@given(artifacts, artifacts, masks, masks)
def test_order_and_repetition_do_not_matter(
    stored: mlpb.Artifact, request: mlpb.Artifact, one: list[str], other: list[str]
) -> None:
    result = _masked(stored, request, one + other)
    assert _masked(stored, request, other + one + one) == result
    assert _masked(_masked(stored, request, one), request, other) == result


@given(artifacts, artifacts, masks)
def test_what_is_given_is_not_changed(stored: mlpb.Artifact, request: mlpb.Artifact, mask: list[str]) -> None:
    before = stored.SerializeToString(deterministic=True), request.SerializeToString(deterministic=True)
    _masked(stored, request, mask)
    assert (stored.SerializeToString(deterministic=True), request.SerializeToString(deterministic=True)) == before


@given(st.builds(mlpb.Context, id=st.just(1), name=maybe(st.text(max_size=2)), custom_properties=properties), masks)
def test_contexts_have_no_uri_to_change(stored: mlpb.Context, mask: list[str]) -> None:
    result = _masked(stored, mlpb.Context(id=1), mask)
    assert result.name == stored.name
