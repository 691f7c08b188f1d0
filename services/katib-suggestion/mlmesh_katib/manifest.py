"""Katib Experiment manifests (kubeflow.org/v1beta1), checked, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.names import check_name

from mlmesh_katib.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, Question
from mlmesh_katib.collectors import CollectorSpec
from mlmesh_katib.collectors import parse as parse_collector
from mlmesh_katib.early_stopping import EARLY_STOPPING
from mlmesh_katib.extensions import (
    WarmStart,
    parse_activations,
    parse_constraints,
    parse_targets,
    parse_warm_start,
)
from mlmesh_katib.fields import as_count, as_list, as_metric, as_object, as_scalar, as_text, is_number
from mlmesh_katib.objective import STRATEGIES, Objective
from mlmesh_katib.space import Space, make_parameter, make_space
from mlmesh_katib.template import TrialTemplate, parse_template

API_VERSION = "kubeflow.org/v1beta1"
MAX_NAME = 40  # as Katib: the names of trials and pods are made of it
DEFAULT_PARALLEL = 3
RESUME_NEVER = "Never"
RESUME_POLICIES = (RESUME_NEVER, "LongRunning", "FromVolume")


@dataclass(frozen=True, slots=True)
class ExperimentSpec:
    """What an experiment is to do.

    Attributes:
        max_trials: Most trials.
        max_failed: Failed trials beyond which the experiment fails; None: no limit.
        parallel: Trials at once.
        collector: Where metrics are read.
        early_stopping: Name of the rule, which the algorithm may bring with it; None: none.
        resume_policy: Katib's.
        nas: Katib's nasConfig; None: none.
        warm_start: Whose trials are known from the beginning; None: nobody's.
    """

    name: str
    objective: Objective
    algorithm: str
    settings: Mapping[str, str]
    space: Space
    template: TrialTemplate
    max_trials: int
    max_failed: int | None
    parallel: int
    collector: CollectorSpec
    early_stopping: str | None
    early_stopping_settings: Mapping[str, str]
    resume_policy: str
    nas: Mapping[str, Any] | None
    warm_start: WarmStart | None = None


def parse_manifest(manifest: Mapping[str, Any], max_trials: int) -> ExperimentSpec:
    """Checks a manifest.

    Args:
        manifest: As given by the user.
        max_trials: Largest maxTrialCount, also taken where none is given.

    Raises:
        InvalidArgument: A field is missing or wrong; the message names it.
        FailedPrecondition: It asks for something that is not served.
    """
    if manifest.get("apiVersion") != API_VERSION:
        raise InvalidArgument(f"must be {API_VERSION}", field="manifest.apiVersion")
    if manifest.get("kind") != "Experiment":
        raise InvalidArgument("must be Experiment", field="manifest.kind")
    metadata = as_object(manifest.get("metadata"), "manifest.metadata")
    name = check_name(
        as_text(metadata.get("name"), "manifest.metadata.name"), "manifest.metadata.name", max_length=MAX_NAME
    )
    where = "manifest.spec"
    spec = as_object(manifest.get("spec"), where)
    objective = _objective(as_object(spec.get("objective"), f"{where}.objective"), f"{where}.objective")
    nas = _nas_config(spec, where)
    if nas is not None:
        space = Space(())
    else:
        space = _space(as_list(spec.get("parameters"), f"{where}.parameters"), f"{where}.parameters")
    most = as_count(spec.get("maxTrialCount"), f"{where}.maxTrialCount", default=max_trials, smallest=1)
    if most > max_trials:
        raise InvalidArgument(f"must be at most {max_trials}", field=f"{where}.maxTrialCount")
    parallel = as_count(
        spec.get("parallelTrialCount"), f"{where}.parallelTrialCount", default=min(DEFAULT_PARALLEL, most), smallest=1
    )
    if parallel > most:
        raise InvalidArgument(f"must not be above maxTrialCount ({most})", field=f"{where}.parallelTrialCount")
    failed = None
    if spec.get("maxFailedTrialCount") is not None:
        # More than maxTrialCount is no limit. Katib refuses it, and has it in an example (simple-pbt).
        failed = as_count(spec["maxFailedTrialCount"], f"{where}.maxFailedTrialCount", default=0, smallest=0)
    given = spec.get("algorithm", {"algorithmName": DEFAULT_ALGORITHM})
    algorithm, settings = _algorithm(as_object(given, f"{where}.algorithm"), f"{where}.algorithm")
    if nas is not None and not ALGORITHMS[algorithm].searches_architectures:
        raise InvalidArgument(f"{algorithm} does not search architectures: give parameters", field=f"{where}.nasConfig")
    question = Question(
        space,
        settings,
        (),
        max_trial_count=most if spec.get("maxTrialCount") is not None else 0,
        parallel=parallel,
        nas=nas,
        experiment=name,
        objectives=len(objective.targets),
    )
    _check_objectives(algorithm, objective, f"{where}.objective.additionalObjectives")
    ALGORITHMS[algorithm].validate(question)
    ALGORITHMS[algorithm].check(question)
    template = parse_template(
        as_object(spec.get("trialTemplate"), f"{where}.trialTemplate"),
        None if nas is not None else [parameter.name for parameter in space.parameters],
        f"{where}.trialTemplate",
    )
    collector = parse_collector(spec.get("metricsCollectorSpec"), objective.metrics, f"{where}.metricsCollectorSpec")
    stopping, stopping_settings = _early_stopping(spec.get("earlyStopping"), f"{where}.earlyStopping")
    if stopping is None and (implied := ALGORITHMS[algorithm].early_stopping(question)) is not None:
        stopping, stopping_settings = implied[0], dict(implied[1])
    if stopping is not None and objective.others:
        raise InvalidArgument(
            "trials are stopped early by one objective; there are several", field=f"{where}.earlyStopping"
        )
    policy = spec.get("resumePolicy") or RESUME_NEVER
    if policy not in RESUME_POLICIES:
        raise InvalidArgument(f"must be one of {', '.join(RESUME_POLICIES)}", field=f"{where}.resumePolicy")
    warm_start = parse_warm_start(spec.get("warmStart"), f"{where}.warmStart")
    if warm_start is not None and ALGORITHMS[algorithm].ignores_prior:
        raise InvalidArgument(f"algorithm {algorithm} learns nothing from earlier trials", field=f"{where}.warmStart")
    return ExperimentSpec(
        name=name,
        objective=objective,
        algorithm=algorithm,
        settings=settings,
        space=space,
        template=template,
        max_trials=most,
        max_failed=failed,
        parallel=parallel,
        collector=collector,
        early_stopping=stopping,
        early_stopping_settings=stopping_settings,
        resume_policy=policy,
        nas=nas,
        warm_start=warm_start,
    )


def _check_objectives(algorithm: str, objective: Objective, where: str) -> None:
    if objective.others and not ALGORITHMS[algorithm].is_multi_objective:
        able = ", ".join(sorted(name for name, other in ALGORITHMS.items() if other.is_multi_objective))
        raise InvalidArgument(f"algorithm {algorithm} has one objective only; several have {able}", field=where)


def _nas_config(spec: Mapping[str, Any], where: str) -> Mapping[str, Any] | None:
    if spec.get("nasConfig") is None:
        return None
    if spec.get("parameters"):
        raise InvalidArgument("only one of parameters and nasConfig can be given", field=f"{where}.nasConfig")
    return as_object(spec["nasConfig"], f"{where}.nasConfig")


def _objective(objective: Mapping[str, Any], where: str) -> Objective:
    kind = objective.get("type")
    if kind not in ("minimize", "maximize"):
        raise InvalidArgument("must be minimize or maximize", field=f"{where}.type")
    metric = as_metric(objective.get("objectiveMetricName"), f"{where}.objectiveMetricName")
    goal = objective.get("goal")
    if goal is not None and not is_number(goal):
        raise InvalidArgument("must be a number", field=f"{where}.goal")
    additional = [
        as_metric(name, f"{where}.additionalMetricNames[{index}]")
        for index, name in enumerate(
            as_list(objective.get("additionalMetricNames", []), f"{where}.additionalMetricNames")
        )
    ]
    if metric in additional:
        raise InvalidArgument(f"must not hold the objective {metric!r}", field=f"{where}.additionalMetricNames")
    strategies = {}
    for index, item in enumerate(as_list(objective.get("metricStrategies", []), f"{where}.metricStrategies")):
        path = f"{where}.metricStrategies[{index}]"
        strategy = as_object(item, path)
        if strategy.get("value") not in STRATEGIES:
            raise InvalidArgument(f"must be one of {', '.join(STRATEGIES)}", field=f"{path}.value")
        strategies[as_text(strategy.get("name"), f"{path}.name")] = str(strategy["value"])
    return Objective(
        metric=metric,
        maximize=kind == "maximize",
        goal=None if goal is None else float(goal),
        additional=tuple(additional),
        strategies=strategies,
        others=parse_targets(objective, where),
        constraints=parse_constraints(objective, where),
    )


def _algorithm(algorithm: Mapping[str, Any], where: str) -> tuple[str, dict[str, str]]:
    name = as_text(algorithm.get("algorithmName"), f"{where}.algorithmName")
    if name not in ALGORITHMS:
        raise InvalidArgument(
            f"unknown algorithm name {name}; served are {', '.join(sorted(ALGORITHMS))}", field=f"{where}.algorithmName"
        )
    return name, _settings(algorithm, where)


def _settings(algorithm: Mapping[str, Any], where: str) -> dict[str, str]:
    settings = {}
    for index, item in enumerate(as_list(algorithm.get("algorithmSettings", []), f"{where}.algorithmSettings")):
        path = f"{where}.algorithmSettings[{index}]"
        setting = as_object(item, path)
        settings[as_text(setting.get("name"), f"{path}.name")] = as_scalar(setting.get("value"), f"{path}.value")
    return settings


def _space(parameters: Sequence[Any], where: str) -> Space:
    made = []
    for index, item in enumerate(parameters):
        path = f"{where}[{index}]"
        parameter = as_object(item, path)
        feasible = as_object(parameter.get("feasibleSpace"), f"{path}.feasibleSpace")
        made.append(
            make_parameter(
                as_text(parameter.get("name"), f"{path}.name"),
                str(parameter.get("parameterType", "")),
                low=as_scalar(feasible.get("min", ""), f"{path}.feasibleSpace.min"),
                high=as_scalar(feasible.get("max", ""), f"{path}.feasibleSpace.max"),
                step=as_scalar(feasible.get("step", ""), f"{path}.feasibleSpace.step"),
                values=[
                    as_scalar(value, f"{path}.feasibleSpace.list")
                    for value in as_list(feasible.get("list", []), f"{path}.feasibleSpace.list")
                ],
                distribution=str(feasible.get("distribution", "")),
                field=path,
            )
        )
    return make_space(made, where, parse_activations(parameters, made, where))


def _early_stopping(given: Any, where: str) -> tuple[str | None, dict[str, str]]:
    if given is None:
        return None, {}
    rule = as_object(given, where)
    name = as_text(rule.get("algorithmName"), f"{where}.algorithmName")
    if name not in EARLY_STOPPING:
        raise InvalidArgument(
            f"unknown early stopping algorithm {name}; served are {', '.join(sorted(EARLY_STOPPING)) or 'none'}",
            field=f"{where}.algorithmName",
        )
    settings = _settings(rule, where)
    EARLY_STOPPING[name].validate(settings)
    return name, settings
