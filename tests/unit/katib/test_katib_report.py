"""The report of an experiment, as the HTML that a browser gets."""

import base64
import hashlib
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_katib.experiment import Condition, Experiment, Trial, TrialState
from mlmesh_katib.manifest import parse_manifest
from mlmesh_katib.objective import MetricSummary
from mlmesh_katib.report.content import Curve, make_content
from mlmesh_katib.report.draw import importances
from mlmesh_katib.report.importance import importance
from mlmesh_katib.report.page import MAX_ROWS, page
from mlmesh_katib.report.scale import fit
from mlmesh_katib.space import make_space
from unit.katib.algorithm_needs import listed, made

HOSTILE = "</style></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'\x01\u202e"


class Reader(HTMLParser):
    """What is in a page: elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.raw: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "elements are closed in their order"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in {"style", "script"}:
            self.raw[self._open[-1]] = data
        else:
            self.texts.append(data)

    def count(self, tag: str, kind: str = "") -> int:
        return sum(name == tag and kind in (of.get("class") or "").split(" ") for name, of in self.elements)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def experiment(**spec: Any) -> Experiment:
    whole = {
        "objective": {"type": "minimize", "objectiveMetricName": "loss"},
        "algorithm": {"algorithmName": "random"},
        "maxTrialCount": 10_000,
        "parameters": [
            {
                "name": "rate",
                "parameterType": "double",
                "feasibleSpace": {"min": "1e-4", "max": "1", "distribution": "logUniform"},
            },
            {"name": "kind", "parameterType": "categorical", "feasibleSpace": {"list": ["a", "b"]}},
        ],
        "trialTemplate": {
            "trialParameters": [{"name": "rate", "reference": "rate"}, {"name": "kind", "reference": "kind"}],
            "trialSpec": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "spec": {"template": {"spec": {"containers": [{"name": "main", "command": ["true"]}]}}},
            },
        },
        **spec,
    }
    manifest = {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "search"},
        "spec": whole,
    }
    conditions = (Condition("Succeeded", True, "ExperimentGoalReached", "the goal was reached", 0),)
    return Experiment(1, "default", "search", manifest, conditions, False, 0, 61_500)


def trial(
    number: int, state: TrialState = TrialState.SUCCEEDED, why: str = "", kind: str = "a", **metrics: Any
) -> Trial:
    rate = 10 ** (-4 + 4 * (number % 97) / 97)
    observation = tuple(MetricSummary(name, str(v), str(v), str(v)) for name, v in metrics.items())
    found = Trial(
        number, f"search-{number}", {"rate": repr(rate), "kind": kind}, (), observation=observation, attempts=1
    )
    return found.enter(state, why)


def read(of: Experiment, trials: list[Trial], curves: list[Curve] | None = None) -> Reader:
    spec = parse_manifest(of.manifest, 10_000)
    content = make_content(of, spec, trials, curves or [], [])
    content = make_content(of, spec, trials, curves or [], importances(spec, content.outcomes))
    return Reader(page(content))


def test_it_shows_the_search() -> None:
    trials = [trial(n, loss=100 / n, kind="ab"[n % 2]) for n in range(1, 21)]
    trials.append(trial(21, TrialState.FAILED, "it exited with code 3"))
    curves = [Curve(trials[19], 3, [(1, 9.0), (2, 7.0), (3, 5.0)])]
    found = read(experiment(), trials, curves)
    assert found.count("circle", "done") >= 19 and found.count("circle", "top") == 2  # one in the legend
    assert "search-20: loss 5" in found.text and "20 Succeeded" in found.text and "1 Failed" in found.text
    assert (
        "it exited with code 3" in found.text and "took 61.5 s" in found.text and "the goal was reached" in found.text
    )
    for title in ("Optimisation history", "Importance", "Parallel coordinates", "Intermediate values", "Failed trials"):
        assert title in found.text
    rows = [of.get("data-t") for tag, of in found.elements if tag == "tr" and "data-t" in of]
    assert rows == ["21", *map(str, range(20, 0, -1)), "21"], "those that failed, then the best first"


def test_without_results_it_says_so() -> None:
    for trials in ([], [trial(1, TrialState.RUNNING)], [trial(1, TrialState.METRICS_UNAVAILABLE, "no number")]):
        found = read(experiment(), trials)
        assert "nothing to draw" in found.text and not found.count("circle")


def test_several_objectives_and_constraints() -> None:
    target = {
        "type": "minimize",
        "objectiveMetricName": "loss",
        "goal": 0.5,
        "additionalObjectives": [{"type": "maximize", "objectiveMetricName": "speed"}],
        "constraints": [{"metricName": "size", "max": 10}],
    }
    trials = [trial(n, loss=n, speed=n * n, size=5 if n < 9 else 11) for n in range(1, 13)]
    trials.append(trial(13, loss=9, speed=1, size=1))
    found = read(experiment(objective=target, algorithm={"algorithmName": "nsga2"}), trials)
    assert "8 trials that no other one beats" in found.text and "size at most 10" in found.text
    assert "Pareto front" in found.text and "less loss, more speed" in found.text
    assert found.text.count(", breaks a constraint") == 4
    broken = [
        of for tag, of in found.elements if tag == "circle" and "broken" in (of["class"] or "") and "data-t" in of
    ]
    assert {of["data-t"] for of in broken} == {"9", "10", "11", "12"}


def test_nothing_of_users_becomes_markup() -> None:
    of = experiment(
        objective={"type": "maximize", "objectiveMetricName": HOSTILE[:60]},
        parameters=[
            {"name": HOSTILE, "parameterType": "categorical", "feasibleSpace": {"list": [HOSTILE, "b"]}},
            {"name": "rate", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}},
        ],
        trialTemplate={
            "trialParameters": [{"name": "x", "reference": HOSTILE}],
            "trialSpec": {"apiVersion": HOSTILE, "kind": HOSTILE, "metadata": {"labels": {HOSTILE: HOSTILE}}},
            "successCondition": "status.done",
            "failureCondition": "status.failed",
        },
    )
    trials = [
        Trial(n, f"t{HOSTILE}{n}", {HOSTILE: HOSTILE, "rate": "0.5"}, ()).enter(state, HOSTILE)
        for n, state in enumerate([TrialState.FAILED, TrialState.SUCCEEDED, TrialState.EARLY_STOPPED], 1)
    ]
    reported = [Trial(9, HOSTILE, {HOSTILE: HOSTILE}, (), TrialState.SUCCEEDED, (MetricSummary(HOSTILE[:60], *"123"),))]
    found = read(of, trials + reported, [Curve(reported[0], 2, [(1, 1.0), (2, 2.0)])])
    assert found.count("script") == 1 and found.count("style") == 1 and not found.count("img")
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    assert not [of for _, of in found.elements if {"href", "src", "style", "xlink:href"} & set(of)]
    assert "<script>alert(1)</script><img" in found.text, "it is there to be read"
    assert "\x01" not in found.text


def test_the_policy_allows_what_is_there_and_no_more() -> None:
    found = read(experiment(), [trial(1, loss=1)])
    policy = next(of["content"] for tag, of in found.elements if of.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(found.raw[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?://|@import|url\(", found.raw["style"] + found.raw["script"])


def test_many_trials_make_no_endless_page() -> None:
    trials = [trial(n, loss=math.sin(n) + 1000 / n) for n in range(1, 10_001)]
    spec = parse_manifest(experiment().manifest, 10_000)
    curves = [Curve(one, 3, [(1, 2.0), (2, 1.0)]) for one in trials[:50]]
    text = page(make_content(experiment(), spec, trials, curves, []))
    assert len(text) < 3_000_000
    found = Reader(text)
    assert f"{MAX_ROWS} of 10000 trials" in found.text and "Of 10000 trials some" in found.text


@pytest.mark.parametrize("values", [(1e308, -1e308, 0.0), (5e-324, 1e300), (7.0,) * 4, (0.0, -0.0), (1.0, 1e200)])
def test_extreme_values_are_drawn(values: tuple[float, ...]) -> None:
    trials = [trial(n, loss=value) for n, value in enumerate(values, 1)]
    found = read(experiment(), trials)
    places = [float(of[axis] or "") for tag, of in found.elements if tag == "circle" for axis in ("cx", "cy")]
    assert all(0 <= place <= 900 for place in places)
    assert "nan" not in found.text and "inf" not in found.text.replace("information", "")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_scale_puts_every_value_on_the_page(values: list[float], maximize: bool) -> None:
    scale = fit(values, 300.0, 10.0, maximize=maximize)
    assert all(10.0 <= scale(value) <= 300.0 for value in values)
    ticks = scale.ticks(6)
    assert len(ticks) <= 20 and all(math.isfinite(tick) for tick in ticks)
    best = max(values) if maximize else min(values)
    assert scale.holds(best) or abs(best) > 1e149


def test_the_parameter_that_matters_is_found() -> None:
    space = make_space([made("rate", "double", "0", "1"), listed("kind", "categorical", "a", "b")], "parameters")
    points = [{"rate": str((n * 37 % 60) / 60), "kind": "ab"[n % 2]} for n in range(60)]
    found = importance(space, "loss", points, [float(p["rate"]) ** 2 for p in points])
    assert found is not None and found.shares[0][0] == "rate" and found.shares[0][1] > 0.8 and found.explained > 0.8
    assert importance(space, "loss", points, [1.0] * 60) is None, "all are equally good"
    assert importance(space, "loss", points[:5], [float(n) for n in range(5)]) is None, "too few"
