"""What a trial does that reports its metrics with Katib's Python SDK, as a list of answers.

Runs in the environment of the stock client, never in ours: `KATIB_TRIAL_NAME=... python scenarios.py HOST:PORT`. Prints
one JSON object: each step's answer, or the name and the text of its error.
"""

import json
import os
import sys

from kubeflow import katib
from kubeflow.katib.utils import utils

# The client takes the namespace, for its error messages alone, from a file that only pods have.
utils.get_current_k8s_namespace = lambda: "default"


def main(address: str) -> None:
    """Runs all steps."""
    answers = {}
    steps = {
        "first": {"loss": 0.5, "accuracy": 0.75},
        "text": {"loss": "0.25"},
        "not a number": {"loss": "low"},
        "infinite": {"loss": float("inf")},
        "no name": {"": 1},
        "no trial": {"loss": 0.125},
    }
    for name, metrics in steps.items():
        if name == "no trial":
            del os.environ["KATIB_TRIAL_NAME"]
        try:
            answers[name] = katib.report_metrics(metrics, db_manager_address=address, timeout=10)
        except Exception as error:
            answers[name] = [type(error).__name__, str(error)]
    print(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1])
