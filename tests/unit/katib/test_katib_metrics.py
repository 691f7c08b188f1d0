"""What is made of a trial's reports."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_katib.objective import MetricSummary, Objective, summarize

reports = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats().map(repr) | st.sampled_from(["x", "", "1e999"])))


@given(reports=reports)
def test_a_summary_is_of_what_was_reported(reports: list[tuple[str, str]]) -> None:
    found = {summary.name: summary for summary in summarize(reports)}
    assert set(found) == {name for name, _ in reports}
    for name, summary in found.items():
        texts = [value for reported, value in reports if reported == name]
        finite = [text for text in texts if text not in {"x", ""} and math.isfinite(float(text))]
        if finite:
            assert (summary.latest, {summary.min, summary.max} <= set(finite)) == (finite[-1], True)
            assert float(summary.min) <= float(summary.latest) <= float(summary.max)
        else:
            assert summary == MetricSummary(name, texts[-1], "unavailable", "unavailable")


@pytest.mark.parametrize(
    ("maximize", "strategies", "value"),
    [(False, {}, 1.0), (True, {}, 9.0), (False, {"loss": "latest"}, 4.0), (True, {"loss": "min"}, 1.0)],
)
def test_which_report_counts(maximize: bool, strategies: dict[str, str], value: float) -> None:
    objective = Objective("loss", maximize, None, (), strategies)
    assert objective.value(summarize([("loss", "9"), ("loss", "1"), ("loss", "4")])) == value
