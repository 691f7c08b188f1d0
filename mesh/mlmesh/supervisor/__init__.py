"""Keeps the processes of one mesh running. What `python -m mlmesh.supervisor` imports is the standard library alone."""
