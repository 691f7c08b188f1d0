"""What pods do with a real S3: artifacts come and go, and nothing but S3 passes between the tasks."""

import asyncio
from dataclasses import asdict

import pytest
from kfp import dsl
from mlmesh_kit.objectstore import open_store
from mlmesh_pipeline.argo.options import Options
from mlmesh_pipeline.argo.outcomes import Outcomes
from mlmesh_pipeline.argo.state import RunState, run_uri
from mlmesh_pipeline.argo.tree import Tree
from mlmesh_pipeline.argo.workflow import compile_workflow
from mlmesh_pipeline.ir.document import parse
from mlmesh_pipeline.resources import Run, now
from support.argo import Interpreter, Pods
from support.s3 import ACCESS_KEY, BUCKET, SECRET_KEY


@dsl.component
def make_folder(text: str, folder: dsl.Output[dsl.Dataset], log: dsl.OutputPath("Artifact")):
    import pathlib

    (pathlib.Path(folder.path) / "sub").mkdir(parents=True)
    (pathlib.Path(folder.path) / "sub" / "a.txt").write_text(text)
    (pathlib.Path(folder.path) / "b.txt").write_text("b")
    pathlib.Path(log).write_text("logged")


@dsl.component
def read_folder(folder: dsl.Input[dsl.Dataset], imported: dsl.Input[dsl.Artifact]) -> str:
    import pathlib

    files = sorted(path for path in pathlib.Path(folder.path).rglob("*") if path.is_file())
    return ",".join([*(path.read_text() for path in files), pathlib.Path(imported.path).read_text()])


@dsl.container_component
def copy(folder: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model]):
    return dsl.ContainerSpec(
        image="busybox", command=["sh", "-c", 'cat "$0"/b.txt > "$1"'], args=[folder.path, model.path]
    )


@dsl.pipeline(name="argo-s3")
def through_s3(imported: str):
    made = make_folder(text="a")
    source = dsl.importer(artifact_uri=imported, artifact_class=dsl.Artifact)
    read_folder(folder=made.outputs["folder"], imported=source.output)
    copy(folder=made.outputs["folder"])


@pytest.fixture
def in_s3(s3_server, tmp_path, monkeypatch, compile_pipeline):
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    root = f"s3://{BUCKET}/{tmp_path.name}"
    environment = {name: value for name, value in s3_server.environment.items() if "KEY" not in name}
    options = Options(
        artifact_root=root,
        state_root=f"{root}/state",
        s3_environment=environment,
        import_roots=[root],
        folder=str(tmp_path / "mlmesh"),
        root=str(tmp_path / "root"),
    )
    store = open_store(root)
    document = parse(compile_pipeline(through_s3))
    secrets = {("mlmesh-s3", "access-key"): ACCESS_KEY, ("mlmesh-s3", "secret-key"): SECRET_KEY}
    folder = tmp_path / "pods"
    folder.mkdir()

    def run(run_id: str, imported: str):
        made = Run(run_id, "default", "", "run", document.name, "", {"imported": imported}, created_at=now())
        state = RunState(store, run_uri(options.state_root, made.namespace, run_id), 1)
        state.describe(made, document, asdict(options))
        workflow = compile_workflow(document, made, 1, options)

        async def interpret() -> str:
            async with Pods(folder, root=options.root, secrets=secrets) as pods:
                return await Interpreter(workflow, pods).run()

        phase = asyncio.run(interpret())
        return phase, Outcomes(Tree(document), state).inside(document.spec.root, "")

    return store, root, run, folder


def test_artifacts_pass_through_s3_and_keep_their_content(in_s3):
    store, root, run, folder = in_s3
    store.put_bytes(b"imported", f"{root}/imported.txt")
    phase, outcomes = run("r1", f"{root}/imported.txt")
    assert phase == "Succeeded", "\n".join(path.read_text()[-1000:] for path in folder.glob("*.log"))
    assert outcomes["read-folder"].outputs.parameters == {"Output": "b,a,imported"}
    made = outcomes["make-folder"].outputs.artifacts
    (artifact,) = made["folder"]
    assert artifact.uri.startswith(f"{root}/default/argo-s3/r1/make-folder/")
    assert sorted(item.uri.removeprefix(artifact.uri) for item in store.list(artifact.uri)) == ["/b.txt", "/sub/a.txt"]
    assert len(artifact.digest) == 64
    assert store.get_bytes(made["log"][0].uri) == b"logged"
    assert store.get_bytes(outcomes["copy"].outputs.artifacts["model"][0].uri) == b"b"
    phase, again = run("r2", f"{root}/imported.txt")
    assert phase == "Succeeded"
    assert again["make-folder"].outputs == outcomes["make-folder"].outputs  # from the cache, over runs
    store.delete(f"{artifact.uri}/b.txt")
    store.delete(f"{artifact.uri}/sub/a.txt")
    _, anew = run("r3", f"{root}/imported.txt")
    assert anew["make-folder"].outputs.artifacts["folder"][0].uri != artifact.uri  # what is gone is no answer


@pytest.mark.parametrize(
    ("imported", "words"),
    [("{root}/nothing", "there is nothing at"), ("s3://another/x", "IMPORT_ROOTS"), ("", "has no URI")],
)
def test_what_cannot_be_imported_fails_its_task_alone(in_s3, imported, words):
    _, root, run, _ = in_s3
    phase, outcomes = run("r1", imported.format(root=root))
    assert phase == "Failed"
    assert words in outcomes["importer"].problem.message
    assert outcomes["copy"].succeeded
    assert not outcomes["read-folder"].has_run
