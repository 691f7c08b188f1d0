"""`mlmesh.tune`: makes an Experiment of a Python function and follows it."""

import json
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlmesh.cli.client import Ingress, IngressError
from mlmesh.running import resolve_data_dir, running
from mlmesh.search import Parameter
from mlmesh.tuning import runner
from mlmesh.tuning.objective import Objective, read_objective
from mlmesh.tuning.result import TuneError, TuneResult
from mlmesh.tuning.runner import METRIC_NAME, Reader, Task

_DEFAULT_METRIC = "objective"
_NAME_LENGTH = 40
_MAX_TASK = 120 << 10
"""Linux takes no argument of a process that is longer than 128 KiB."""


def tune(
    objective: Callable[[dict[str, Any]], Any],
    space: Mapping[str, Any],
    *,
    name: str | None = None,
    namespace: str = "default",
    objective_metric_name: str = _DEFAULT_METRIC,
    objective_type: str = "maximize",
    objective_goal: float | None = None,
    additional_metric_names: Sequence[str] = (),
    metric_strategies: Mapping[str, str] | None = None,
    additional_objectives: Sequence[Mapping[str, Any]] = (),
    constraints: Sequence[Mapping[str, Any]] = (),
    algorithm_name: str | None = None,
    algorithm_settings: Mapping[str, Any] | None = None,
    random_state: int | None = None,
    early_stopping: str | None = None,
    early_stopping_settings: Mapping[str, Any] | None = None,
    max_trial_count: int = 30,
    parallel_trial_count: int | None = None,
    max_failed_trial_count: int | None = None,
    base_image: str = "python:3.11",
    env_per_trial: Mapping[str, str] | None = None,
    resources_per_trial: Mapping[str, Any] | None = None,
    retain_trials: bool = False,
    ingress: str | None = None,
    data_dir: str | Path | None = None,
    wait: bool = True,
    timeout: float | None = None,
) -> TuneResult:
    """Searches for the parameters with which a function gives the best value, on a mesh that runs.

    Arguments have the names of `KatibClient.tune`, whose `parameters` is `space`. The function runs in processes of its
    own, from its source: it must import and define in itself all that it uses, except for `mlmesh.report`.

    Args:
        objective: Takes one dict, name → value, and returns a number (the objective), a dict of metrics, or None when
            it has reported them with `mlmesh.report` or printed them as `name=value`.
        space: Name → what `mlmesh.search` made; or any other value that JSON has, which the function gets as it is.
        name: Of the experiment, a label of at most 40 characters; None: the function's, and some digits.
        namespace: Of the experiment.
        objective_metric_name: What is optimised: a metric that the function reports, or what it returns.
        objective_type: `maximize` or `minimize`.
        objective_goal: The value at which to stop; None: none.
        additional_metric_names: Metrics that are collected too.
        metric_strategies: Metric → `min`, `max` or `latest`: which of a trial's reports counts; None: the best.
        additional_objectives: As `spec.objective.additionalObjectives` of the manifest.
        constraints: As `spec.objective.constraints`.
        algorithm_name: None: the default.
        algorithm_settings: Setting → value.
        random_state: The algorithm's setting of that name.
        early_stopping: Name of the rule; None: none.
        early_stopping_settings: Setting → value.
        max_trial_count: Most trials.
        parallel_trial_count: Trials at once; None: the default.
        max_failed_trial_count: Failed trials beyond which the experiment fails; None: no limit.
        base_image: Where trials are pods: an image with Python and what the function imports.
        env_per_trial: Environment variables of trials.
        resources_per_trial: Limits of a trial, by resource: `cpu`, `memory`, `gpu`.
        retain_trials: Where trials are pods: whether they are kept.
        ingress: URL of the mesh; None: MLMESH_INGRESS, else the mesh that runs on the data directory.
        data_dir: Of the mesh; None: MLMESH_DATA_DIR, else ~/.mlmesh.
        wait: Whether to come back only when the experiment has ended. Without, ask the result: `wait()`, `state`.
        timeout: Seconds to wait at most; None: for ever. The experiment goes on after it.

    Raises:
        TypeError, ValueError: The function cannot run elsewhere, or an argument is wrong.
        TuneError: No mesh answers, it refuses the experiment, or the experiment has failed.
        TimeoutError: It takes longer.
    """
    source = read_objective(objective)
    for metric in (objective_metric_name, *additional_metric_names):
        if not METRIC_NAME.fullmatch(metric):
            raise ValueError(f"{metric!r} is no name of a metric: expected letters, digits, '_', '-' and '|'")
    parameters = {key: value for key, value in space.items() if isinstance(value, Parameter)}
    if not parameters:
        raise ValueError("the space has no parameter: make some with mlmesh.search, as search.double(min=0, max=1)")
    readers = [Reader(name=key, kind=value.kind, choices=value.choices) for key, value in parameters.items()]
    fixed = {key: value for key, value in space.items() if key not in parameters}
    settings = {**(algorithm_settings or {}), **({} if random_state is None else {"random_state": random_state})}
    if settings and algorithm_name is None:
        raise ValueError("algorithm_settings and random_state are of an algorithm: give algorithm_name, too")
    container = {
        "name": "main",
        "image": base_image,
        "command": _command(source, readers, fixed, objective_metric_name),
        "env": [{"name": key, "value": str(value)} for key, value in (env_per_trial or {}).items()],
        "resources": _limits(resources_per_trial),
    }
    target = {
        "type": objective_type,
        "objectiveMetricName": objective_metric_name,
        "goal": objective_goal,
        "additionalMetricNames": list(additional_metric_names),
        "metricStrategies": [{"name": key, "value": value} for key, value in (metric_strategies or {}).items()],
        "additionalObjectives": [dict(item) for item in additional_objectives],
        "constraints": [dict(item) for item in constraints],
    }
    spec = {
        "objective": _given(target),
        "algorithm": _algorithm(algorithm_name, settings),
        "earlyStopping": _algorithm(early_stopping, early_stopping_settings or {}),
        "maxTrialCount": max_trial_count,
        "parallelTrialCount": parallel_trial_count,
        "maxFailedTrialCount": max_failed_trial_count,
        "parameters": [value.manifest(key) for key, value in parameters.items()],
        "trialTemplate": {
            "primaryContainerName": "main",
            "retain": retain_trials,
            "trialParameters": [{"name": key, "reference": key} for key in parameters],
            "trialSpec": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [_given(container)]}}},
            },
        },
    }
    label = name or _name(source.function)
    manifest = {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": label, "namespace": namespace},
        "spec": _given(spec),
    }
    url = _find_mesh(ingress, data_dir)
    try:
        with Ingress(url) as mesh:
            mesh.send("POST", f"/katib/v1/namespaces/{quote(namespace, safe='')}/experiments", {"manifest": manifest})
    except IngressError as error:
        raise TuneError(str(error)) from error
    result = TuneResult(url, namespace, label, readers)
    return result.wait(timeout) if wait else result


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out what was not given: None, and what is empty."""
    return {key: value for key, value in fields.items() if value is not None and value not in ([], {})}


def _limits(resources: Mapping[str, Any] | None) -> dict[str, Any]:
    names = {"gpu": "nvidia.com/gpu"}
    limits = {names.get(key, key): str(value) for key, value in (resources or {}).items()}
    return {"limits": limits} if limits else {}


def _algorithm(name: str | None, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    if name is None:
        return None
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    items = [{"name": key, "value": value} for key, value in texts.items()]
    return {"algorithmName": name, "algorithmSettings": items}


def _command(source: Objective, readers: Sequence[Reader], fixed: Mapping[str, Any], metric: str) -> list[str]:
    for reader in readers:
        if "}" in reader["name"]:
            raise ValueError(f"parameter {reader['name']!r}: a name must not have '}}' in it")
    task = Task(
        source=source.source,
        function=source.function,
        file=source.file,
        line=source.line,
        names=source.names,
        parameters=readers,
        fixed=fixed,
        metric=metric,
    )
    try:
        text = json.dumps(task)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the values of the space that are no parameters must be such as JSON has them: {error}"
        ) from error
    # What looks like a placeholder of the trial template, in the source say, is none.
    text = text.replace("$", "\\u0024")
    if len(text) > _MAX_TASK:
        raise ValueError(f"the function, its parameters and the other values have {len(text)} bytes; {_MAX_TASK} go")
    program = Path(runner.__file__).read_text(encoding="utf-8")
    return ["python", "-c", program, text, *(f"${{trialParameters.{reader['name']}}}" for reader in readers)]


def _name(function: str) -> str:
    label = re.sub(r"[^a-z0-9]+", "-", function.lower()).strip("-") or "tune"
    return f"{label[: _NAME_LENGTH - 7].rstrip('-')}-{secrets.token_hex(3)}"


def _find_mesh(ingress: str | None, data_dir: str | Path | None) -> str:
    if given := ingress or os.environ.get("MLMESH_INGRESS"):
        return given
    folder = resolve_data_dir(data_dir)
    state = running(folder)
    if state is None:
        raise TuneError(f"no mesh runs on {folder}; start one with: mlmesh up, or name one: tune(..., ingress=URL)")
    return state.ingress
