"""Experiments of hyperband, pbt, enas and darts, run by the service."""

import json
from collections import Counter

import grpc
import pytest
from integration.katib.client import assignments, held, manifest

RATE = {"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "10"}}
OPERATION = {
    "operationType": "convolution",
    "parameters": [{"name": "size", "parameterType": "categorical", "feasibleSpace": {"list": ["3", "5"]}}],
}
NAS = {"graphConfig": {"numLayers": 3, "inputSizes": [8], "outputSizes": [2]}, "operations": [OPERATION]}


def algorithm(name: str, **settings: str) -> dict:
    return {"algorithmName": name, "algorithmSettings": [{"name": k, "value": v} for k, v in settings.items()]}


def made(name: str, code: str, chosen: dict, references: list[str], **spec) -> dict:
    """An experiment whose trials get the references' values as arguments."""
    whole = manifest(name, code, algorithm=chosen, **spec)
    if "nasConfig" in spec:
        del whole["spec"]["parameters"]
    template = whole["spec"]["trialTemplate"]
    names = [f"p{number}" for number, _ in enumerate(references)]
    template["trialParameters"] = [{"name": n, "reference": r} for n, r in zip(names, references, strict=True)]
    command = ["python", "-c", code, *(f"${{trialParameters.{n}}}" for n in names)]
    template["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"] = command
    return whole


def test_hyperband_runs_its_brackets_to_their_ends(client):
    epochs = {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "1"}}
    client.create(
        made(
            "band",
            "import sys; print('loss =', sys.argv[1])",
            algorithm("hyperband", r_l="4", eta="2", resource_name="epochs", random_state="1"),
            ["x", "epochs"],
            parameters=[RATE, epochs],
            maxTrialCount=50,
            parallelTrialCount=4,
        )
    )
    found = client.wait("band")
    assert found.status.conditions[-1].reason == "ExperimentSuggestionEndReached"
    runs = Counter(assignments(trial)["epochs"] for trial in client.trials("band"))
    assert runs == {"1": 4, "2": 2 + 3, "4": 1 + 2 + 3}
    best = min(client.trials("band"), key=lambda trial: float(assignments(trial)["x"]))
    assert assignments(best)["x"] in {
        assignments(t)["x"] for t in client.trials("band") if assignments(t)["epochs"] == "4"
    }


def test_a_population_goes_on_from_the_checkpoints_of_others(client):
    code = """
import os, pathlib, sys
path = pathlib.Path(os.environ["MLMESH_CHECKPOINT_PATH"]) / "lineage"
line = (path.read_text() if path.exists() else "") + os.environ["MLMESH_TRIAL_NAME"] + " "
path.write_text(line)
print("loss =", sys.argv[1])
print("depth =", len(line.split()))
"""
    chosen = algorithm("pbt", suggestion_trial_dir="/data", n_population="5", truncation_threshold="0.2")
    objective = {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["depth"]}
    client.create(made("population", code, chosen, ["x"], parameters=[RATE], maxTrialCount=15, objective=objective))
    assert "Succeeded" in held(client.wait("population").status.conditions)
    depths = Counter()
    for trial in client.trials("population"):
        depths.update(metric.latest for metric in trial.observation.metrics if metric.name == "depth")
    assert set(depths) == {"1", "2", "3"} and depths["2"] >= 5


def test_architectures_are_searched(client):
    code = "import sys; print('loss =', sys.argv[1].count('1')); print(sys.argv[2])"
    chosen = algorithm("enas", controller_train_steps="2", random_state="1")
    client.create(made("nets", code, chosen, ["architecture", "nn_config"], nasConfig=NAS, maxTrialCount=6))
    assert "Succeeded" in held(client.wait("nets").status.conditions)
    found = [assignments(trial) for trial in client.trials("nets")]
    assert len({given["architecture"] for given in found}) == 6
    assert all([len(layer) for layer in json.loads(given["architecture"])] == [1, 2, 3] for given in found)


def test_darts_is_one_trial_whose_objective_is_a_genotype(client):
    code = "import sys; print('best=Genotype(%s)' % '-'.join(sys.argv[1:3]))"
    whole = made(
        "darts",
        code,
        algorithm("darts", num_epochs="2"),
        ["search-space", "num-layers", "algorithm-settings"],
        nasConfig=NAS,
        objective={"type": "maximize", "objectiveMetricName": "best"},
        metricsCollectorSpec={"source": {"filter": {"metricsFormat": [r"([\w-]+)=(Genotype.*)"]}}},
        maxTrialCount=1,
        parallelTrialCount=1,
    )
    client.create(whole)
    found = client.wait("darts")
    assert (found.status.trials_succeeded, found.status.conditions[-1].reason) == (1, "ExperimentMaxTrialsReached")
    observed = client.trials("darts")[0].observation.metrics
    assert [metric.latest for metric in observed] == ["Genotype(['convolution_3x3', 'convolution_5x5']-3)"]


@pytest.mark.parametrize(
    ("chosen", "config", "field"),
    [
        ("darts", {"operations": [OPERATION]}, "nasConfig.graphConfig.numLayers"),
        ("darts", {"graphConfig": {"numLayers": 3}}, "nasConfig.operations"),
        ("enas", {**NAS, "graphConfig": {"numLayers": "3", "inputSizes": [1], "outputSizes": [1]}}, "numLayers"),
        ("enas", {**NAS, "operations": [{"operationType": "c", "parameters": "x"}]}, "operations[0].parameters"),
        ("enas", {**NAS, "operations": {"a": 1}}, "nasConfig.operations"),
        ("random", NAS, "manifest.spec.nasConfig"),
    ],
)
def test_bad_architectures_are_told_by_field(client, chosen, config, field):
    with pytest.raises(grpc.RpcError) as caught:
        client.create(made("bad", "pass", algorithm(chosen), ["architecture"], nasConfig=config))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and field in caught.value.details()
