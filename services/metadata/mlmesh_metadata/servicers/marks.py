"""Marks: what was built on bad data."""

from mlmesh_metadata.store import Store


class MarkRpcs:
    """RPCs of LineageService."""

    _store: Store
