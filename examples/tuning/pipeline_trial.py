"""Prints an Experiment whose trials are runs of a pipeline: it sets the pipeline's parameters, and reads its metrics.

python examples/tuning/pipeline_trial.py | mlmesh tune - --watch
"""

import json
import sys
import tempfile
from pathlib import Path

import yaml
from kfp import compiler, dsl
from kfp.dsl import Dataset, Input, Metrics, Output

PACKAGES = ["numpy", "scikit-learn"]


@dsl.component(base_image="python:3.11", packages_to_install=PACKAGES)
def load(digits: Output[Dataset]) -> None:
    """Reads the digits; the same in all trials, so that all but the first have it from the cache."""
    import numpy as np
    from sklearn.datasets import load_digits

    data = load_digits()
    with open(digits.path, "wb") as file:
        np.savez(file, images=data.data / 16, labels=data.target)


@dsl.component(base_image="python:3.11", packages_to_install=PACKAGES)
def train(digits: Input[Dataset], trees: int, depth: int, share: float, scores: Output[Metrics]) -> None:
    """Trains a forest and logs how good it is."""
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score

    data = np.load(digits.path)
    model = RandomForestClassifier(n_estimators=trees, max_depth=depth, max_features=share, random_state=0)
    found = cross_val_score(model, data["images"], data["labels"], cv=3)
    scores.log_metric("accuracy", float(found.mean()))
    scores.log_metric("deviation", float(found.std()))


@dsl.pipeline(name="digits-forest")
def digits_forest(trees: int = 20, depth: int = 8, share: float = 0.3) -> None:
    """Loads the digits and trains a forest on them."""
    train(digits=load().outputs["digits"], trees=trees, depth=depth, share=share)


def experiment() -> dict:
    """Gives the Experiment, with the compiled pipeline in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(digits_forest, str(path))
        spec = yaml.safe_load(path.read_text())
    names = ("trees", "depth", "share")
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "digits-forest"},
        "spec": {
            "objective": {
                "type": "maximize",
                "objectiveMetricName": "accuracy",
                "additionalMetricNames": ["deviation"],
            },
            "algorithm": {"algorithmName": "random", "algorithmSettings": [{"name": "random_state", "value": "1"}]},
            "maxTrialCount": 6,
            "parallelTrialCount": 2,
            "parameters": [
                {"name": "trees", "parameterType": "int", "feasibleSpace": {"min": "5", "max": "60"}},
                {"name": "depth", "parameterType": "int", "feasibleSpace": {"min": "2", "max": "16"}},
                {"name": "share", "parameterType": "double", "feasibleSpace": {"min": "0.05", "max": "0.9"}},
            ],
            "trialTemplate": {
                "trialParameters": [{"name": name, "reference": name} for name in names],
                "trialSpec": {
                    "apiVersion": "mlmesh.dev/v1",
                    "kind": "PipelineRun",
                    "spec": {
                        "pipelineSpec": spec,
                        "runtimeConfig": {"parameters": {name: f"${{trialParameters.{name}}}" for name in names}},
                    },
                },
            },
        },
    }


if __name__ == "__main__":
    json.dump(experiment(), sys.stdout)
