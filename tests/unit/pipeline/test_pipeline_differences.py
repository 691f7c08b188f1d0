"""In what fingerprints and runs differ."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlmesh_pipeline.analysis.differences import MISSING, Kind, content_differences, unified
from mlmesh_pipeline.analysis.run_diff import Pair, RunRecord, compare_runs
from mlmesh_pipeline.ir.document import parse
from mlmesh_pipeline.resources import Artifact, Problem, Run, RuntimeState, Task, TaskKind, Values

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 0.5]) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=2),
    max_leaves=4,
)
CONTAINERS = st.fixed_dictionaries(
    {"image": st.sampled_from(["a", "b"])},
    optional={
        "command": st.lists(st.sampled_from(["sh", "-c", "x"]), max_size=2),
        "args": st.lists(st.sampled_from(["1", "2"]), max_size=2),
        "env": st.lists(st.fixed_dictionaries({"name": st.just("V"), "value": st.sampled_from("pq")}), max_size=1),
        "resources": st.dictionaries(st.just("cpuLimit"), st.sampled_from([1, 1.0, 2]), max_size=1),
        "lifecycle": st.just({"preCacheCheck": {}}),
    },
)
METADATA = st.dictionaries(st.just("k"), JSON, max_size=1)
ARTIFACTS = st.lists(st.tuples(st.sampled_from("TU"), st.sampled_from(["d1", "d2"]), METADATA), max_size=2)
CONTENTS = st.one_of(
    st.fixed_dictionaries(
        {
            "namespace": st.just("n"),
            "outputs": st.dictionaries(st.just("parameters"), JSON, max_size=1),
            "container": CONTAINERS,
            "parameters": st.dictionaries(st.sampled_from("pq"), JSON, max_size=2),
            "artifacts": st.dictionaries(st.just("in"), ARTIFACTS, max_size=1),
        }
    ),
    st.fixed_dictionaries({"namespace": st.just("n"), "outputs": st.just({}), "key": st.sampled_from("kl")}),
)


@given(CONTENTS, CONTENTS)
@example({"container": {"image": "a"}}, {"container": {"image": "a", "env": []}})
@example({"container": {"command": []}}, {"container": {}})
def test_there_is_a_difference_exactly_where_the_fingerprints_differ(one: Any, other: Any) -> None:
    one, other = json.loads(json.dumps(one)), json.loads(json.dumps(other))
    equal = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    found = content_differences(one, other)
    assert (not found) == equal
    back = content_differences(other, one)
    assert [(each.kind, each.name, each.before) for each in found] == [(e.kind, e.name, e.after) for e in back]


def test_a_key_stands_for_all_else() -> None:
    with_key = {"namespace": "n", "outputs": {}, "key": "k"}
    without = {"namespace": "n", "outputs": {}, "container": {"image": "a"}, "parameters": {"x": 1}, "artifacts": {}}
    (found,) = content_differences(without, with_key)
    assert (found.kind, found.before, found.after) == (Kind.CACHE_KEY, MISSING, "k")


def test_a_long_diff_is_cut() -> None:
    lines = unified([str(n) for n in range(1000)], [f"x{n}" for n in range(1000)]).splitlines()
    assert len(lines) == 201 and "more lines" in lines[-1]


@pytest.mark.parametrize(
    ("before", "after", "delta"),
    [
        (1, 2.5, 1.5),
        (0, 0.0, 0.0),
        (True, 2, None),
        (MISSING, 2, None),
        ("1", 2, None),
        (None, 2, None),
        (10**400, 1, None),
    ],
)
def test_only_numbers_have_a_delta(before: Any, after: Any, delta: float | None) -> None:
    assert Pair("x", before, after).delta == delta


DOCUMENT = parse({"pipelineInfo": {"name": "p"}, "root": {"dag": {}}})


def record(run_id: str, *tasks: Task, **parameters: Any) -> RunRecord:
    run = Run(run_id, "n", "e", "r", "p", "", parameters)
    return RunRecord(run, DOCUMENT, [replace(task, run_id=run_id) for task in tasks], {})


def task(path: str = "t", state: RuntimeState = RuntimeState.SUCCEEDED, **fields: Any) -> Task:
    return Task(path, "", path, path, path, TaskKind.CONTAINER, state=state, **fields)


def artifact(uri: str, digest: str = "", **metadata: Any) -> Values:
    return Values({}, {"model": [Artifact(uri, "model", "system.Model", "1", uri, metadata, digest)]})


def test_an_artifact_is_told_by_its_content_and_one_without_by_its_place_in_the_run() -> None:
    def changed(one: Values, other: Values) -> bool:
        return compare_runs(record("r1", task(outputs=one)), record("r2", task(outputs=other))).tasks[0].changed

    assert not changed(artifact("file:///r1/m", "d"), artifact("file:///r2/m", "d"))
    assert changed(artifact("file:///r1/m", "d"), artifact("file:///r1/m", "e"))
    assert not changed(artifact("file:///r1/m"), artifact("file:///r2/m"))
    assert changed(artifact("s3://b/1"), artifact("s3://b/2"))
    assert changed(artifact("file:///r1/m", "d", score=1), artifact("file:///r2/m", "d", score=2))


def test_states_errors_and_tasks_that_only_one_has() -> None:
    cached = task("a", RuntimeState.SKIPPED, cached_from="x")
    failed = task("b", RuntimeState.FAILED, problem=Problem(2, "broken"))
    found = compare_runs(record("r1", task("a"), task("b"), task("gone")), record("r2", cached, failed, task("new")))
    assert [(pair.path, pair.changed) for pair in found.tasks] == [
        ("a", False), ("b", True), ("new", True), ("gone", True),
    ]  # fmt: skip


def test_long_texts_are_compared_as_one_piece() -> None:
    before = [str(number) for number in range(5000)]
    after = [*before[:3000], "new", *before[3001:]]
    assert unified(before, after) == "@@ -3001,1 +3001,1 @@\n-3000\n+new"
    assert unified(before, [*before, "more"]) == "@@ -5001,0 +5001,1 @@\n+more"
    assert unified(before, before) == ""
    # What is made to take difflib hours.
    odd = [word for number in range(100_000) for word in (str(number % 100), f"u{number}")]
    assert unified(odd[::2], odd).endswith("more lines")
