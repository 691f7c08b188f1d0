"""Experiments: named groups of runs."""

import re
import uuid

from mlmesh_kit.errors import AlreadyExists, InvalidArgument

from mlmesh_pipeline.resources import Experiment, now
from mlmesh_pipeline.store import ExperimentStore

DEFAULT_EXPERIMENT = "Default"
MAX_NAME = 191
_NAMESPACE = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
MAX_DESCRIPTION = 10_000


def check_text(value: str, field: str, *, required: bool = True, limit: int = MAX_NAME) -> str:
    """Checks a text from a user.

    Raises:
        InvalidArgument: It is missing, too long, or has control characters.
    """
    if required and not value.strip():
        raise InvalidArgument("is required", field=field)
    if len(value) > limit:
        raise InvalidArgument(f"must be at most {limit} characters, got {len(value)}", field=field)
    if any(ord(character) < 32 and character not in "\n\t" for character in value):
        raise InvalidArgument("must not have control characters", field=field)
    return value


def check_namespace(namespace: str, field: str) -> str:
    """Checks the name of a namespace: one of Kubernetes'.

    Raises:
        InvalidArgument: It is none.
    """
    if not _NAMESPACE.match(namespace):
        raise InvalidArgument(
            "must be 1 to 63 small letters, digits and '-', and begin and end without '-'", field=field
        )
    return namespace


class Experiments:
    """Creates experiments.

    Args:
        store: Where they are.
    """

    def __init__(self, store: ExperimentStore) -> None:
        self._store = store

    def create(self, namespace: str, display_name: str, description: str) -> Experiment:
        """Creates an experiment.

        Raises:
            InvalidArgument: The name is missing or too long.
            AlreadyExists: The namespace has one of this name.
        """
        return self._store.create(
            Experiment(
                experiment_id=str(uuid.uuid4()),
                namespace=check_namespace(namespace, "experiment.namespace"),
                display_name=check_text(display_name, "experiment.display_name"),
                description=check_text(description, "experiment.description", required=False, limit=MAX_DESCRIPTION),
                created_at=now(),
            )
        )

    def default(self, namespace: str) -> Experiment:
        """Gives the experiment for runs that name none; makes it on first use."""
        found = self._store.find(namespace, DEFAULT_EXPERIMENT)
        if found is not None:
            return found
        try:
            return self.create(namespace, DEFAULT_EXPERIMENT, "Runs that name no experiment")
        except AlreadyExists:  # another call was first
            found = self._store.find(namespace, DEFAULT_EXPERIMENT)
            assert found is not None
            return found
