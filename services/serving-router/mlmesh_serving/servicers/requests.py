"""What requests that carry manifests have in common."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format, struct_pb2
from mlmesh_kit.documents import with_integers
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.names import check_name, parse_resource

MAX_MANIFEST_BYTES = 1 << 20
MAX_PAGE = 1000
DEFAULT_PAGE = 100


def namespace_of(parent: str) -> str:
    """Reads the namespace off a parent: `namespaces/{namespace}`.

    Raises:
        InvalidArgument: It has another form.
    """
    return check_name(parse_resource(parent, "namespaces/{namespace}", "parent")["namespace"], "parent")


def manifest_of(manifest: struct_pb2.Struct, namespace: str, kind: str) -> dict[str, Any]:
    """Gives a manifest as plain values.

    Args:
        manifest: Of the request.
        namespace: Of the request; the manifest may name it, and no other.
        kind: What the manifest should hold, for messages.

    Raises:
        InvalidArgument: It is empty, too large, or of another namespace.
    """
    if manifest.ByteSize() > MAX_MANIFEST_BYTES:
        raise InvalidArgument(f"must be at most {MAX_MANIFEST_BYTES} bytes", field="manifest")
    found: dict[str, Any] = with_integers(json_format.MessageToDict(manifest))
    if not found:
        raise InvalidArgument(f"must hold an {kind}", field="manifest")
    metadata = found.get("metadata")
    given = metadata.get("namespace") if isinstance(metadata, Mapping) else None
    if given not in (None, "", namespace):
        raise InvalidArgument(f"must be {namespace!r}, as in the request", field="manifest.metadata.namespace")
    return found


def page_size_of(given: int) -> int:
    """Gives the size of a page.

    Raises:
        InvalidArgument: It is negative or too large.
    """
    if not 0 <= given <= MAX_PAGE:
        raise InvalidArgument(f"must be 0 to {MAX_PAGE}", field="page_size")
    return given or DEFAULT_PAGE
