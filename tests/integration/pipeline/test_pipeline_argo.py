"""The Argo backend: a service whose cluster is kmock and whose Argo is the small one of `support.argo`.

The same pipelines run here and on the local engine, and must end alike, task for task.
"""

import json
import time
from pathlib import Path
from typing import Optional

import grpc
import httpx
import pytest
from kfp import dsl
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2
from support.kubernetes import Kubernetes

STATE = run_pb2.RuntimeState


@dsl.component
def say(text: str) -> str:
    return text


@dsl.component
def add(a: int, b: int = 1) -> int:
    return a + b


@dsl.component
def total(numbers: list) -> int:
    return sum(numbers)


@dsl.component
def boom(why: str = "boom") -> str:
    raise ValueError(why)


@dsl.component
def flaky(place: str) -> int:
    import pathlib

    folder = pathlib.Path(place)
    folder.mkdir(exist_ok=True)
    count = len(list(folder.iterdir()))
    (folder / str(count)).touch()
    if count < 1:
        raise RuntimeError("not yet")
    return count


@dsl.component
def make(text: str, model: dsl.Output[dsl.Model], numbers: dsl.Output[dsl.Metrics]):
    import pathlib

    pathlib.Path(model.path).write_text(text)
    model.metadata["size"] = len(text)
    numbers.log_metric("accuracy", 0.5)


@dsl.component
def read(model: dsl.Input[dsl.Artifact], note: Optional[str] = None) -> str:  # noqa: UP045 (KFP knows no other way)
    import pathlib

    return pathlib.Path(model.path).read_text() + (note or "") + str(model.metadata.get("size", ""))


@dsl.component
def read_all(models: dsl.Input[list[dsl.Model]]) -> str:
    import pathlib

    return ",".join(pathlib.Path(model.path).read_text() for model in models)


@dsl.component
def make_one(text: str, model: dsl.Output[dsl.Model]):
    import pathlib

    pathlib.Path(model.path).write_text(text)


@dsl.component
def final(status: dsl.PipelineTaskFinalStatus) -> str:
    return f"{status.pipeline_task_name} {status.state} {status.error_message}"


@dsl.pipeline
def inner(n: int) -> int:
    return add(a=add(a=n).output, b=10).output


@dsl.pipeline(name="argo-branches")
def branches(n: int = 2, text: str = "a"):
    with dsl.If(n == 1):
        one = say(text="one")
    with dsl.Elif(n == 2):
        two = say(text="two")
    with dsl.Else():
        more = say(text="more")
    say(text=dsl.OneOf(one.output, two.output, more.output))
    inner(n=n)


@dsl.pipeline(name="argo-loops")
def loops(items: list = [1, 2]):  # noqa: B006 (it becomes a default of the IR)
    with dsl.ParallelFor(items) as item:
        added = add(a=item)
        with dsl.ParallelFor([10, 20], parallelism=1) as other:
            add(a=item, b=other)
            model = make_one(text="m")
    total(numbers=dsl.Collected(added.output))
    with dsl.ParallelFor(["x", "y"]) as letter:
        model = make_one(text=letter)
    read_all(models=dsl.Collected(model.outputs["model"]))


@dsl.pipeline(name="argo-artifacts")
def artifacts(text: str = "hello", place: str = "/nowhere"):
    made = make(text=text)
    read(model=made.outputs["model"], note="!")
    read(model=dsl.importer(artifact_uri=place, artifact_class=dsl.Dataset, metadata={"size": 7}).output)


@dsl.pipeline(name="argo-failures")
def failures(place: str = ""):
    ending = final()
    with dsl.ExitHandler(ending):
        bad = boom(why="no {{workflow.name}} here")
        say(text=bad.output)
        flaky(place=place).set_retry(2)
    other = boom(why="again")
    say(text="goes on").after(other).ignore_upstream_failure()
    say(text="does not").after(other)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    def spoil(path: str, number: int) -> str:
        return "Error" if path == "evicted" and number == 1 else ""

    with Kubernetes(tmp_path_factory.mktemp("cluster"), spoil=spoil) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def argo(cluster, connect):
    settings = {
        "BACKEND": "argo",
        "ARGO_KUBECONFIG": str(cluster.kubeconfig),
        "ARGO_VOLUME_CLAIM": "artifacts",
        "ARGO_FOLDER": str(cluster.folder / "mlmesh"),
        "SCAN_SECONDS": "0.2",
    }
    with ServiceProcess("mlmesh_pipeline", "MLMESH_PIPELINE_", cluster.folder / "data", settings) as service:
        yield connect(service)


def shape(client, run) -> dict[str, tuple]:
    """What a run says of its tasks: by the names of what they are in, their state, why, and what they gave."""
    details = {task.task_id: task for task in run.run_details.task_details}

    def path(task) -> str:
        above = details.get(task.parent_task_id)
        return f"{path(above)}/{task.display_name}" if above is not None else task.display_name

    found = {}
    for task in details.values():
        place = f"{client.service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{task.task_id}/outputs"
        outputs = httpx.get(place).json()
        kept = {
            name: [(item["type"], item["metadata"], item["digest"]) for item in items]
            for name, items in outputs["artifacts"].items()
        }
        ended = (STATE.Name(task.state), task.error.message, outputs["parameters"], kept)
        found.setdefault(path(task), []).append(ended)
    return {name: sorted(values, key=json.dumps) for name, values in found.items()}


@pytest.mark.parametrize(
    ("pipeline", "parameters"),
    [(branches, {"n": 2}), (branches, {"n": 5}), (loops, {}), (loops, {"items": []}), (artifacts, {}), (failures, {})],
    ids=["elif", "else", "loops", "no-items", "artifacts", "failures"],
)
def test_pipelines_end_as_on_the_local_engine(argo, client, compile_pipeline, tmp_path, pipeline, parameters):
    spec = compile_pipeline(pipeline, caching=False)
    ended = []
    for service in (client, argo):
        given = dict(parameters)
        if "place" in spec["root"]["inputDefinitions"]["parameters"]:
            given["place"] = str(tmp_path / service.service.data_dir.name)
        if pipeline is artifacts:
            Path(given["place"]).write_text("imported")
            given["place"] = Path(given["place"]).as_uri()
        run = service.run(spec, given)
        ended.append((STATE.Name(run.state), sorted(run.error.message.split("; ")), shape(service, run)))
    assert ended[0] == ended[1]
