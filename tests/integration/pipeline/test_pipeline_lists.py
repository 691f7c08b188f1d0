"""Lists: filters, order and pages, alike on every database."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.paging import encode_page_token
from mlmesh_pipeline.listing import ListQuery, Operation, Predicate
from mlmesh_pipeline.resources import Experiment, Pipeline, PipelineVersion, StorageState
from mlmesh_pipeline.servicers.convert import list_query
from mlmesh_pipeline.store import ExperimentStore, PipelineStore, RecurringRunStore, RunStore
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import experiment_pb2, filter_pb2

_SECOND = 1_000_000
_NAMES = ["a", "B", "b", "a b", "a_b", "a%b", "a/b", "A-B", "äÖ", "ab ", "日本", "😀", "x" * 191, "Zz"]
_TEXT = ["", "why", "Why", "w" * 5000 + "1", "w" * 5000 + "2"]


def _rows() -> list[Experiment]:
    return [
        Experiment(
            experiment_id=f"id-{number:02}",
            namespace="default",
            display_name=name,
            description=_TEXT[number % len(_TEXT)],
            created_at=1_700_000_000 * _SECOND + number // 3 * 400_000,  # several at once, several in one second
            storage_state=StorageState.ARCHIVED if number % 4 == 0 else StorageState.AVAILABLE,
            last_run_created_at=0 if number % 2 else 1_700_000_001 * _SECOND,
        )
        for number, name in enumerate(_NAMES)
    ]


@pytest.fixture
def store(database_url: str) -> ExperimentStore:
    engine = create_engine(database_url)
    migrate(engine, "mlmesh_pipeline")
    experiments = ExperimentStore(engine)
    other = Experiment("other", "other", "a", created_at=1_700_000_000 * _SECOND)
    for row in [*_rows(), other]:
        experiments.create(row)
    return experiments


_STRINGS = {
    "display_name": [*_NAMES, "A", "ab", "none"],
    "name": _NAMES,
    "description": [*_TEXT, "w", "W"],
    "storage_state": ["AVAILABLE", "ARCHIVED", "available"],
    "experiment_id": ["id-03", "id-", "ID-03"],
    "id": ["id-00"],
    "namespace": ["default", "other"],
}
_TIMES = [1_700_000_000 * _SECOND + offset for offset in (0, 1, 400_000, 800_000, 1_200_000, 1_600_000, -1)]
_FIELD = {"id": "experiment_id", "name": "display_name"}
_COMPARED = [one for one in Operation if one not in {Operation.IN, Operation.IS_SUBSTRING}]


@st.composite
def _predicates(draw: st.DrawFn) -> Predicate:
    if draw(st.booleans()):
        key = draw(st.sampled_from(sorted(_STRINGS)))
        value = st.sampled_from(_STRINGS[key])
        operation = draw(st.sampled_from(Operation))
        return Predicate(key, operation, draw(st.lists(value, max_size=4) if operation == Operation.IN else value))
    key = draw(st.sampled_from(["created_at", "last_run_created_at"]))
    whole_seconds = draw(st.booleans())
    times = sorted({time // _SECOND for time in _TIMES} | {0}) if whole_seconds else [*_TIMES, 0]
    operation = draw(st.sampled_from([*_COMPARED, Operation.IN]))
    value = st.sampled_from(times)
    given_value = draw(st.lists(value, max_size=4) if operation == Operation.IN else value)
    return Predicate(key, operation, given_value, whole_seconds)


def _lower(text: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in text)


def _holds(row: Experiment, predicate: Predicate) -> bool:
    found = getattr(row, _FIELD.get(predicate.key, predicate.key))
    found = found // _SECOND if predicate.whole_seconds else found
    value = predicate.value
    match predicate.operation:
        case Operation.EQUALS:
            return bool(found == value)
        case Operation.NOT_EQUALS:
            return bool(found != value)
        case Operation.GREATER_THAN:
            return bool(found > value)
        case Operation.GREATER_THAN_EQUALS:
            return bool(found >= value)
        case Operation.LESS_THAN:
            return bool(found < value)
        case Operation.LESS_THAN_EQUALS:
            return bool(found <= value)
        case Operation.IN:
            return found in value
        case Operation.IS_SUBSTRING:
            return _lower(value) in _lower(found)


def _all_pages(store: ExperimentStore, query: ListQuery, *, bare: bool) -> tuple[list[str], set[int]]:
    ids, totals, token = [], set(), ""
    while True:
        asked = ListQuery(page_size=query.page_size, page_token=token) if token and bare else query
        page = store.page("default", ListQuery(asked.predicates, asked.sort_by, query.page_size, token))
        assert len(page.items) <= query.page_size
        ids += [row.experiment_id for row in page.items]
        totals.add(page.total_size)
        token = page.next_page_token
        if not token:
            return ids, totals


_SORTED = ["created_at", "display_name", "description", "storage_state", "last_run_created_at", "experiment_id"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    predicates=st.lists(_predicates(), max_size=3),
    sort_by=st.sampled_from(["", *_SORTED]),
    direction=st.sampled_from(["", " asc", " desc", " DESC"]),
    page_size=st.integers(1, 20),
    bare=st.booleans(),
)
def test_pages_give_each_row_once_in_order(store, predicates, sort_by, direction, page_size, bare):
    query = ListQuery(tuple(predicates), sort_by + direction if sort_by else "", page_size)
    ids, totals = _all_pages(store, query, bare=bare and len(json.dumps([p.value for p in predicates])) < 500)
    rows = [row for row in _rows() if all(_holds(row, predicate) for predicate in predicates)]

    def place(row: Experiment) -> tuple[object, str]:
        value = getattr(row, sort_by or "created_at")
        return value[:191] if isinstance(value, str) else value, row.experiment_id

    rows.sort(key=place, reverse=bool(sort_by) and "desc" in direction.lower())
    assert ids == [row.experiment_id for row in rows]
    assert totals == {len(rows)}


def test_pages_stay_put_while_rows_come_and_go(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    migrate(engine, "mlmesh_pipeline")
    store = ExperimentStore(engine)
    for row in _rows():
        store.create(row)
    for sort_by in ("created_at", "display_name desc", "description"):
        first = store.page("default", ListQuery(sort_by=sort_by, page_size=5))
        seen = [row.experiment_id for row in first.items]
        store.delete(seen[-1])  # where the next page begins
        early = Experiment(f"new-{sort_by}", "default", f"!{sort_by}", "", created_at=1)
        late = Experiment(f"zew-{sort_by}", "default", f"\U0010fffd{sort_by}", "z", created_at=2_000_000_000 * _SECOND)
        for row in (early, late):
            store.create(row)
        token = first.next_page_token
        while token:
            page = store.page("default", ListQuery(sort_by=sort_by, page_size=5, page_token=token))
            seen += [row.experiment_id for row in page.items]
            token = page.next_page_token
        assert len(seen) == len(set(seen))
        there = {row.experiment_id for row in store.page("default", ListQuery(page_size=200)).items}
        assert there - set(seen) <= {early.experiment_id, late.experiment_id}
        assert (
            len({early.experiment_id, late.experiment_id} & set(seen)) == 1
        )  # the one that comes after the first page


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[ExperimentStore, PipelineStore, RunStore, RecurringRunStore]:
    engine = create_engine(f"sqlite:///{tmp_path_factory.mktemp('lists')}/x.db")
    migrate(engine, "mlmesh_pipeline")
    found = ExperimentStore(engine), PipelineStore(engine), RunStore(engine), RecurringRunStore(engine)
    for row in _rows():
        found[0].create(row)
    return found


_KFP_FIELDS = {
    0: "id experiment_id name display_name created_at description namespace storage_state last_run_created_at",
    1: "id pipeline_id name display_name created_at description namespace",
    2: "id run_id name display_name created_at finished_at scheduled_at description storage_state status state "
    "namespace experiment_id recurring_run_id pipeline_id service_account",
    3: "id recurring_run_id name display_name created_at updated_at description",
}


@pytest.mark.parametrize(
    ("which", "field"), [(which, field) for which, fields in _KFP_FIELDS.items() for field in fields.split()]
)
def test_what_kfp_filters_and_sorts_by_is_known(stores, which, field):
    is_time = field.endswith("_at")
    for operation in _COMPARED:
        value = 1 if is_time else "x"
        query = ListQuery((Predicate(field, operation, value),), f"{field} desc")
        arguments = ("default", "", query) if which >= 2 else ("default", query)
        assert stores[which].page(*arguments).total_size >= 0


@pytest.mark.parametrize(
    ("predicate", "word"),
    [
        (Predicate("name", Operation.EQUALS, 1), "string"),
        (Predicate("name", Operation.IN, "x"), "list"),
        (Predicate("name", Operation.IN, [1]), "string"),
        (Predicate("name", Operation.IN, ["x"] * 1001), "1000"),
        (Predicate("name", Operation.EQUALS, ["x"]), "one value"),
        (Predicate("name", Operation.IS_SUBSTRING, "x" * 10_001), "10000"),
        (Predicate("name", Operation.EQUALS, "a\0b"), "NUL"),
        (Predicate("name", Operation.EQUALS, "\ud800"), "NUL"),
        (Predicate("created_at", Operation.IS_SUBSTRING, 1), "strings"),
        (Predicate("created_at", Operation.EQUALS, "2024"), "time"),
        (Predicate("created_at", Operation.EQUALS, 2**63 - 1, whole_seconds=True), "time"),
        (Predicate("created_at", Operation.IN, [2**62]), "time"),
        (Predicate("tags.x", Operation.EQUALS, "x"), "tags.x"),
    ],
)
def test_what_does_not_fit_names_the_key(stores, predicate, word):
    with pytest.raises(InvalidArgument, match=word) as caught:
        stores[0].page("default", ListQuery((predicate,)))
    assert caught.value.message.startswith("filter: ")


def test_tokens_are_good_for_their_list_alone(stores):
    experiments, pipelines, *_ = stores
    some = (Predicate("name", Operation.NOT_EQUALS, "none"),)
    token = experiments.page("default", ListQuery(some, "name desc", 2)).next_page_token
    others = [
        lambda: pipelines.page("default", ListQuery(page_token=token)),
        lambda: experiments.page("other", ListQuery(page_token=token)),
        lambda: experiments.page("default", ListQuery(some, "name asc", 2, token)),
        lambda: experiments.page("default", ListQuery((), "name desc", 2, token)),
        lambda: experiments.page("default", ListQuery((*some, *some), "name desc", 2, token)),
        *(
            lambda cut=cut: experiments.page("default", ListQuery(page_token=token[:cut]))
            for cut in range(1, len(token))
        ),
    ]
    for ask in others:
        with pytest.raises(InvalidArgument, match="page_token"):
            ask()
    assert experiments.page("default", ListQuery(some, " name  desc", 3, token)).items


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=10,
)
_MADE_UP = st.one_of(
    _JSON,
    st.tuples(st.tuples(_JSON, _JSON, _JSON), st.sampled_from(["", "name", "nope", "created_at desc"]), _JSON),
    st.tuples(
        st.tuples(st.integers() | st.text(max_size=3), st.text(st.characters(), max_size=3), st.integers(0, 5)),
        st.sampled_from(["", "name", "created_at desc"]),
        st.lists(
            st.tuples(
                st.sampled_from(["name", "created_at", "no", "tags.x"]), st.sampled_from(Operation), _JSON, _JSON
            ),
            max_size=2,
        ),
    ),
)


@settings(max_examples=300, deadline=None)
@given(content=_MADE_UP)
def test_a_made_up_token_is_refused_or_harmless(stores, content):
    token = encode_page_token(content, ["experiments", "namespace", "default"])
    try:
        page = stores[0].page("default", ListQuery(page_token=token))
    except InvalidArgument:
        return
    assert all(row.namespace == "default" for row in page.items)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(), max_size=30) | _JSON.map(json.dumps))
def test_any_text_as_a_filter(stores, text):
    try:
        request = experiment_pb2.ListExperimentsRequest(filter=text)
    except ValueError:
        return  # no UTF-8: it cannot be sent
    try:
        stores[0].page("default", list_query(request))
    except InvalidArgument as error:
        assert error.message.startswith("filter: ")


@pytest.mark.parametrize("operation", [0, 4, 10, 99, -1])
def test_operations_that_there_are_not(operation):
    text = json.dumps({"predicates": [{"key": "name", "operation": operation, "stringValue": "x"}]})
    with pytest.raises(InvalidArgument, match=r"filter: .*EQUALS"):
        list_query(experiment_pb2.ListExperimentsRequest(filter=text))


def test_every_kind_of_value_is_read():
    predicates = [
        {"key": "created_at", "operation": "EQUALS", "intValue": 5},
        {"key": "created_at", "operation": "EQUALS", "longValue": "5"},
        {"key": "created_at", "operation": "IN", "intValues": {"values": [5]}},
        {"key": "created_at", "operation": "IN", "longValues": {"values": ["5"]}},
        {"key": "created_at", "operation": "EQUALS", "timestampValue": "1970-01-01T00:00:05.000001Z"},
        {"key": "name", "operation": "EQUALS", "stringValue": "x"},
        {"key": "name", "operation": "IN", "string_values": {"values": ["x"]}},
    ]
    query = list_query(experiment_pb2.ListExperimentsRequest(filter=json.dumps({"predicates": predicates})))
    read = [(one.value, one.whole_seconds) for one in query.predicates]
    assert read == [(5, True), (5, True), ([5], True), ([5], True), (5_000_001, False), ("x", False), (["x"], False)]
    kinds = {field.name for field in filter_pb2.Predicate.DESCRIPTOR.oneofs_by_name["value"].fields}
    assert kinds == {
        "int_value",
        "long_value",
        "string_value",
        "timestamp_value",
        "int_values",
        "long_values",
        "string_values",
    }


def test_a_page_is_no_larger_than_an_answer_may_be(stores):
    pipelines = stores[1]
    pipeline = pipelines.create(Pipeline("large", "default", "large", "large"))
    for number in range(5):
        spec = {"number": number, "text": "x" * ((6 << 20) if number < 4 else (20 << 20))}
        version = PipelineVersion(f"v{number}", "large", f"v{number}", f"v{number}", spec, created_at=number)
        pipelines.create_version(version)
    pages, token = [], ""
    while True:
        page = pipelines.page_of_versions(pipeline.pipeline_id, ListQuery(page_size=4, page_token=token))
        pages.append([version.name for version in page.items])
        token = page.next_page_token
        if not token:
            break
    assert pages == [["v0", "v1"], ["v2", "v3"], ["v4"]]
