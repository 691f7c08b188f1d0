"""Models that trials make: kept with the artifacts, known to the metadata service, gone with the experiment."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from integration.katib.client import Client, assignments, held, manifest
from integration.katib.metadata_service import Metadata
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlmd
from mlmesh_protos.mlmesh.katib.v1 import experiment_pb2 as pb

TRAINS = """
import os, pathlib, sys
x = float(sys.argv[1])
folder = pathlib.Path(os.environ["MLMESH_MODEL_PATH"])
if x != 2:
    (folder / "weights").mkdir()
    (folder / "weights" / "part 1.txt").write_text(f"model of {x}")
    (folder / "passwords").symlink_to("/etc/passwd")
    (folder / "all").symlink_to("/etc")
print("loss =", (x - 3) ** 2)
sys.exit(x == 4)
"""


def files(uri: str) -> dict[str, str]:
    folder = Path(unquote(urlsplit(uri).path))
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_trials_leave_is_kept(metadata: Metadata, katib: ServiceProcess) -> None:
    metadata.up()
    client = Client(katib)
    grid = {"name": "x", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "4"}}
    client.create(manifest("models", TRAINS, algorithm={"algorithmName": "grid"}, parameters=[grid], maxTrialCount=4))
    found = client.wait("models")
    assert "Succeeded" in held(found.status.conditions)
    trials = {assignments(trial)["x"]: trial for trial in client.trials("models")}
    assert not trials["2"].model_uri, "it left none"
    assert not trials["4"].model_uri, "it failed"
    uri = trials["3"].model_uri
    assert files(uri) == {"weights/part 1.txt": "model of 3.0"}, "no link is followed"
    assert found.status.current_optimal_trial.model_uri == uri

    told = metadata.wait("models", 4)
    name = trials["3"].name.rsplit("/", 1)[1]
    model = metadata.call("GetArtifactByTypeAndName", type_name="system.Model", artifact_name=f"default/models/{name}")
    assert model.artifact.uri == uri and model.artifact.custom_properties["loss"].string_value == "0.0"
    made = [event for event in told.events if event.artifact_id == model.artifact.id]
    assert [(event.execution_id, event.type) for event in made] == [(told.executions[name].id, mlmd.Event.OUTPUT)]
    models = metadata.call("GetArtifactsByType", type_name="system.Model").artifacts
    assert {artifact.uri for artifact in models} >= {trials["1"].model_uri, uri}

    client.experiments.DeleteExperiment(pb.DeleteExperimentRequest(name="namespaces/default/experiments/models"))
    assert files(uri) == {}


@pytest.fixture
def small(tmp_path: Path) -> Client:
    """Keeps models of 100 bytes."""
    settings = {"PRELOAD": "", "MAX_MODEL_BYTES": "100"}
    with ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", tmp_path, settings) as process:
        yield Client(process)


def test_a_model_that_is_too_large_is_not_kept(small: Client) -> None:
    code = TRAINS.replace('f"model of {x}"', '"x" * 101')
    one = {"name": "x", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "1"}}
    small.create(manifest("large", code, maxTrialCount=1, parallelTrialCount=1, parameters=[one]))
    found = small.wait("large")
    assert found.status.trials_succeeded == 1, "the trial is none the worse for it"
    (trial,) = small.trials("large")
    assert not trial.model_uri
    assert "its model was not kept: its model has 1 files with 101 bytes" in trial.conditions[-1].message
