"""Models that trials make: what a trial leaves in a folder of its own is kept with the artifacts."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.objectstore import below, open_store

from mlmesh_katib.experiment import Experiment, Trial

VARIABLE = "MLMESH_MODEL_PATH"
MAX_FILES = 10_000
_FOLDER = "model"


def prepare(work: Path) -> Mapping[str, str]:
    """Makes the folder in which a trial may leave its model, empty, where it is a process of this machine.

    Args:
        work: Its working directory.

    Returns:
        The variable that tells the trial where it is.
    """
    folder = work / _FOLDER
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was interrupted
    folder.mkdir()
    return {VARIABLE: str(folder)}


class ModelKeeper:
    """Keeps models with the artifacts.

    Args:
        artifact_root: URI below which they are kept.
        max_bytes: Largest model.
    """

    def __init__(self, artifact_root: str, max_bytes: int) -> None:
        self._root = artifact_root
        self._max_bytes = max_bytes

    def keep(self, experiment: Experiment, trial: Trial, work: Path) -> str:
        """Copies what a trial has left; links are left out. Blocks.

        Args:
            experiment: Of the trial.
            trial: It has ended.
            work: Its working directory.

        Returns:
            The URI of the model, a folder; empty: it has left none.

        Raises:
            InvalidArgument: It is too large.
            Unavailable: The store cannot be reached.
        """
        folder = work / _FOLDER
        if folder.is_symlink() or not folder.is_dir():
            return ""
        files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        if not files:
            return ""
        size = sum(path.stat().st_size for path in files)
        if len(files) > MAX_FILES or size > self._max_bytes:
            raise InvalidArgument(
                f"its model has {len(files)} files with {size} bytes; {MAX_FILES} with {self._max_bytes} are kept"
            )
        store = open_store(self._root)
        uri = below(self._folder(experiment), f"{trial.name}/{_FOLDER}")
        store.delete_tree(uri)  # of an attempt that was killed while it was copied
        store.put_tree(folder, uri)
        return uri

    def remove(self, experiment: Experiment) -> None:
        """Removes the models of an experiment. Blocks."""
        open_store(self._root).delete_tree(self._folder(experiment))

    def _folder(self, experiment: Experiment) -> str:
        # The number parts it from an earlier experiment of the name, whose models others may have the URIs of.
        return below(self._root, f"katib/{experiment.namespace}/{experiment.name}-{experiment.id}")
