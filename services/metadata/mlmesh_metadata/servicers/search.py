"""Full-text search."""

from mlmesh_metadata.store import Store


class SearchRpcs:
    """RPCs of LineageService."""

    _store: Store
