"""Whether what a task gave is still there, as it was."""

from collections.abc import Callable

from mlmesh_pipeline.resources import Artifact, Values

Digest = Callable[[Artifact], str]
"""Gives the digest of what an artifact is now; "" where there is nothing."""


def changed_outputs(values: Values, digest_of: Digest) -> list[str]:
    """Says which artifacts are gone or have been changed since they were written.

    Args:
        values: Outputs of a task.
        digest_of: Looks what is there now.
    """
    found = []
    for name, items in sorted(values.artifacts.items()):
        for index, artifact in enumerate(items):
            if not artifact.digest:
                continue
            label = f"{name}[{index}]" if len(items) > 1 else name
            there = digest_of(artifact)
            if not there:
                found.append(f"{label} is gone ({artifact.uri})")
            elif there != artifact.digest:
                found.append(f"{label} has been changed ({artifact.uri})")
    return found
