"""The digits pipeline, in the ordinary KFP DSL: load → validate → split → tune → train → evaluate → register → deploy.

Data: scikit-learn's handwritten digits, 1,797 images of 8x8 pixels. The tuning is a Katib experiment and the deployment
an InferenceService; both are made through the mesh's ingress, whose address every task finds in MLMESH_INGRESS.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

HERE = Path(__file__).resolve().parent

component = partial(dsl.component, base_image="python:3.11", packages_to_install=["joblib", "numpy", "scikit-learn"])


@component
def load(digits: Output[Dataset]) -> int:
    """Reads the images and labels."""
    import numpy as np
    from sklearn.datasets import load_digits

    data = load_digits()
    with open(digits.path, "wb") as file:
        np.savez(file, images=data.data, labels=data.target)
    digits.metadata["rows"] = len(data.target)
    return len(data.target)


@component
def validate(digits: Input[Dataset], report: Output[Metrics]) -> str:
    """Refuses data that is not what training expects."""
    import numpy as np

    data = np.load(digits.path)
    images, labels = data["images"], data["labels"]
    problems = []
    if images.ndim != 2 or images.shape[1] != 64:
        problems.append(f"images must be (n, 64), got {images.shape}")
    if len(images) != len(labels):
        problems.append(f"{len(images)} images but {len(labels)} labels")
    if not np.isfinite(images).all() or images.min() < 0 or images.max() > 16:
        problems.append("pixels must be 0..16")
    if set(np.unique(labels)) != set(range(10)):
        problems.append("labels must cover 0..9")
    if problems:
        raise ValueError("; ".join(problems))
    report.log_metric("rows", len(labels))
    report.log_metric("rarest_class_share", float(np.bincount(labels).min() / len(labels)))
    return "valid"


@component
def split(
    digits: Input[Dataset],
    seed: int,
    verdict: str,
    train: Output[Dataset],
    valid: Output[Dataset],
    test: Output[Dataset],
):
    """Splits 60/20/20, each class in proportion."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    data = np.load(digits.path)
    images, rest, labels, rest_labels = train_test_split(
        data["images"], data["labels"], train_size=0.6, random_state=seed, stratify=data["labels"]
    )
    valid_images, test_images, valid_labels, test_labels = train_test_split(
        rest, rest_labels, train_size=0.5, random_state=seed, stratify=rest_labels
    )
    parts = [(train, images, labels), (valid, valid_images, valid_labels), (test, test_images, test_labels)]
    for artifact, part_images, part_labels in parts:
        with open(artifact.path, "wb") as file:
            np.savez(file, images=part_images, labels=part_labels)
        artifact.metadata["rows"] = len(part_labels)


@component
def tune(
    train: Input[Dataset],
    valid: Input[Dataset],
    trials: int,
    parallel: int,
    seed: int,
    trial_source: str,
    best: Output[Artifact],
) -> NamedTuple("Best", [("C", float), ("gamma", float), ("trial", str), ("objective", float)]):
    """Searches C and gamma with a Katib experiment (Bayesian optimisation)."""
    import json
    import os
    import time
    import urllib.error
    import urllib.request

    run = os.environ.get("MLMESH_RUN_ID", "local")
    name = f"digits-{run[:8]}"
    experiments = os.environ["MLMESH_INGRESS"] + "/katib/v1/namespaces/default/experiments"
    command = ["python", "-c", trial_source, "--train", train.path, "--valid", valid.path]
    command += ["--C=${trialParameters.C}", "--gamma=${trialParameters.gamma}"]
    log_uniform = {"distribution": "logUniform"}
    manifest = {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "objective": {"type": "maximize", "objectiveMetricName": "accuracy"},
            "algorithm": {
                "algorithmName": "bayesianoptimization",
                "algorithmSettings": [{"name": "random_state", "value": str(seed)}],
            },
            "maxTrialCount": trials,
            "parallelTrialCount": parallel,
            "maxFailedTrialCount": 2,
            "parameters": [
                {"name": "C", "parameterType": "double", "feasibleSpace": {"min": "0.01", "max": "100", **log_uniform}},
                {
                    "name": "gamma",
                    "parameterType": "double",
                    "feasibleSpace": {"min": "0.0001", "max": "1", **log_uniform},
                },
            ],
            "trialTemplate": {
                "primaryContainerName": "train",
                "trialParameters": [{"name": "C", "reference": "C"}, {"name": "gamma", "reference": "gamma"}],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {
                        "template": {
                            "spec": {
                                "containers": [{"name": "train", "image": "python:3.11", "command": command}],
                                "restartPolicy": "Never",
                            }
                        }
                    },
                },
            },
        },
    }

    def call(method, url, body=None):
        """One REST call; a service that is restarting gets a minute to come back."""
        deadline = time.monotonic() + 60
        while True:
            request = urllib.request.Request(url, json.dumps(body).encode() if body else None, method=method)
            request.add_header("Content-Type", "application/json")
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                text = error.read().decode()
                if method == "POST" and error.code == 409:  # made by an earlier attempt of this task
                    return call("GET", f"{experiments}/{name}")
                if error.code not in (502, 503, 504) or time.monotonic() > deadline:
                    raise RuntimeError(f"{method} {url}: {error.code} {text}") from None
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.25)

    call("POST", experiments, {"manifest": manifest})
    while True:
        experiment = call("GET", f"{experiments}/{name}")
        status = experiment.get("status", {})
        conditions = {c["type"]: c for c in status.get("conditions", []) if c.get("status") == "True"}
        if "Succeeded" in conditions:
            break
        if "Failed" in conditions:
            raise RuntimeError(f"experiment {name} failed: {conditions['Failed'].get('message')}")
        time.sleep(0.2)
    optimal = status["current_optimal_trial"]
    chosen = {p["name"]: float(p["value"]) for p in optimal["parameter_assignments"]}
    objective = float(next(m["latest"] for m in optimal["observation"]["metrics"] if m["name"] == "accuracy"))
    trial = optimal["best_trial_name"]
    best.metadata.update(experiment=name, trial=trial, accuracy=objective, **chosen)
    with open(best.path, "w") as file:
        json.dump(dict(best.metadata), file)
    return chosen["C"], chosen["gamma"], trial, objective


@component
def train(
    train: Input[Dataset], valid: Input[Dataset], best: Input[Artifact], C: float, gamma: float, model: Output[Model]
):
    """Trains on train and validation data with the best parameters; probabilities are calibrated."""
    import joblib
    import numpy as np
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    parts = [np.load(part.path) for part in (train, valid)]
    images = np.concatenate([part["images"] for part in parts]) / 16.0
    labels = np.concatenate([part["labels"] for part in parts])
    classifier = CalibratedClassifierCV(SVC(C=C, gamma=gamma), ensemble=False, cv=3).fit(images, labels)
    joblib.dump(classifier, model.path)
    model.metadata.update(framework="scikit-learn", C=C, gamma=gamma, trial=best.metadata.get("trial", ""))


@component
def evaluate(
    model: Input[Model],
    test: Input[Dataset],
    min_accuracy: float,
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
) -> float:
    """Measures the model on images it has never seen; fails below `min_accuracy`."""
    import joblib
    import numpy as np
    from sklearn.metrics import accuracy_score, confusion_matrix

    data = np.load(test.path)
    predicted = joblib.load(model.path).predict(data["images"] / 16.0)
    accuracy = float(accuracy_score(data["labels"], predicted))
    metrics.log_metric("accuracy", accuracy)
    metrics.log_metric("images", len(predicted))
    confusion.log_confusion_matrix([str(d) for d in range(10)], confusion_matrix(data["labels"], predicted).tolist())
    if accuracy < min_accuracy:
        raise ValueError(f"accuracy {accuracy:.4f} is below {min_accuracy}")
    return accuracy


@component
def register(model: Input[Model], accuracy: float, name: str, stages_source: str, registered: Output[Model]):
    """Puts the model and the stages that surround it into one folder, ready to be served."""
    import pathlib
    import shutil

    folder = pathlib.Path(registered.path)
    folder.mkdir(parents=True)
    shutil.copy(model.path, folder / "model.joblib")
    (folder / "stages.py").write_text(stages_source)
    registered.metadata.update({**model.metadata, "name": name, "accuracy": accuracy})


@component
def deploy(registered: Input[Model], name: str) -> str:
    """Makes the InferenceService and waits until it is ready."""
    import json
    import os
    import pathlib
    import time
    import urllib.error
    import urllib.request

    services = os.environ["MLMESH_INGRESS"] + "/serving/v1/namespaces/default/inferenceservices"
    # On one machine KFP gives tasks plain paths, like its own local runner; elsewhere URIs.
    storage = registered.uri if "://" in registered.uri else pathlib.Path(registered.uri).as_uri()
    manifest = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {
            "preprocessor": {"python": {"class": "stages:PixelScaler", "storageUri": storage}},
            "predictor": {
                "model": {
                    "modelFormat": {"name": "sklearn"},
                    "storageUri": storage,
                    "method": "predict_proba",
                }
            },
            "postprocessor": {"python": {"class": "stages:LabelAndProbabilities", "storageUri": storage}},
        },
    }

    def call(method, url, body=None):
        deadline = time.monotonic() + 60
        while True:
            request = urllib.request.Request(url, json.dumps(body).encode() if body else None, method=method)
            request.add_header("Content-Type", "application/json")
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                text = error.read().decode()
                if method == "POST" and error.code == 409:  # there is one: give it the new model
                    return call("PATCH", f"{services}/{name}", {"manifest": manifest})
                if error.code not in (502, 503, 504) or time.monotonic() > deadline:
                    raise RuntimeError(f"{method} {url}: {error.code} {text}") from None
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.25)

    call("POST", services, {"manifest": manifest})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        service = call("GET", f"{services}/{name}")
        conditions = {c["type"]: c for c in service.get("status", {}).get("conditions", [])}
        if conditions.get("Ready", {}).get("status") == "True":
            return service["status"].get("url", "")
        time.sleep(0.1)
    raise TimeoutError(f"{name} is not ready: {conditions}")


@dsl.pipeline(name="digits", description="Handwritten digits, from the images to a served model")
def digits_pipeline(
    trials: int = 12,
    parallel: int = 2,
    seed: int = 7,
    min_accuracy: float = 0.9,
    model_name: str = "digits",
):
    """The whole job."""
    loaded = load()
    checked = validate(digits=loaded.outputs["digits"])
    parts = split(digits=loaded.outputs["digits"], seed=seed, verdict=checked.outputs["Output"]).outputs
    tuned = tune(
        train=parts["train"],
        valid=parts["valid"],
        trials=trials,
        parallel=parallel,
        seed=seed,
        trial_source=(HERE / "trial.py").read_text(),
    ).outputs
    trained = train(train=parts["train"], valid=parts["valid"], best=tuned["best"], C=tuned["C"], gamma=tuned["gamma"])
    evaluated = evaluate(model=trained.outputs["model"], test=parts["test"], min_accuracy=min_accuracy)
    registered = register(
        model=trained.outputs["model"],
        accuracy=evaluated.outputs["Output"],
        name=model_name,
        stages_source=(HERE / "stages.py").read_text(),
    )
    deploy(registered=registered.outputs["registered"], name=model_name)


if __name__ == "__main__":
    from kfp import compiler

    compiler.Compiler().compile(digits_pipeline, str(HERE / "digits.yaml"))
