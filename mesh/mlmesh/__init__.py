"""The command mlmesh: CLI, local supervisor, renderers."""
