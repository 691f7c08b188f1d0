"""What a new run takes over from an earlier one, decided from the pipelines and the earlier tasks alone."""

import copy
from dataclasses import replace
from typing import Any

import pytest
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from mlmesh_pipeline.analysis.rerun import Pipelines, Plan, changed_parameters, plan_rerun
from mlmesh_pipeline.analysis.task_names import TaskPaths, find_task
from mlmesh_pipeline.ir.document import PipelineDocument, parse
from mlmesh_pipeline.ir.places import paths_and_titles_in
from mlmesh_pipeline.resources import Artifact, RuntimeState, Task, TaskKind, Values

STATES = {"ok": RuntimeState.SUCCEEDED, "bad": RuntimeState.FAILED, "off": RuntimeState.CANCELED}


def leaf(label: str, **inputs: str) -> dict[str, Any]:
    return {
        "executorLabel": label,
        "inputDefinitions": {"parameters": {key: {"parameterType": "STRING"} for key in inputs}},
    }


def task(component: str, *after: str, **inputs: Any) -> dict[str, Any]:
    return {
        "componentRef": {"name": component},
        "dependentTasks": list(after),
        "inputs": {"parameters": inputs},
        "cachingOptions": {"enableCache": True},
    }


def parameter(name: str) -> dict[str, Any]:
    return {"componentInputParameter": name}


def pipeline() -> dict[str, Any]:
    """a → (loop: b → c) → e → f, and d beside them, which takes the parameter `word`; e is in a condition on `word`."""
    strings = {"parameters": {"word": {"parameterType": "STRING"}}}
    loop = task("loop", "a")
    loop["parameterIterator"] = {"itemInput": "item", "items": {"raw": "[1, 2]"}}
    condition = task("condition", "loop", word=parameter("word"))
    condition["triggerPolicy"] = {"condition": "inputs.parameter_values['word'] == 'x'"}
    leaves = {name: leaf(f"exec-{name}") for name in "abcef"} | {"d": leaf("exec-d", word="")}
    return {
        "pipelineInfo": {"name": "p"},
        "root": {
            "inputDefinitions": strings,
            "dag": {
                "tasks": {
                    "a": task("a"),
                    "loop": loop,
                    "condition": condition,
                    "f": task("f", "condition"),
                    "d": task("d", word=parameter("word")),
                }
            },
        },
        "components": {
            **leaves,
            "loop": {"dag": {"tasks": {"b": task("b"), "c": task("c", "b")}}},
            "condition": {"dag": {"tasks": {"e": task("e")}}, "inputDefinitions": strings},
        },
        "deploymentSpec": {"executors": {f"exec-{name}": {"container": {"image": name}} for name in "abcdef"}},
    }


def earlier(**states: str) -> list[Task]:
    """The tasks of a run that succeeded but for those that are named (`_` stands for what a keyword may not have)."""
    rows = [
        ("a", "", TaskKind.CONTAINER),
        ("loop", "", TaskKind.LOOP),
        ("loop[0]", "loop", TaskKind.ITERATION),
        ("loop[0]/b", "loop[0]", TaskKind.CONTAINER),
        ("loop[0]/c", "loop[0]", TaskKind.CONTAINER),
        ("loop[1]", "loop", TaskKind.ITERATION),
        ("loop[1]/b", "loop[1]", TaskKind.CONTAINER),
        ("loop[1]/c", "loop[1]", TaskKind.CONTAINER),
        ("condition", "", TaskKind.DAG),
        ("condition/e", "condition", TaskKind.CONTAINER),
        ("f", "", TaskKind.CONTAINER),
        ("d", "", TaskKind.CONTAINER),
    ]
    found = []
    for path, parent, kind in rows:
        key = path.replace("[", "").replace("]", "").replace("/", "_")
        state = states.get(key, "ok")
        if state == "none":
            continue
        name = path.rpartition("/")[2]
        made = Artifact(path, "file", "t", "1", f"file:///{path}", {}, path)
        iteration = int(name[-2]) if kind == TaskKind.ITERATION else -1
        found.append(
            Task(
                f"id-{path}", "run", path, name, name, kind, f"id-{parent}" if parent else "", iteration,
                RuntimeState.SKIPPED if state == "skipped" else STATES[state],
                outputs=Values({"out": path}, {"file": [made]}),
            )
        )  # fmt: skip
    return found


def plan(
    *named: str,
    tasks: list[Task] | None = None,
    changed: tuple[str, ...] = (),
    after: dict[str, Any] | None = None,
    gone: tuple[str, ...] = (),
) -> Plan:
    before = parse(pipeline())
    new = parse(after) if after is not None else before

    def look(artifact: Artifact) -> str:
        return "is gone" if artifact.uri.removeprefix("file:///") in gone else ""

    return plan_rerun(Pipelines(before, new), tasks or earlier(), set(named), frozenset(changed), look)


def reasons(found: Plan) -> dict[str, str]:
    return dict(found.anew)


ALL = {"a", "loop[0]/b", "loop[0]/c", "loop[1]/b", "loop[1]/c", "condition/e", "f", "d"}


def test_what_follows_the_named_task_runs_anew() -> None:
    found = plan("loop[1]/b")
    assert reasons(found) == {
        "loop[1]/b": "named",
        "loop[1]/c": "follows b",
        "condition": "follows loop",
        "f": "follows condition",
    }
    assert set(found.reused) == {"a", "loop[0]/b", "loop[0]/c", "d"}
    assert reasons(plan("a")) == {
        "a": "named", "loop": "follows a", "condition": "follows loop", "f": "follows condition",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("named", "anew"),
    [
        ("loop/c", {"loop[0]/c", "loop[1]/c", "condition", "f"}),
        ("loop", {"loop", "condition", "f"}),
        ("loop[0]", {"loop[0]", "condition", "f"}),
        ("condition/e", {"condition/e", "f"}),
        ("f", {"f"}),
        ("d", {"d"}),
    ],
)
def test_names_within_loops_and_conditions(named: str, anew: set[str]) -> None:
    assert set(reasons(plan(named))) == anew


def test_reused_tasks_are_ended_and_those_around_them_wait() -> None:
    found = plan("loop[1]/c", "d")
    by_path = {one.path: one for one in found.tasks}
    assert [one.path for one in found.tasks][:2] == ["a", "loop"]  # parents before children
    assert by_path["loop"].state == by_path["loop[1]"].state == RuntimeState.PENDING
    reused = by_path["loop[1]/b"]
    assert reused.state == RuntimeState.SKIPPED and reused.cached_from == "id-loop[1]/b"
    assert reused.outputs.parameters == {"out": "loop[1]/b"} and reused.parent_id == by_path["loop[1]"].task_id
    assert "loop[1]/c" not in by_path and len({one.task_id for one in found.tasks}) == len(found.tasks)


def test_what_did_not_succeed_runs_anew() -> None:
    tasks = earlier(loop0_c="bad", loop0="bad", loop="bad", condition="skipped", condition_e="none", f="skipped")
    found = plan(tasks=tasks)
    assert reasons(found) == {
        "loop[0]/c": "failed in the earlier run", "condition": "follows loop", "f": "follows condition",
    }  # fmt: skip
    stopped = earlier(a="off", loop="off", loop0="none", loop0_b="none", loop0_c="none", loop1="none", loop1_b="none",
                      loop1_c="none", condition="off", condition_e="none", f="off")  # fmt: skip
    assert reasons(plan(tasks=stopped))["a"] == "did not run to its end in the earlier run"
    assert plan(tasks=stopped).reused == ["d"]


def test_a_condition_that_did_not_hold_is_no_reason() -> None:
    tasks = earlier(condition="skipped", condition_e="none", f="skipped")
    assert set(plan("d", tasks=tasks).reused) == ALL - {"d", "condition/e", "f"}
    with pytest.raises(FailedPrecondition, match=r"'condition/e' would not run"):
        plan("condition/e", tasks=tasks)
    # Unless what it depends on has changed.
    found = reasons(plan(tasks=tasks, changed=("word",)))
    assert found == {
        "condition": "its condition or loop depends on word",
        "f": "follows condition",
        "d": "its input word has changed",
    }


def test_what_has_changed_in_the_pipeline_runs_anew() -> None:
    image = pipeline()
    image["deploymentSpec"]["executors"]["exec-b"]["container"]["image"] = "another"
    assert reasons(plan(after=image))["loop[0]/b"] == "its component has changed"
    new = pipeline()
    new["components"]["loop"]["dag"]["tasks"]["n"] = task("a", "b")
    assert reasons(plan(after=new)) == {
        "loop[0]/n": "is new in the pipeline", "loop[1]/n": "is new in the pipeline",
        "condition": "follows loop", "f": "follows condition",
    }  # fmt: skip
    wired = pipeline()
    wired["root"]["dag"]["tasks"]["d"]["inputs"]["parameters"]["word"] = {"runtimeValue": {"constant": "y"}}
    assert reasons(plan(after=wired)) == {"d": "its inputs, condition or loop are others in the pipeline"}
    cached = copy.deepcopy(pipeline())
    cached["root"]["dag"]["tasks"]["a"]["cachingOptions"] = {}
    cached["root"]["dag"]["tasks"]["a"]["retryPolicy"] = {"maxRetryCount": 3}
    with pytest.raises(FailedPrecondition, match="nothing would run anew"):
        plan(after=cached)


def test_outputs_that_are_gone_are_made_anew() -> None:
    found = plan(gone=("a",))
    assert reasons(found)["a"] == "output file is gone (file:///a)" and set(found.reused) == {"d"}


def test_changed_parameters() -> None:
    assert changed_parameters({"a": 1, "b": 1, "c": None}, {"a": 1, "b": 1.0, "d": 2}) == {"b", "c", "d"}


def test_names_of_tasks() -> None:
    document: PipelineDocument = parse(pipeline())
    static, tasks = dict(paths_and_titles_in(document)), earlier(condition="skipped", condition_e="none")
    assert set(static) == {"a", "loop", "loop/b", "loop/c", "condition", "condition/e", "f", "d"}
    paths = TaskPaths(tasks, static)
    for name, path in [
        ("a", "a"), ("b", "loop/b"), ("loop[1]/b", "loop[1]/b"), ("e", "condition/e"), ("id-loop[0]/c", "loop[0]/c"),
        ("loop[0]", "loop[0]"),
    ]:  # fmt: skip
        assert paths.find(name, "from_tasks") == path
    for name in ("loop[7]/b", "x", "loop/"):
        with pytest.raises(NotFound):
            paths.find(name, "from_tasks")
    for name in ("repeat[1]/second", "second"):
        shown = pipeline()
        shown["root"]["dag"]["tasks"]["loop"] |= {"taskInfo": {"name": "repeat"}}
        shown["components"]["loop"]["dag"]["tasks"]["c"] |= {"taskInfo": {"name": "second"}}
        titles = {"loop": "repeat", "loop[0]": "repeat[0]", "loop[1]": "repeat[1]"}
        named = [
            replace(one, display_name="second" if one.name == "c" else titles.get(one.path, one.display_name))
            for one in tasks
        ]
        known = dict(paths_and_titles_in(parse(shown)))
        assert known["loop/c"] == "repeat/second"
        assert TaskPaths(named, known).find(name, "from_tasks") == ("loop[1]/c" if "[" in name else "loop/c")
        if "[" in name:
            assert find_task(named, name, "task").path == "loop[1]/c"
    assert find_task(tasks, "loop[0]/b", "task").task_id == "id-loop[0]/b"
    with pytest.raises(InvalidArgument, match=r"loop\[0\]/b, loop\[1\]/b"):
        find_task(tasks, "b", "task")
    with pytest.raises(NotFound) as refused:
        paths.find("x" * 1_000_000, "from_tasks")
    assert len(refused.value.message) < 1000
    with pytest.raises(NotFound, match="did you mean 'loop/b'"):
        find_task(tasks, "loob/b", "task")
