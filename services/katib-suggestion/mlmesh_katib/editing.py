"""Which changes of an experiment are allowed; the rules are Katib's, and the goal may change too."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

from mlmesh_katib.experiment import Experiment, conditions_after
from mlmesh_katib.manifest import RESUME_NEVER, parse_manifest

EDITABLE = ("spec.maxTrialCount", "spec.maxFailedTrialCount", "spec.parallelTrialCount", "spec.objective.goal")


def edit(
    experiment: Experiment, made: int, manifest: Mapping[str, Any], paths: Sequence[str], max_trials: int
) -> Experiment:
    """Gives an experiment with parts of another manifest.

    Args:
        experiment: As it is.
        made: How many trials it has made.
        manifest: With the new values.
        paths: Which of EDITABLE change; empty: those that `manifest` has.
        max_trials: Largest maxTrialCount.

    Raises:
        InvalidArgument: A path cannot be changed, or a value is wrong.
        FailedPrecondition: It has ended and cannot go on.
    """
    chosen = list(paths) or [path for path in _paths(manifest) if path not in ("apiVersion", "kind", "metadata.name")]
    for path in chosen:
        if path not in EDITABLE:
            raise InvalidArgument(f"{path} cannot be changed; only {', '.join(EDITABLE)} can", field="update_mask")
    if not chosen:
        raise InvalidArgument(f"must name one of {', '.join(EDITABLE)}", field="update_mask")
    new = copy.deepcopy(dict(experiment.manifest))
    for path in chosen:
        _put(new, path.split("."), _get(manifest, path.split(".")))
    spec = parse_manifest(new, max_trials)
    changed = replace(experiment, manifest=new)
    raised = "spec.maxTrialCount" in chosen
    if raised and spec.max_trials <= made and new["spec"] != experiment.manifest["spec"]:
        raise InvalidArgument(
            f"must be greater than the number of trials that were made ({made})",
            field="manifest.spec.maxTrialCount",
        )
    if experiment.active:
        return changed
    ended = next((c for c in experiment.conditions if c.type == "Succeeded" and c.holds), None)
    by_budget = ended is not None and ended.reason == "ExperimentMaxTrialsReached"
    if spec.resume_policy == RESUME_NEVER or not by_budget:
        raise FailedPrecondition(
            "an experiment that has ended goes on only if it had reached its maxTrialCount "
            "and its resumePolicy is LongRunning or FromVolume"
        )
    if not raised:
        raise FailedPrecondition("the experiment has ended: it goes on when its maxTrialCount is raised")
    kept = tuple(replace(c, holds=False) if c is ended else c for c in experiment.conditions)
    restarted = conditions_after(kept, "Restarting", "ExperimentRestarting", "Experiment is restarted")
    return replace(changed, active=True, completed_ms=None, paused=False, conditions=restarted)


def pause(experiment: Experiment, paused: bool) -> Experiment:
    """Gives an experiment that starts no more trials, or does so again.

    Raises:
        FailedPrecondition: It has ended.
    """
    if not experiment.active:
        raise FailedPrecondition("the experiment has ended")
    return replace(experiment, paused=paused)


def _paths(value: Any, prefix: str = "") -> list[str]:
    if not isinstance(value, Mapping):
        return [prefix]
    return [path for key, item in value.items() for path in _paths(item, f"{prefix}.{key}" if prefix else key)]


def _get(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _put(target: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        target = target.setdefault(key, {})
    if value is None:
        target.pop(path[-1], None)
    else:
        target[path[-1]] = value
