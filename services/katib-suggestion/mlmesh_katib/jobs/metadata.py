"""The metadata of a `trialSpec`: what a template may say of it."""

from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import InvalidArgument


def check_metadata(manifest: Mapping[str, Any], where: str) -> None:
    """Checks what every resource that becomes a trial has in common.

    Args:
        manifest: The `trialSpec`.
        where: Its path, for errors.

    Raises:
        InvalidArgument: It names the resource, which is named after the trial, or its labels are no object.
    """
    metadata = manifest.get("metadata", {})
    if not isinstance(metadata, Mapping):
        raise InvalidArgument("must be an object", field=f"{where}.metadata")
    for key in ("name", "namespace"):
        if metadata.get(key):
            raise InvalidArgument("must not be given: it is the trial's", field=f"{where}.metadata.{key}")
    for key in ("labels", "annotations"):
        if not isinstance(metadata.get(key) or {}, Mapping):
            raise InvalidArgument("must be an object", field=f"{where}.metadata.{key}")
