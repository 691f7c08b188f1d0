import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_pipeline.argo.names import DNS_LABEL, Names, task_id_of, workflow_name
from mlmesh_pipeline.argo.state import folder_of
from mlmesh_pipeline.argo.text import NOTHING, literal

task_names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\- ]{0,254}", fullmatch=True).filter(lambda name: ".." not in name)
segments = st.tuples(task_names, st.none() | st.integers(0, 99)).map(
    lambda one: one[0] if one[1] is None else f"{one[0]}[{one[1]}]"
)
paths = st.lists(segments, min_size=1, max_size=4).map("/".join)


def expanded(text: str) -> str:
    """As Kubernetes does: https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/."""
    variables = {NOTHING: "", "HOME": "/root"}
    return re.sub(
        r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)",
        lambda found: "$" if found[0] == "$$" else variables.get(found[1], found[0]),
        text,
    )


@given(st.text() | st.text(alphabet="{}$()HOME="))
def test_text_comes_through_argo_and_kubernetes_as_it_was(text):
    assert "{{" not in literal(text)
    assert expanded(literal(text)) == text


@given(st.lists(task_names, unique=True, max_size=20))
def test_names_of_nodes_are_valid_and_each_is_given_once(names):
    scope = Names()
    found = [scope.take("", name) for name in names] + [scope.take("", name, "-driver") for name in names]
    assert len(set(found)) == len(found)
    for name in found:
        assert DNS_LABEL.fullmatch(name)
        assert not name[0].isdigit()  # Argo does not take such a name in `depends`


@pytest.mark.parametrize(
    "names", [("a_b", "a-b", "A-B", "a b"), ("x-driver", "x"), ("1", "t-1"), ("_", "-", ".")], ids=str
)
def test_names_that_look_alike_are_kept_apart(names):
    scope = Names()
    found = {scope.take("", name) for name in names} | {scope.take("", name, "-driver") for name in names}
    assert len(found) == 2 * len(names)


@given(paths, paths)
def test_each_path_has_a_folder_of_its_own(one, other):
    assert (folder_of(one) == folder_of(other)) == (one == other)
    assert re.fullmatch(r"[A-Za-z0-9_.~/-]+", folder_of(one))
    assert not {"", ".", ".."} & set(folder_of(one).split("/"))


@given(st.text(max_size=300), st.text(max_size=100), st.integers(1, 10**6))
def test_workflows_have_valid_names(pipeline, run_id, number):
    assert DNS_LABEL.fullmatch(workflow_name(pipeline, run_id, number))


def test_a_run_has_one_name_for_each_try():
    run_id = "0b0e6ba7-61a9-4f39-8a5d-9a5c4ad2c0a1"
    assert workflow_name("Train it!", run_id, 2) == f"train-it-{run_id}-2"
    assert task_id_of(run_id, "a") == task_id_of(run_id, "a") != task_id_of(run_id, "b")
