"""Whether what a task gave is still there, as it was."""

from collections.abc import Callable

from mlmesh_pipeline.resources import Artifact, Values

Look = Callable[[Artifact], str]
"""Says what has become of an artifact ("is gone"); "" if it is as it was."""


def changed_outputs(values: Values, look: Look) -> list[str]:
    """Says which artifacts are gone or have been changed since they were written.

    Args:
        values: Outputs of a task.
        look: Looks at what is there now.
    """
    found = []
    for name, items in sorted(values.artifacts.items()):
        for index, artifact in enumerate(items):
            if artifact.digest and (words := look(artifact)):
                label = f"{name}[{index}]" if len(items) > 1 else name
                found.append(f"{label} {words} ({artifact.uri})")
    return found
