"""Experiment manifests: whatever comes is understood, or refused in words."""

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlmesh_katib.jobs.process_command import Command, read_command
from mlmesh_katib.manifest import parse_manifest
from mlmesh_katib.suggestion import next_trials
from mlmesh_katib.template import TrialTemplate, render
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

MAX_TRIALS = 50


def manifest() -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "python",
        "command": ["python", "train.py", "--lr=${trialParameters.rate}"],
        "args": ["--name", "${trialSpec.Name}", "${trialParameters.who}"],
        "env": [{"name": "DEPTH", "value": "${trialParameters.depth}"}],
    }
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "search", "namespace": "default", "labels": {"a": "b"}},
        "spec": {
            "objective": {
                "type": "maximize",
                "goal": 0.99,
                "objectiveMetricName": "accuracy",
                "additionalMetricNames": ["loss"],
                "metricStrategies": [{"name": "accuracy", "value": "latest"}],
            },
            "algorithm": {"algorithmName": "random", "algorithmSettings": [{"name": "random_state", "value": "1"}]},
            "maxTrialCount": 12,
            "parallelTrialCount": 3,
            "maxFailedTrialCount": 3,
            "parameters": [
                {
                    "name": "lr",
                    "parameterType": "double",
                    "feasibleSpace": {"min": "0.001", "max": "1", "distribution": "logUniform"},
                },
                {"name": "depth", "parameterType": "int", "feasibleSpace": {"min": 1, "max": 9, "step": "2"}},
                {"name": "kernel", "parameterType": "categorical", "feasibleSpace": {"list": ["rbf", "linear"]}},
                {"name": "size", "parameterType": "discrete", "feasibleSpace": {"list": ["16", "32.5"]}},
            ],
            "metricsCollectorSpec": {
                "collector": {"kind": "StdOut"},
                "source": {"filter": {"metricsFormat": [r"(\w+):(\S+)"]}},
            },
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [
                    {"name": "rate", "reference": "lr"},
                    {"name": "depth", "reference": "depth"},
                    {"name": "who", "reference": "${trialSpec.Name}"},
                ],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"template": {"spec": {"containers": [container]}}},
                },
            },
        },
    }


def command_of(template: TrialTemplate, values: Mapping[str, str], trial: str, namespace: str) -> Command:
    return read_command(render(template, values, trial, namespace), template.primary_container, "trialSpec")


def test_all_of_it_is_understood() -> None:
    spec = parse_manifest(manifest(), MAX_TRIALS)
    assert (spec.name, spec.algorithm, dict(spec.settings)) == ("search", "random", {"random_state": "1"})
    assert (spec.max_trials, spec.parallel, spec.max_failed) == (12, 3, 3)
    assert spec.objective.metrics == ("accuracy", "loss")
    assert spec.objective.maximize and spec.objective.goal == 0.99
    assert [parameter.name for parameter in spec.space.parameters] == ["lr", "depth", "kernel", "size"]
    assert list(spec.collector.source["filters"]) == [r"(\w+):(\S+)"]
    command = command_of(spec.template, {"lr": "0.5", "depth": "3"}, "search-1", "team")
    assert list(command.words) == ["python", "train.py", "--lr=0.5", "--name", "search-1", "search-1"]
    assert command.environment == {"DEPTH": "3"}


def test_what_is_left_out_has_katib_s_defaults() -> None:
    given = manifest()
    for key in ("maxTrialCount", "parallelTrialCount", "maxFailedTrialCount", "metricsCollectorSpec"):
        del given["spec"][key]
    for key in ("goal", "additionalMetricNames", "metricStrategies"):
        del given["spec"]["objective"][key]
    spec = parse_manifest(given, MAX_TRIALS)
    assert (spec.max_trials, spec.parallel, spec.max_failed, spec.collector.kind) == (MAX_TRIALS, 3, None, "StdOut")
    assert spec.objective.goal is None


def test_what_a_value_holds_is_no_placeholder() -> None:
    given = manifest()
    words = ["run", "${trialParameters.k}", "${trialSpec.Namespace}"]
    given["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"] = [{"command": words}]
    given["spec"]["trialTemplate"].update(
        primaryContainerName=None, trialParameters=[{"name": "k", "reference": "kernel"}]
    )
    spec = parse_manifest(given, MAX_TRIALS)
    for value in ("${trialSpec.Name}", "${trialParameters.k}", "$(reboot)", "\\1"):
        assert command_of(spec.template, {"kernel": value}, "t", "team").words == ("run", value, "team")


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All places in a document."""
    if at:
        yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from paths(inner, (*at, key))


PATHS = list(paths(manifest()))
ODD: list[Any] = [None, True, 0, -1, 0.5, 1e300, math.nan, math.inf, "", "\0", "x" * 300, [], {}, [[]], [{}], {"a": 1}]
NUMBERS = ["1", "-1", "0.5", "nan", "inf", "1e400"]
WORDS = ["double", "int", "maximize", "grid", "bayesianoptimization", "random_state", "(", "(a)(b)"]
texts = st.sampled_from(["", "\0", "x" * 300, "${trialParameters.rate}", "${trialParameters.none}", *NUMBERS, *WORDS])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)


@st.composite
def spoiled(draw: st.DrawFn) -> dict[str, Any]:
    """A manifest with a few places changed, taken away or doubled."""
    made = manifest()
    for path in draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=3)):
        target: Any = made
        try:
            for key in path[:-1]:
                target = target[key]
            change = draw(st.sampled_from(["replace", "remove", "double"]))
            if change == "replace":
                target[path[-1]] = draw(anything)
            elif change == "remove":
                del target[path[-1]]
            elif isinstance(target, list):
                target.append(copy.deepcopy(target[path[-1]]))
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has taken the place away
    return made


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(given_manifest=spoiled())
def test_a_spoiled_manifest_is_refused_in_words_or_works(given_manifest: dict[str, Any]) -> None:
    refused_in_words_or_works(given_manifest)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_something_odd_in_each_place(path: tuple[Any, ...]) -> None:
    for odd in ODD:
        made = manifest()
        target: Any = made
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = odd
        refused_in_words_or_works(made)


def refused_in_words_or_works(given_manifest: dict[str, Any]) -> None:
    try:
        spec = parse_manifest(given_manifest, MAX_TRIALS)
        read_command(spec.template.manifest, spec.template.primary_container, "trialSpec")
    except InvalidArgument as error:
        assert error.violations and error.violations[0][0]
        return
    except FailedPrecondition as error:
        assert "served" in error.message or "Kubernetes" in error.message
        return
    for suggestion in next_trials(spec, [], 2).suggestions:
        command = command_of(spec.template, suggestion.assignments, "t-1", "default")
        variables = command.environment
        words = [*command.words, *variables, *variables.values()]
        assert all(isinstance(word, str) and "\0" not in word for word in words)


@given(document=st.dictionaries(texts, anything))
def test_any_document_is_refused_in_words(document: dict[str, Any]) -> None:
    with pytest.raises((InvalidArgument, FailedPrecondition)):
        parse_manifest(document, MAX_TRIALS)


def test_architectures_are_no_space_for_an_algorithm_that_searches_none() -> None:
    made = manifest()
    del made["spec"]["parameters"]
    made["spec"]["nasConfig"] = {"graphConfig": {"numLayers": 8}, "operations": []}
    with pytest.raises(InvalidArgument, match=r"nasConfig.*random does not search architectures"):
        parse_manifest(made, MAX_TRIALS)
