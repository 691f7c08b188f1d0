"""The main job, end to end: brings a mesh up, runs the digits pipeline, asks the model, and takes the mesh down.

Everything goes through the mesh's one door, the ingress: the pipeline through the stock `kfp.Client`, tuning, lineage
and serving through REST, predictions through REST and gRPC. Ends 0 only if all of it went well.

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


FAILURES = (DemoError, httpx.HTTPError, grpc.RpcError)


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

    def ask(self, path: str, body: Any, *, patience_seconds: float = 30) -> httpx.Response:
        """Posts a question, which may be asked twice; a service that is restarting gets some time to come back."""
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                answer = self.http.post(path, json=body)
                if answer.status_code not in {502, 503, 504} or time.monotonic() > deadline:
                    return answer
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
        if state == "SKIPPED" and task.executor_detail and task.executor_detail.pre_caching_check_job:
            state = "CACHED"
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
            states = (
                {t.display_name: str(t.state) for t in (run.run_details.task_details or [])} if run.run_details else {}
            )
            unfinished = not trials or any(state_of(trial) in {"Created", "Running"} for trial in trials)
            if states.get("tune") in {"RUNNING", "SUCCEEDED"} and unfinished:
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


def task_id(run: Any, name: str) -> str:
    """Finds a task of a run by its name."""
    return str(next(t.task_id for t in run.run_details.task_details if t.display_name == name))


def outputs(mesh: Mesh, run: Any, task: str) -> dict[str, Any]:
    """Reads what a task gave out: its parameters, and its artifacts with their metadata."""
    found: dict[str, Any] = mesh.get(f"/apis/v2beta1/runs/{run.run_id}/tasks/{task_id(run, task)}/outputs")
    return found


def lineage(mesh: Mesh, run: Any) -> dict[str, Any]:
    """Asks the metadata service how the registered model came to be.

    Lineage is written behind the run, never holding it up; so the question is asked until the answer reaches the data.

    Raises:
        DemoError: It is not whole within half a minute.
    """
    model = outputs(mesh, run, "register")["artifacts"]["registered"][0]
    question = f"/metadata/v1/lineage?{urllib.parse.urlencode({'uri': model['uri']})}"
    deadline = time.monotonic() + 30
    while True:
        answer = mesh.http.get(question)
        graph = answer.json() if answer.is_success else {}
        missing = {"load", "split", "tune", "train", "register"} - {
            str(node.get("properties", {}).get("display_name", "")) for node in graph.get("nodes", [])
        }
        experiment, trial = trial_of(graph)
        if not missing:
            uri = f"katib://namespaces/default/experiments/{experiment}/trials/{trial}"
            answer = mesh.http.get(f"/metadata/v1/lineage?{urllib.parse.urlencode({'uri': uri})}")
            tried = [n for n in answer.json()["nodes"] if n["kind"] == "execution"] if answer.is_success else []
            if tried:
                return {**graph, "trial": tried[0]}
        if time.monotonic() > deadline:
            lacks = ", ".join(sorted(missing)) or f"trial {trial or '?'}"
            raise DemoError(f"the lineage of {model['uri']} lacks {lacks}")
        time.sleep(0.2)


def trial_of(graph: dict[str, Any]) -> tuple[str, str]:
    """Gives the experiment and the trial whose parameters the model has, as the task `tune` wrote them down."""
    for node in graph.get("nodes", []):
        properties = node.get("properties", {})
        if properties.get("experiment") and properties.get("trial"):
            return properties["experiment"], properties["trial"]
    return "", ""


def lineage_tree(graph: dict[str, Any]) -> Tree:
    """Draws lineage: each artifact over the task that made it, over what that task used."""
    nodes = {(node["kind"], node["id"]): node for node in graph["nodes"]}
    made_by = {e["artifact_id"]: e["execution_id"] for e in graph["edges"] if e["type"] == "OUTPUT"}
    used: dict[str, list[str]] = {}
    for edge in graph["edges"]:
        if edge["type"] == "INPUT":
            used.setdefault(edge["execution_id"], []).append(edge["artifact_id"])
    drawn: set[str] = set()

    def label(artifact: str) -> Text:
        node = nodes["artifact", artifact]
        shown = {
            k: v for k, v in node.get("properties", {}).items() if k in {"rows", "accuracy", "C", "gamma", "trial"}
        }
        facts = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in shown.items())
        execution = nodes.get(("execution", made_by.get(artifact, "")), {})
        task = execution.get("properties", {}).get("display_name", execution.get("name", "?"))
        return Text.assemble((node["type"], "cyan"), " from ", (task, "bold"), (f"  {facts}", "dim"))

    def grow(branch: Tree, artifact: str) -> None:
        if artifact in drawn:
            branch.label = Text.assemble(branch.label, ("  (above)", "dim"))  # type: ignore[arg-type]
            return
        drawn.add(artifact)
        for source in used.get(made_by.get(artifact, ""), []):
            grow(branch.add(label(source)), source)

    tree = Tree(label(graph["artifact_id"]))
    grow(tree, graph["artifact_id"])
    return tree


def ask_rest(mesh: Mesh, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicts over REST (Open Inference Protocol v2)."""
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "FP64", "data": images.ravel().tolist()}
    answer = mesh.ask(f"/v2/models/{MODEL}/infer", {"inputs": [tensor]})
    if not answer.is_success:
        raise DemoError(f"REST prediction: {answer.status_code} {answer.text}")
    outputs = {o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in answer.json()["outputs"]}
    return outputs["label"], outputs["probabilities"]


def ask_grpc(mesh: Mesh, images: np.ndarray) -> np.ndarray:
    """Predicts over gRPC (Open Inference Protocol), raw contents."""
    from mlmesh_protos.inference import grpc_service_pb2 as oip
    from mlmesh_protos.inference import grpc_service_pb2_grpc

    tensor = oip.ModelInferRequest.InferInputTensor(name="images", datatype="FP64", shape=images.shape)
    request = oip.ModelInferRequest(model_name=MODEL, inputs=[tensor], raw_input_contents=[images.tobytes()])
    retry = {"maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2}
    policy = {"name": [{}], "retryPolicy": {**retry, "retryableStatusCodes": ["UNAVAILABLE"]}}
    options = [("grpc.service_config", json.dumps({"methodConfig": [policy]}))]
    with grpc.insecure_channel(urllib.parse.urlsplit(mesh.ingress).netloc, options=options) as channel:
        answer = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
    index = next(i for i, output in enumerate(answer.outputs) if output.name == "label")
    return np.frombuffer(answer.raw_output_contents[index], dtype=np.int64)


def held_out(mesh: Mesh, run: Any) -> tuple[np.ndarray, np.ndarray]:
    """Reads images and labels of the test split: no step that made the model has trained on them."""
    answer = mesh.http.get(f"/apis/v2beta1/runs/{run.run_id}/tasks/{task_id(run, 'split')}/artifacts/test")
    answer.raise_for_status()
    data = np.load(io.BytesIO(answer.content))
    return data["images"][:IMAGES], data["labels"][:IMAGES]


def predictions(mesh: Mesh, run: Any) -> None:
    """Sends held-out images over REST and gRPC and prints what came back beside the truth.

    Raises:
        DemoError: The doors disagree, or more than a few answers are wrong.
    """
    images, labels = held_out(mesh, run)
    rest, probabilities = ask_rest(mesh, images)
    by_grpc = ask_grpc(mesh, images)
    table = Table("", *(str(i + 1) for i in range(len(labels))), box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_row("truth", *map(str, labels))
    marks = [Text(str(p), "green" if p == t else "bold red") for p, t in zip(rest, labels, strict=True)]
    table.add_row("REST", *marks)
    marks = [Text(str(p), "green" if p == t else "bold red") for p, t in zip(by_grpc, labels, strict=True)]
    table.add_row("gRPC", *marks)
    console.print(table)
    right = int((rest == labels).sum())
    console.print(
        f"{right} of {len(labels)} right; mean probability of the answer {probabilities.max(axis=1).mean():.3f}"
    )
    if not np.array_equal(rest, by_grpc):
        raise DemoError("REST and gRPC gave different answers")
    if right < 0.8 * len(labels):
        raise DemoError(f"only {right} of {len(labels)} held-out images were recognised")


def accuracy(mesh: Mesh, run: Any) -> float:
    """Reads the accuracy that the task `evaluate` measured."""
    return float(outputs(mesh, run, "evaluate")["artifacts"]["metrics"][0]["metadata"]["accuracy"])


def show(mesh: Mesh, seed: int) -> None:
    """Runs the main job on a mesh that is up."""
    started = time.monotonic()
    console.rule("[bold]1. The pipeline, through kfp.Client")
    first = watch(mesh, submit(mesh, seed=seed))
    console.print(f"run {first.run_id} succeeded in {time.monotonic() - started:.1f} s")
    console.rule("[bold]2. What it made")
    console.print(f"accuracy on the test split: [bold]{accuracy(mesh, first):.4f}[/]")
    graph = lineage(mesh, first)
    runs = [n["name"] for n in graph["nodes"] if n["type"] == "system.PipelineRun"]
    tried = graph["trial"]
    facts = {k.partition("/")[2]: v for k, v in sorted(tried["properties"].items()) if "/" in k}
    console.print(f"run:   {', '.join(runs)}")
    console.print(f"trial: {tried['name']} ({', '.join(f'{k}={float(v):.4g}' for k, v in facts.items())})")
    console.print(lineage_tree(graph))
    console.rule("[bold]3. The model answers")
    predictions(mesh, first)
    console.rule("[bold]4. The same again, from the cache")
    started = time.monotonic()
    second = watch(mesh, submit(mesh, seed=seed))
    details = second.run_details.task_details
    again = [
        t.display_name for t in details if t.display_name not in {None, "root"} and t.state not in {"SKIPPED", "CACHED"}
    ]
    console.print(f"answered in {time.monotonic() - started:.1f} s")
    if again:
        raise DemoError(f"not answered from the cache: {', '.join(again)}")


def mlmesh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command mlmesh of this environment."""
    command = [sys.executable, "-m", "mlmesh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def main() -> int:
    """Runs the demo; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ingress", help="URL of a mesh that is up; without it the demo brings one up")
    parser.add_argument("--seed", type=int, default=7, help="Of the split and the search")
    arguments = parser.parse_args()
    if arguments.ingress:
        try:
            show(Mesh(arguments.ingress), arguments.seed)
        except FAILURES as error:
            console.print(f"[bold red]failed:[/] {error}")
            return 1
        return 0
    data_dir = Path(tempfile.mkdtemp(prefix="mlmesh-demo-"))
    started = time.monotonic()
    up = mlmesh("up", "--detach", "--auto-ports", "--data-dir", str(data_dir), "--json")
    try:
        if up.returncode != 0:
            raise DemoError(f"the mesh did not come up: {up.stderr or up.stdout}")
        ingress = json.loads(up.stdout)["ingress"]
        console.print(f"the mesh is up at {ingress} after {time.monotonic() - started:.1f} s")
        show(Mesh(ingress), arguments.seed)
    except FAILURES as error:
        console.print(f"[bold red]failed:[/] {error}\nlogs are kept in {data_dir}")
        mlmesh("down", "--data-dir", str(data_dir))
        return 1
    down = mlmesh("down", "--data-dir", str(data_dir))
    if down.returncode != 0:
        console.print(f"[bold red]the mesh did not stop:[/] {down.stderr}")
        return 1
    shutil.rmtree(data_dir)
    console.print(f"done in {time.monotonic() - started:.1f} s; the mesh is down")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
