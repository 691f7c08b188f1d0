"""Tunes a Python function: a support vector machine on the digits. With a mesh up: python examples/tuning/function.py

Trials run in processes of the mesh, from the function's own source; each leaves its model among the artifacts.
"""

import argparse
import sys
from typing import Any

import mlmesh
from mlmesh import search


def train(parameters: dict[str, Any]) -> dict[str, float]:
    """Gives the accuracy with some parameters; it imports all that it needs itself, since it runs elsewhere."""
    import os
    from pathlib import Path

    import joblib
    from sklearn.datasets import load_digits
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    images, labels = load_digits(return_X_y=True)
    images, labels = images[: parameters["images"]] / 16, labels[: parameters["images"]]
    model = SVC(C=parameters["C"], gamma=parameters["gamma"], kernel=parameters["kernel"])
    accuracy = float(cross_val_score(model, images, labels, cv=3).mean())
    joblib.dump(model.fit(images, labels), Path(os.environ["MLMESH_MODEL_PATH"]) / "model.joblib")
    return {"accuracy": accuracy, "support_vectors": int(model.n_support_.sum())}


def main() -> None:
    """Tunes, and says what came of it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--trials", type=int, default=30)
    arguments.add_argument("--images", type=int, default=1797)
    arguments.add_argument("--report", help="where to write the report, as HTML")
    given = arguments.parse_args()
    found = mlmesh.tune(
        train,
        {
            "C": search.double(1e-3, 1e3, distribution="logUniform"),
            "gamma": search.double(1e-4, 10, distribution="logUniform"),
            "kernel": search.categorical(["rbf", "poly", "sigmoid"]),
            "images": given.images,  # no parameter: every trial gets it as it is
        },
        objective_metric_name="accuracy",
        additional_metric_names=["support_vectors"],
        max_trial_count=given.trials,
    )
    sys.stdout.write(f"best accuracy {found.best_value:.4f} with {found.best_parameters}\n")
    sys.stdout.write(f"its model: {found.best_model_uri}\n")
    if given.report:
        found.report(given.report)
        sys.stdout.write(f"report: {given.report}\n")


if __name__ == "__main__":
    main()
