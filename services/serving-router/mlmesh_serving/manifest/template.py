"""What makes a new revision of a manifest, and what does not."""

import copy
from collections.abc import Mapping
from typing import Any

from mlmesh_serving.manifest.scaling import PREFIX


def template_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Gives what a revision is made of: another template is another revision.

    That is the spec without the canary percentage, and the annotations that Knative's autoscaler reads. Name, labels
    and other annotations belong to the InferenceService.
    """
    spec = _without_canary(manifest.get("spec") or {})
    annotations = (manifest.get("metadata") or {}).get("annotations") or {}
    return {"spec": spec, "annotations": {k: v for k, v in annotations.items() if k.startswith(PREFIX)}}


def canary_of(manifest: Mapping[str, Any]) -> int | None:
    """Gives canaryTrafficPercent of a checked manifest; None: it has none."""
    percent = manifest["spec"]["predictor"].get("canaryTrafficPercent")
    return None if percent is None else int(percent)


def promoted(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a manifest without its canary percentage."""
    return {**manifest, "spec": _without_canary(manifest["spec"])}


def _without_canary(spec: Mapping[str, Any]) -> dict[str, Any]:
    made = copy.deepcopy(dict(spec))
    predictor = made.get("predictor")
    if isinstance(predictor, dict):
        predictor.pop("canaryTrafficPercent", None)
    return made
