"""Checkpoints of population based training: a trial that goes on from another begins with a copy of its folder."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from mlmesh_katib.algorithms.pbt import PARENT, PopulationBasedTraining

VARIABLE = "MLMESH_CHECKPOINT_PATH"
_FOLDER = "checkpoints"


def prepare(work: Path, algorithm: str, labels: Mapping[str, str]) -> Mapping[str, str]:
    """Makes a trial's folder of checkpoints, where it is a process of this machine.

    Katib mounts it at `suggestion_trial_dir`; a process has no file system of its own, so that it is in its working
    directory. Links are copied as links, and nothing is read outside the parent's own folder.

    Args:
        work: Its working directory, `EXPERIMENT_ID/TRIAL/work`.
        algorithm: Of the experiment.
        labels: Of the trial.

    Returns:
        The variable that tells the trial where it is; none with other algorithms.
    """
    if algorithm != PopulationBasedTraining.name:
        return {}
    folder = work / _FOLDER
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was interrupted
    folder.mkdir()
    if PARENT in labels:
        source = work.parent.parent / Path(labels[PARENT]).name / work.name / _FOLDER
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, folder, symlinks=True, dirs_exist_ok=True)
    return {VARIABLE: str(folder)}
