"""Deletion and retention."""

from mlmesh_metadata.store import Store


class RetentionRpcs:
    """RPCs of LineageService."""

    _store: Store
