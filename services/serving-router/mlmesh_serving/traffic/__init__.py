"""Spreading the requests of a model over its revisions."""
