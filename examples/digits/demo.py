"""The main job, end to end: brings a mesh up, runs the digits pipeline, asks the model, and takes the mesh down.

Everything goes through the mesh's one door, the ingress: the pipeline through the stock `kfp.Client`, tuning, lineage and
serving through REST, predictions through REST and gRPC. Ends 0 only if all of it went well.

    python examples/digits/demo.py                      # a mesh of its own, in a temporary data directory
    python examples/digits/demo.py --ingress URL        # a mesh that is up already
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import warnings
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

warnings.filterwarnings("ignore", category=FutureWarning)
sys.path.insert(0, str(Path(__file__).parent))

MODEL = "digits"
IMAGES = 20
STYLE = {
    "SUCCEEDED": "green",
    "SKIPPED": "cyan",
    "CACHED": "cyan",
    "RUNNING": "yellow",
    "FAILED": "red",
    "PENDING": "dim",
}
console = Console(highlight=False)


class DemoError(Exception):
    """Something on the way did not end as it must."""


class Mesh:
    """A mesh that is up, seen through its ingress.

    Args:
        ingress: URL of the ingress.
    """

    def __init__(self, ingress: str) -> None:
        import kfp

        self.ingress = ingress
        self.kfp = kfp.Client(host=ingress)
        self.http = httpx.Client(base_url=ingress, timeout=30)

    def get(self, path: str, *, patience_seconds: float = 30) -> Any:
        """Reads JSON; a service that is restarting gets some time to come back."""
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                answer = self.http.get(path)
                if answer.status_code not in {502, 503, 504} or time.monotonic() > deadline:
                    answer.raise_for_status()
                    return answer.json()
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def run(self, run_id: str) -> Any:
        """Reads a run through kfp's client, with the same patience."""
        import kfp_server_api
        import urllib3

        for attempt in range(150):
            try:
                return self.kfp.get_run(run_id)
            except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError) as error:
                if getattr(error, "status", 503) not in {502, 503, 504} or attempt == 149:
                    raise
                time.sleep(0.2)


def submit(mesh: Mesh, **arguments: Any) -> str:
    """Submits the pipeline with kfp's own client; gives the run's id."""
    import pipeline

    result = mesh.kfp.create_run_from_pipeline_func(
        pipeline.digits_pipeline, arguments=arguments, experiment_name="digits", enable_caching=True
    )
    return str(result.run_id)


def task_table(run: Any) -> Tree:
    """Draws the tasks of a run."""
    tree = Tree(Text.assemble("run ", (run.display_name or run.run_id, "bold"), " ", str(run.state or "PENDING")))
    tasks = list(run.run_details.task_details or []) if run.run_details else []
    for task in tasks:
        if task.display_name in {None, "root"}:
            continue
        state = str(task.state or "PENDING")
        seconds = ""
        if task.start_time and task.end_time:
            seconds = f"  {(task.end_time - task.start_time).total_seconds():.1f} s"
        tree.add(Text.assemble((f"{task.display_name:<10}", "bold"), (state, STYLE.get(state, "")), seconds))
    return tree


def trial_table(trials: list[dict[str, Any]]) -> Table:
    """Draws the trials of the experiment with their objective."""
    table = Table("trial", "C", "gamma", "state", "accuracy", box=None, header_style="dim")
    values = [accuracy_of(trial) for trial in trials]
    best = max((v for v in values if v is not None), default=None)
    for trial, value in zip(trials, values, strict=True):
        chosen = {p["name"]: float(p["value"]) for p in trial.get("parameter_assignments", [])}
        shown = "" if value is None else f"{value:.4f}"
        table.add_row(
            trial["name"].rsplit("/", 1)[-1],
            f"{chosen.get('C', float('nan')):.4g}",
            f"{chosen.get('gamma', float('nan')):.4g}",
            state_of(trial),
            Text(shown, "bold green" if value is not None and value == best else ""),
        )
    return table


def state_of(trial: dict[str, Any]) -> str:
    """Gives the last condition that holds."""
    held = [c["type"] for c in trial.get("conditions", []) if c.get("status") == "True"]
    return held[-1] if held else "Created"


def accuracy_of(trial: dict[str, Any]) -> float | None:
    """Reads the objective of a trial, None while there is none."""
    for metric in trial.get("observation", {}).get("metrics", []):
        if metric["name"] == "accuracy" and metric.get("latest"):
            return float(metric["latest"])
    return None


def watch(mesh: Mesh, run_id: str) -> Any:
    """Shows a run live until it ends.

    Raises:
        DemoError: It did not succeed.
    """
    experiment = f"/katib/v1/namespaces/default/experiments/digits-{run_id[:8]}/trials"
    trials: list[dict[str, Any]] = []
    with Live(console=console, refresh_per_second=8, transient=not console.is_terminal) as live:
        while True:
            run = mesh.run(run_id)
            states = {t.display_name: str(t.state) for t in (run.run_details.task_details or [])} if run.run_details else {}
            if states.get("tune") == "RUNNING" or (states.get("tune") == "SUCCEEDED" and not trials):
                answer = mesh.http.get(experiment)
                if answer.is_success:
                    trials = answer.json().get("trials", [])
            shown: list[Any] = [task_table(run)]
            if trials:
                shown.append(trial_table(sorted(trials, key=lambda t: t.get("start_time", ""))))
            live.update(Group(*shown))
            if run.state in {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}:
                break
            time.sleep(0.15)
    if not console.is_terminal:
        console.print(Group(*shown))
    if run.state != "SUCCEEDED":
        raise DemoError(f"the run ended {run.state}: {run.error.message if run.error else 'no reason given'}")
    return run
