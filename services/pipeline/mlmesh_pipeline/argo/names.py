"""Names that Kubernetes and Argo accept, of names that users give."""

import hashlib
import re
import uuid

_UNSAFE = re.compile(r"[^a-z0-9]+")
_SPACE = uuid.UUID("6f0f9d0e-3f4b-4c4e-9c7b-1f5f0a6d2a11")
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
DNS_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
MAX_SLUG = 30


def slug(name: str, length: int = MAX_SLUG) -> str:
    """Gives lower-case letters, digits and dashes that remind of a name; two names may give the same."""
    return _UNSAFE.sub("-", name.lower()).strip("-")[:length].strip("-") or "x"


def short_hash(text: str) -> str:
    """Gives ten hex digits of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def task_id_of(run_id: str, path: str) -> str:
    """Gives the id of a task: pods and the service know it without asking each other."""
    return str(uuid.uuid5(_SPACE, f"{run_id}/{path}"))


def workflow_name(pipeline_name: str, run_id: str, number: int) -> str:
    """Gives the name of the Workflow of a run's try; it follows from both, so that submitting twice makes one.

    Args:
        pipeline_name: To be recognised by.
        run_id: Of the run.
        number: Of the try, from 1.
    """
    ident = run_id if DNS_LABEL.fullmatch(run_id) and len(run_id) <= 36 else short_hash(run_id)
    return f"{slug(pipeline_name, 16)}-{ident}-{number}"


def is_label_value(text: str) -> bool:
    """Tells whether a text may be the value of a label."""
    return _LABEL.fullmatch(text) is not None


class Names:
    """Gives names of a scope, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, prefix: str, name: str, suffix: str = "") -> str:
        """Gives a name that reminds of `name`: of at most 63 characters, and not given before."""
        plain = slug(name)
        if not prefix and plain[0].isdigit():  # which Argo does not take
            prefix = "t-"
        base = f"{prefix}{plain}{suffix}" if plain == name else f"{prefix}{plain}-{short_hash(name)}{suffix}"
        found, number = base, 1
        while found in self._taken:
            number += 1
            found = f"{base}-{number}"
        self._taken.add(found)
        return found
