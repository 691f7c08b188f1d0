"""Names of resources: RFC 1123 labels and AIP-122 resource names."""

import re

from mlmesh_kit.errors import InvalidArgument

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
MAX_NAME = 63


def check_name(name: str, field: str = "name", *, max_length: int = MAX_NAME) -> str:
    """Returns `name` if it is an RFC 1123 label, as Kubernetes wants its names.

    Raises:
        InvalidArgument: It is not; the message says what is allowed.
    """
    if len(name) > max_length or not _LABEL.fullmatch(name):
        raise InvalidArgument(
            f"must be 1 to {max_length} lower case letters, digits and '-', not beginning or ending with '-'",
            field=field,
        )
    return name


def parse_resource(name: str, pattern: str, field: str = "name") -> dict[str, str]:
    """Takes a resource name apart.

    Args:
        name: `namespaces/default/experiments/digits`.
        pattern: `namespaces/{namespace}/experiments/{experiment}`.
        field: Where the client wrote it.

    Returns:
        The variables: `{"namespace": "default", "experiment": "digits"}`.

    Raises:
        InvalidArgument: It has another form.
    """
    parts, wanted = name.split("/"), pattern.split("/")
    found: dict[str, str] = {}
    matches = len(parts) == len(wanted)
    for part, want in zip(parts, wanted, strict=False):
        if want.startswith("{"):
            found[want[1:-1]] = part
            matches = matches and bool(part)
        else:
            matches = matches and part == want
    if not matches:
        raise InvalidArgument(f"must have the form {pattern}", field=field)
    return found
