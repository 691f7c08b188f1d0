"""Profile manifests: YAML or JSON of kubeflow.org/v1 (v1beta1 reads the same)."""

from collections.abc import Mapping
from typing import Any

from mlmesh_kit.documents import load_yaml
from mlmesh_kit.errors import InvalidArgument

from mlmesh_profile.profile import Profile

MAX_MANIFEST_BYTES = 256 << 10
_API_VERSIONS = ("kubeflow.org/v1", "kubeflow.org/v1beta1")


def read_manifest(text: bytes) -> Profile:
    """Reads one Profile from YAML or JSON. Its names are checked where it is made.

    Raises:
        InvalidArgument: It is too large, no YAML, or no Profile.
    """
    return profile_of(load_yaml(text, max_bytes=MAX_MANIFEST_BYTES))


def profile_of(document: Any) -> Profile:
    """Makes a profile of a manifest that has been parsed.

    Raises:
        InvalidArgument: It is no Profile, or a field is of another type than Kubernetes has it.
    """
    manifest = _mapping(document, "manifest")
    if manifest.get("apiVersion") not in _API_VERSIONS:
        raise InvalidArgument(f"must be {' or '.join(_API_VERSIONS)}", field="apiVersion")
    if manifest.get("kind") != "Profile":
        raise InvalidArgument("must be Profile", field="kind")
    metadata = _mapping(manifest.get("metadata", {}), "metadata")
    spec = dict(_mapping(manifest.get("spec", {}), "spec"))
    return Profile(
        name=_string(metadata.get("name", ""), "metadata.name"),
        owner=owner_of(_mapping(spec.pop("owner", {}), "spec.owner")),
        labels=_strings(metadata.get("labels") or {}, "metadata.labels"),
        annotations=_strings(metadata.get("annotations") or {}, "metadata.annotations"),
        spec=spec,
    )


def owner_of(subject: Mapping[str, Any], *, field: str = "spec.owner") -> str:
    """Gives the name of a subject of kind User; empty if there is none.

    Raises:
        InvalidArgument: It is of another kind.
    """
    kind = subject.get("kind") or "User"
    if kind != "User":
        raise InvalidArgument("must be User: only users own and contribute", field=f"{field}.kind")
    return _string(subject.get("name") or "", f"{field}.name")


def _mapping(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidArgument("must be a mapping", field=field)
    return value


def _string(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidArgument("must be a string", field=field)
    return value


def _strings(value: Any, field: str) -> dict[str, str]:
    return {_string(k, field): _string(v, f"{field}[{k}]") for k, v in _mapping(value, field).items()}
