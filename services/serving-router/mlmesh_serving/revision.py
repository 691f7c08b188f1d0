"""Revisions: what makes a new one, and how they are called."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlmesh_serving.manifest.scaling import PREFIX


@dataclass(frozen=True, slots=True)
class Revision:
    """What was served at a time; it never changes.

    Attributes:
        number: From 1, never given twice.
        manifest: That it was made of.
        created_ms: When it was made, milliseconds since the epoch.
    """

    namespace: str
    name: str
    number: int
    manifest: Mapping[str, Any]
    created_ms: int


def revision_name(name: str, number: int) -> str:
    """Gives the name of a revision as Knative writes it, `iris-00003`; empty for number 0."""
    return f"{name}-{number:05d}" if number else ""


def revision_number(name: str, text: str) -> int:
    """Reads `3` or `iris-00003`; 0: it is neither.

    Args:
        name: Of the InferenceService.
        text: As a client wrote it.
    """
    digits = text.removeprefix(f"{name}-")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else 0


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
