"""filter_query's grammar against anything: an expression or INVALID_ARGUMENT, quickly, and never anything else."""

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import InvalidArgument
from mlmesh_metadata import tables
from mlmesh_metadata.filtering import parse_filter
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION
from mlmesh_metadata.store.filters import condition

KINDS = st.sampled_from([ARTIFACT, EXECUTION, CONTEXT])
_ALL = """
    id name type uri state LIVE properties.x.int_value custom_properties.`a b`.string_value contexts_0.name
    events_1.type parent_contexts_z.id = != < >= LIKE IN ( ) , AND OR NOT IS NULL BETWEEN TRUE FALSE 1 -1 1.5 'x' "y"
    0x1F + - * / ` ' ; -- /* */ # \\ 9223372036854775808 ''
"""
WORDS = st.sampled_from(_ALL.split())


def query(engine: sa.Engine, text: str, kind: object) -> None:
    """Parses and runs a query on an empty database."""
    wanted = parse_filter(text, kind)  # type: ignore[arg-type]
    with engine.connect() as connection:
        table = {"artifact": tables.artifacts, "execution": tables.executions, "context": tables.contexts}[kind.name]  # type: ignore[attr-defined]
        connection.execute(sa.select(table.c.id).where(condition(connection, kind, wanted))).all()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine() -> sa.Engine:
    made = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    tables.metadata.create_all(made)
    return made


@settings(max_examples=400, deadline=None)
@given(words=st.lists(WORDS, max_size=14), kind=KINDS)
@example(words=["id", "=", "-", "9223372036854775808"], kind=ARTIFACT)
@example(words=["id", "+", "9223372036854775807", ">", "0"], kind=ARTIFACT)
def test_any_sequence_of_words_is_answered_or_refused(engine: sa.Engine, words: list[str], kind: object) -> None:
    try:
        query(engine, " ".join(words), kind)
    except InvalidArgument as error:
        assert error.violations[0][0] == "options.filter_query" and error.message


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=80), kind=KINDS)
def test_any_text_is_answered_or_refused(engine: sa.Engine, text: str, kind: object) -> None:
    try:
        query(engine, text, kind)
    except InvalidArgument as error:
        assert "filter_query" in error.message


@settings(max_examples=200, deadline=None)
@given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40))
def test_a_quoted_string_is_a_value_whatever_it_holds(engine: sa.Engine, value: str) -> None:
    """Injection: what is quoted never becomes SQL, and comes out as it went in."""
    quoted = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    parsed = parse_filter(f"name = '{quoted}'", ARTIFACT)
    assert parsed.right.value == value  # type: ignore[union-attr]
    query(engine, f"name = '{quoted}' OR custom_properties.`x`.string_value LIKE '{quoted}'", ARTIFACT)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000 + "id = 1" + ")" * 10_000,
        "(" * 10_000,
        "NOT " * 10_000 + "id = 1",
        "id = " + "-" + " -" * 10_000 + "1",
        " OR ".join(["id = 1"] * 10_000),
        "id = " + " + ".join(["1"] * 10_000),
        "id IN (" + ",".join(["1"] * 20_000) + ")",
        "name = '" + "x" * 200_000 + "'",
        "id = 1; DROP TABLE Artifact",
        "name = 'x' UNION SELECT 1",
        "properties.`x' OR '1'='1`.int_value = ",
        "id = 1\0",
        "(id = 1)) OR ((1 = 1)",
        "/* " * 1000,
        "'" * 9_999,
    ],
)
def test_hostile_queries_are_refused(engine: sa.Engine, text: str) -> None:
    with pytest.raises(InvalidArgument):
        query(engine, text, ARTIFACT)


def test_the_limits_leave_room_for_real_queries(engine: sa.Engine) -> None:
    query(engine, " OR ".join(f"id = {n}" for n in range(400)), ARTIFACT)
    query(engine, "id IN (" + ",".join(map(str, range(9_000))) + ")", ARTIFACT)
    query(engine, "(" * 40 + "id = 1" + ")" * 40, ARTIFACT)
    query(engine, " AND ".join(f"properties.p{n}.int_value = {n}" for n in range(30)), ARTIFACT)
