"""Property values through the columns of a database, and back."""

import base64
import math
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from google.protobuf import any_pb2, struct_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlmesh_metadata.tables import artifact_properties
from mlmesh_metadata.values import COLUMNS, from_columns, to_columns, unstorable
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

PREFIX = "mlmd-struct::"
INT64 = st.integers(-(2**63), 2**63 - 1)

members = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _struct(content: dict[str, object]) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(content)
    return made


structs = st.dictionaries(st.text(), members, max_size=4).map(_struct)
packed = st.builds(any_pb2.Any, type_url=st.text(), value=st.binary(max_size=64))
texts = st.text() | st.text().map(PREFIX.__add__) | st.binary().map(lambda b: PREFIX + base64.b64encode(b).decode())
values = st.one_of(
    INT64.map(lambda v: mlpb.Value(int_value=v)),
    st.floats().map(lambda v: mlpb.Value(double_value=v)),
    texts.map(lambda v: mlpb.Value(string_value=v)),
    structs.map(lambda v: mlpb.Value(struct_value=v)),
    packed.map(lambda v: mlpb.Value(proto_value=v)),
    st.booleans().map(lambda v: mlpb.Value(bool_value=v)),
)


@pytest.fixture(scope="module")
def connection() -> sa.Connection:
    engine = sa.create_engine("sqlite://")
    made = engine.connect()
    artifact_properties.create(made)
    return made


def through_the_database(connection: sa.Connection, value: mlpb.Value) -> mlpb.Value:
    row = {
        "artifact_id": 1,
        "name": "p",
        "is_custom_property": 0,
        **dict(zip(COLUMNS, to_columns(value, value.WhichOneof("value")), strict=True)),
    }
    connection.execute(sa.insert(artifact_properties).values(row))
    found = connection.execute(sa.select(artifact_properties)).one()
    connection.rollback()
    return from_columns(found)


@settings(max_examples=300, deadline=None)
@given(value=values)
@example(value=mlpb.Value(double_value=-0.0))
@example(value=mlpb.Value(double_value=math.inf))
@example(value=mlpb.Value(double_value=math.nan))
@example(value=mlpb.Value(string_value=""))
@example(value=mlpb.Value(string_value="\x00"))
@example(value=mlpb.Value(string_value=PREFIX))
@example(value=mlpb.Value(struct_value=struct_pb2.Struct()))
@example(value=mlpb.Value(proto_value=any_pb2.Any()))
@example(value=mlpb.Value(int_value=-(2**63)))
def test_a_value_comes_back_as_it_is_or_is_refused(connection: sa.Connection, value: mlpb.Value) -> None:
    if unstorable(value, value.WhichOneof("value") or ""):
        return
    back = through_the_database(connection, value)
    assert back.WhichOneof("value") == value.WhichOneof("value")
    if value.WhichOneof("value") == "double_value":
        assert back.double_value == value.double_value  # SQLite makes 0.0 of -0.0
        return
    # As bytes: a struct may hold NaN, which equals nothing.
    assert back.SerializeToString(deterministic=True) == value.SerializeToString(deterministic=True)


@given(value=values)
def test_little_is_refused(value: mlpb.Value) -> None:
    kind = value.WhichOneof("value")
    odd = (kind == "double_value" and math.isnan(value.double_value)) or value.string_value.startswith(PREFIX)
    assert bool(unstorable(value, value.WhichOneof("value") or "")) is odd


@given(value=values)
def test_one_column_is_used(value: mlpb.Value) -> None:
    columns = dict(zip(COLUMNS, to_columns(value, value.WhichOneof("value")), strict=True))
    assert set(columns) == set(COLUMNS)
    assert sum(content is not None for content in columns.values()) == 1


@given(text=texts)
def test_any_text_that_is_there_can_be_read(text: str) -> None:
    """Another program may have written what we would refuse."""
    row = SimpleNamespace(**{**dict.fromkeys(COLUMNS), "string_value": text})
    found = from_columns(row)
    assert found.WhichOneof("value") in {"string_value", "struct_value"}
    assert found.HasField("struct_value") or found.string_value == text


def test_no_value_is_no_value() -> None:
    assert set(to_columns(mlpb.Value(), None)) == {None}
    assert from_columns(SimpleNamespace(**dict.fromkeys(COLUMNS))) == mlpb.Value()
