"""Questions about artifacts, runs and contexts."""

from mlmesh_metadata.store import Store


class QuestionRpcs:
    """RPCs of LineageService."""

    _store: Store
