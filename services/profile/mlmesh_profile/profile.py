"""Profiles and contributors, and what makes their names valid."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.names import MAX_NAME

from mlmesh_profile.role import Role

MAX_USER_LENGTH = 254
MAX_METADATA_ENTRIES = 64
MAX_METADATA_BYTES = 32 << 10
MAX_SPEC_BYTES = 256 << 10

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._%+@|:='!~$&*^-]*")
_METADATA_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

SYSTEM = "system"
"""The actor of what mlmesh does by itself. Nobody's user name: `check_user` refuses it."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A namespace that a user owns.

    Attributes:
        name: RFC 1123 label; also the namespace's name.
        owner: User as the ingress names them.
        uid: Never used twice.
        created_us: When, in microseconds since 1970 (UTC).
        labels: Kubernetes labels.
        annotations: Kubernetes annotations.
        spec: What else the manifest's spec held (plugins, resourceQuotaSpec), as it was.
    """

    name: str
    owner: str
    uid: str = ""
    created_us: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contributor:
    """A user's role in a profile. A user may have several; the highest counts."""

    namespace: str
    user: str
    role: Role
    created_us: int = 0


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change of one profile.

    Attributes:
        number: Rises with time.
        at_us: When, in microseconds since 1970 (UTC).
        actor: Who did it.
        action: profile.create, profile.delete, contributor.create, contributor.delete.
        namespace: Of which profile.
        user: To whom: the owner or the contributor.
        role: Given or taken; None for profiles.
    """

    number: int
    at_us: int
    actor: str
    action: str
    namespace: str
    user: str
    role: Role | None


def is_user(name: str) -> bool:
    """Tells whether `name` can be a user's: what identity providers give, and a header can carry."""
    return len(name) <= MAX_USER_LENGTH and name != SYSTEM and _USER.fullmatch(name) is not None


def check_user(user: str, *, field: str) -> str:
    """Gives `user` back if it can be a user's name.

    Raises:
        InvalidArgument: It is empty, too long, or holds what no user name holds (spaces, slashes, control characters).
    """
    if not is_user(user):
        raise InvalidArgument(
            f"must be a user as the identity provider names them, at most {MAX_USER_LENGTH} characters, "
            "without spaces or slashes",
            field=field,
        )
    return user


def own_profile_names(user: str) -> tuple[str, str]:
    """Gives the names to try, in turn, for a user's own profile: what stands before the @, as a label; and the same
    with a digest of the whole user, for where somebody else has the first.
    """
    label = (
        re.sub(r"[^a-z0-9]+", "-", user.split("@", maxsplit=1)[0].lower()).strip("-")[:MAX_NAME].strip("-") or "user"
    )
    digest = hashlib.sha256(user.encode()).hexdigest()[:8]
    return label, f"{label[: MAX_NAME - 9].strip('-')}-{digest}"


def check_spec(spec: Mapping[str, Any], *, field: str) -> Mapping[str, Any]:
    """Gives the rest of a manifest's spec back if it is JSON of a fair size.

    Raises:
        InvalidArgument: It is not.
    """
    try:
        size = len(json.dumps(spec))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument("must hold JSON values only", field=field) from error
    if size > MAX_SPEC_BYTES:
        raise InvalidArgument(f"at most {MAX_SPEC_BYTES} bytes", field=field)
    return spec


def check_metadata(entries: Mapping[str, str], *, field: str) -> dict[str, str]:
    """Gives labels or annotations back if their number, size and keys are as Kubernetes allows.

    Raises:
        InvalidArgument: They are not.
    """
    if len(entries) > MAX_METADATA_ENTRIES:
        raise InvalidArgument(f"at most {MAX_METADATA_ENTRIES} entries", field=field)
    for key in entries:
        if not _METADATA_KEY.fullmatch(key):
            raise InvalidArgument(f"{key[:80]!r} is not a valid key", field=field)
    try:
        size = sum(len(key.encode()) + len(value.encode()) for key, value in entries.items())
    except UnicodeEncodeError as error:
        raise InvalidArgument("must be Unicode text", field=field) from error
    if size > MAX_METADATA_BYTES:
        raise InvalidArgument(f"at most {MAX_METADATA_BYTES} bytes", field=field)
    return dict(entries)
