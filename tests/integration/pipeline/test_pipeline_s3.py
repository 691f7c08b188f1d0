"""Artifacts in an object store, through the public doors, with a real S3 API."""

import contextlib
import hashlib
import threading
import time
from io import BytesIO
from types import SimpleNamespace

import grpc
import psutil
import pytest
import requests
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2
from mlmesh_protos.mlmesh.pipeline.v1 import run_analysis_pb2 as pb2
from mlmesh_protos.mlmesh.pipeline.v1 import run_analysis_pb2_grpc
from support.s3 import BUCKET, SECRET_KEY, Wire, s3_environment

MIB = 1 << 20


@pytest.fixture(scope="module")
def s3(s3_server, tmp_path_factory, connect):
    """A service whose artifacts are in S3, over a wire that can be cut."""
    wire = Wire(s3_server.endpoint)
    prefix = f"s3://{BUCKET}/module"
    settings = {
        "ARTIFACT_ROOT": prefix,
        "PIPELINE_ROOTS": f"minio://{BUCKET}/team",
        "CONTAINER_COMMANDS": "sh",
        "STORE_RETRY_SECONDS": "60",
    }
    service = ServiceProcess(
        "mlmesh_pipeline", "MLMESH_PIPELINE_", tmp_path_factory.mktemp("s3"), settings, s3_environment(wire.endpoint)
    )
    with service:
        yield SimpleNamespace(
            client=connect(service), service=service, prefix=prefix, store=s3_server.client(), wire=wire
        )
    wire.close()


def objects(store, prefix: str) -> dict[str, int]:
    found = store.list_objects(BUCKET, prefix=prefix, recursive=True)
    return {one.object_name: one.size for one in found}


def base_of(service, run, task) -> str:
    return f"{service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{task.task_id}"


def artifacts_of(service, run, task) -> dict:
    return requests.get(f"{base_of(service, run, task)}/outputs", timeout=5).json()["artifacts"]


@dsl.component
def make(text: str, data: Output[Dataset], tree: Output[Artifact], scores: Output[Metrics]):
    import os

    assert data.path.startswith("/") and data.uri == data.path
    with open(data.path, "w") as file:
        file.write(text)
    data.metadata["words"] = len(text.split())
    os.makedirs(os.path.join(tree.path, "sub", "empty"))
    for name in ("a.txt", "sub/b #1?%20.txt"):
        with open(os.path.join(tree.path, name), "w") as file:
            file.write(name)
    os.symlink("/etc/passwd", os.path.join(tree.path, "link"))
    scores.log_metric("accuracy", 0.5)


@dsl.component
def use(data: Input[Dataset], tree: Input[Artifact], scores: Input[Metrics], again: Output[Model]) -> str:
    import os

    with open(data.path) as file:
        text = file.read()
    assert data.metadata["words"] == len(text.split())
    assert scores.metadata["accuracy"] == 0.5
    assert not os.path.exists(scores.path)
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(tree.path) for name in names]
    names = sorted(os.path.relpath(path, tree.path) for path in paths if not os.path.islink(path))
    assert names == ["a.txt", "sub/b #1?%20.txt"], names
    assert os.path.isdir(os.path.join(tree.path, "sub", "empty"))
    with open(os.path.join(tree.path, names[1])) as file:
        assert file.read() == names[1]
    again.uri = data.uri  # an input given again
    again.metadata["from"] = "data"
    return text


@dsl.component
def join(models: Input[list[Model]]) -> str:
    return " ".join(open(model.path).read() for model in models)


@dsl.component
def write(text: str, model: Output[Model]):
    with open(model.path, "w") as file:
        file.write(text)


@dsl.pipeline(name="in-s3")
def in_s3(text: str = "two words"):
    made = make(text=text)
    used = use(data=made.outputs["data"], tree=made.outputs["tree"], scores=made.outputs["scores"])
    with dsl.ParallelFor(["x", "y"]) as item:
        one = write(text=item)
    join(models=dsl.Collected(one.outputs["model"])).after(used)


def test_tasks_see_files_and_the_store_has_them(s3, compile_pipeline, by_name):
    run = s3.client.run(compile_pipeline(in_s3), {"text": "some words here"})
    assert run.state == run_pb2.SUCCEEDED, run.error
    tasks = by_name(run)
    made = artifacts_of(s3.service, run, tasks["make"])
    place = f"{s3.prefix}/default/in-s3/{run.run_id}/make/1"
    assert made["data"][0]["uri"] == f"{place}/data"
    assert made["data"][0]["digest"] == hashlib.sha256(b"some words here").hexdigest()
    assert made["tree"][0]["uri"] == f"{place}/tree" and made["tree"][0]["digest"]
    key = place.removeprefix(f"s3://{BUCKET}/")
    there = objects(s3.store, key)
    record = there.pop(f"{key}/tree.mlmesh-tree.json")
    assert record
    assert there == {f"{key}/data": 15, f"{key}/tree/a.txt": 5, f"{key}/tree/sub/b #1?%20.txt": 16}
    assert s3.store.get_object(BUCKET, f"{key}/data").data == b"some words here"
    # What is given again keeps its place and is not sent once more.
    again = artifacts_of(s3.service, run, tasks["use"])["again"][0]
    assert (again["uri"], again["digest"]) == (made["data"][0]["uri"], made["data"][0]["digest"])
    assert again["metadata"] == {"from": "data"}
    assert objects(s3.store, key.replace("/make/1", "/use/")) == {}
    joined = requests.get(f"{base_of(s3.service, run, tasks['join'])}/outputs", timeout=5).json()
    assert joined["parameters"] == {"Output": "x y"}
    # Nothing is left of the attempts, and the keys of the store are in no log.
    runs = s3.service.data_dir / "pipeline/runs"
    assert {path.suffix for path in runs.rglob("*") if path.is_file()} == {".log"}
    for log in [s3.service.log_path, *runs.rglob("*.log")]:
        assert SECRET_KEY not in log.read_text()


def test_a_rerun_takes_over_what_the_store_still_has(s3, compile_pipeline):
    analysis = run_analysis_pb2_grpc.RunAnalysisServiceStub(s3.client.channel)
    first = s3.client.run(compile_pipeline(in_s3), {"text": "taken over"})
    asked = pb2.RerunRunRequest(name=f"runs/{first.run_id}", from_tasks=["use"])
    answer = analysis.RerunRun(asked)
    assert "make" in answer.reused and {one.path for one in answer.anew} == {"use", "join"}
    assert s3.client.wait(answer.run_id).state == run_pb2.SUCCEEDED
    asked.validate_only = True
    made = f"{s3.prefix}/default/in-s3/{first.run_id}/make/1".removeprefix(f"s3://{BUCKET}/")
    s3.store.put_object(BUCKET, f"{made}/data", BytesIO(b"other words"), 11)
    s3.store.remove_object(BUCKET, f"{made}/tree/a.txt")
    reasons = {one.path: one.reason for one in analysis.RerunRun(asked).anew}
    assert "output data has been changed" in reasons["make"] and "output tree has been changed" in reasons["make"]
    s3.store.remove_object(BUCKET, f"{made}/data")
    reasons = {one.path: one.reason for one in analysis.RerunRun(asked).anew}
    assert "output data is gone" in reasons["make"]


def test_bytes_over_http(s3, compile_pipeline, by_name):
    run = s3.client.run(compile_pipeline(in_s3), {"text": "0123456789"})
    made = by_name(run)["make"]
    url = f"{base_of(s3.service, run, made)}/artifacts/data"

    def get(method="GET", url=url, **headers):
        return requests.request(method, url, headers={name.replace("_", "-"): value for name, value in headers.items()})

    whole = get()
    tag = f'"{hashlib.sha256(b"0123456789").hexdigest()}"'
    assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, b"0123456789", tag)
    assert whole.headers["content-length"] == "10" and whole.headers["accept-ranges"] == "bytes"
    for asked, given, content in [
        ("bytes=2-4", "bytes 2-4/10", b"234"),
        ("bytes=8-", "bytes 8-9/10", b"89"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
        ("bytes=5-99", "bytes 5-9/10", b"56789"),
    ]:
        part = get(Range=asked)
        assert (part.status_code, part.headers["content-range"], part.content) == (206, given, content)
        assert part.headers["content-length"] == str(len(content))
    assert get(Range="bytes=2-4", If_Range=tag).status_code == 206
    assert get(Range="bytes=2-4", If_Range='"another"').content == b"0123456789"
    beyond = get(Range="bytes=10-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */10")
    head = get("HEAD", Range="bytes=2-4")
    assert (head.status_code, head.headers["content-length"], head.content) == (206, "3", b"")
    assert get(If_None_Match=tag).status_code == 304
    read = run_pb2.ReadArtifactRequest(run_id=run.run_id, node_id=made.task_id, artifact_name="data")
    assert s3.client.runs.ReadArtifact(read).data == b"0123456789"


def test_a_link_is_good_for_a_while_and_is_in_no_log(s3, compile_pipeline, by_name):
    run = s3.client.run(compile_pipeline(in_s3), {"text": "linked"})
    base = f"{base_of(s3.service, run, by_name(run)['make'])}/artifacts"
    answer = requests.get(f"{base}/data?download=link", timeout=5)
    assert answer.headers["cache-control"] == "no-store" and answer.json()["expires_at"].endswith("Z")
    url = answer.json()["url"]
    assert "X-Amz-Expires=900" in url and SECRET_KEY not in url
    assert requests.get(url, timeout=5).content == b"linked"
    member = requests.get(f"{base}/tree?download=link&path=a.txt", timeout=5).json()["url"]
    assert requests.get(member, timeout=5).content == b"a.txt"
    signature = url.split("X-Amz-Signature=")[1].split("&")[0]
    assert signature not in s3.service.log_path.read_text()
    for query, words in [("download=link", "is a folder"), ("download=no", "download")]:
        refused = requests.get(f"{base}/tree?{query}", timeout=5)
        assert refused.status_code == 400 and words in refused.text
    assert requests.get(f"{base}/scores", timeout=5).status_code == 404


ODD = "sub/b #1?%20.txt"


@pytest.fixture(params=["s3", "files"])
def where(request, client, shared_service):
    """A client and a service, with artifacts in S3 and in files."""
    if request.param == "files":
        return SimpleNamespace(client=client, service=shared_service)
    return request.getfixturevalue("s3")


def test_folders_over_http(where, compile_pipeline, by_name):
    run = where.client.run(compile_pipeline(in_s3), {"text": "folders"})
    assert run.state == run_pb2.SUCCEEDED, run.error
    base = f"{base_of(where.service, run, by_name(run)['make'])}/artifacts"
    listing = requests.get(f"{base}/tree?list=true", timeout=5).json()
    assert listing["folder"] is True and listing["truncated"] is False
    assert listing["files"] == [{"path": "a.txt", "size": 5}, {"path": ODD, "size": 16}]
    one = requests.get(f"{base}/data?list=true", timeout=5).json()
    assert (one["folder"], one["files"]) == (False, [{"path": "", "size": 7}])
    assert requests.get(f"{base}/tree", params={"path": ODD}, timeout=5).content == ODD.encode()
    part = requests.get(f"{base}/tree", params={"path": ODD}, headers={"Range": "bytes=0-2"}, timeout=5)
    assert (part.status_code, part.content) == (206, b"sub")
    whole = requests.get(f"{base}/tree", timeout=5)
    assert whole.status_code == 400 and "?list=true" in whole.json()["message"]
    for path in ("../data", "/etc/passwd", "sub/../../data", "a.txt/", "./a.txt", "a\0b"):
        refused = requests.get(f"{base}/tree", params={"path": path}, timeout=5)
        assert refused.status_code == 400 and "path" in refused.text, path
    for path in ("nothing", "sub", "link"):  # the link was not taken along, or leads out of the folder
        assert requests.get(f"{base}/tree", params={"path": path}, timeout=5).status_code == 404, path


def test_files_have_no_links(client, shared_service, compile_pipeline, by_name):
    run = client.run(compile_pipeline(in_s3), {"text": "folders"})
    url = f"{base_of(shared_service, run, by_name(run)['make'])}/artifacts/data?download=link"
    refused = requests.get(url, timeout=5)
    assert refused.status_code == 400 and "no links" in refused.json()["message"]


def test_cached_outputs_count_while_the_store_has_them_as_they_were(s3, compile_pipeline, by_name):
    spec = compile_pipeline(in_s3)
    first = s3.client.run(spec, {"text": "cached"})
    key = f"module/default/in-s3/{first.run_id}/make/1"
    again = by_name(s3.client.run(spec, {"text": "cached"}))
    assert {again[name].state for name in ("make", "use", "join")} == {run_pb2.SKIPPED}
    assert again["make"].executor_detail.pre_caching_check_job == f"cache/{by_name(first)['make'].task_id}"
    s3.store.remove_object(BUCKET, f"{key}/tree/a.txt")
    second = s3.client.run(spec, {"text": "cached"})
    assert by_name(second)["make"].state == run_pb2.SUCCEEDED
    assert by_name(second)["use"].state == run_pb2.SKIPPED  # the content is the same
    s3.store.put_object(BUCKET, key.replace(first.run_id, second.run_id) + "/data", BytesIO(b"spoilt"), 6)
    third = by_name(s3.client.run(spec, {"text": "cached"}))
    assert third["make"].state == run_pb2.SUCCEEDED
    url = f"{base_of(s3.service, second, by_name(second)['make'])}/artifacts/data"
    changed = requests.get(url, timeout=5)
    assert changed.status_code == 400 and "has changed" in changed.json()["message"]


@dsl.component
def make_large(mib: int, data: Output[Dataset]) -> str:
    import hashlib
    import random

    block, digest = random.Random(mib).randbytes(1 << 20), hashlib.sha256()
    with open(data.path, "wb") as file:
        for number in range(mib):
            part = number.to_bytes(8, "big") + block
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


@dsl.component
def check_large(data: Input[Dataset], digest: str, number: int):
    import hashlib

    with open(data.path, "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest
    if number == 0:  # what one task does to its input is not seen by another
        with open(data.path, "ab") as file:
            file.write(b"x")


@dsl.pipeline(name="large")
def large(mib: int = 200):
    made = make_large(mib=mib).set_caching_options(False)
    with dsl.ParallelFor([0, 1], parallelism=1) as number:
        check_large(data=made.outputs["data"], digest=made.outputs["Output"], number=number).set_caching_options(False)


@contextlib.contextmanager
def memory_of(pid: int):
    """Watches the resident memory of a process; gives a list of it in bytes, the first from before."""
    process, ended = psutil.Process(pid), threading.Event()
    seen = [process.memory_info().rss]

    def watch():
        while not ended.wait(0.02):
            seen.append(process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    yield seen
    ended.set()
    thread.join()


def test_200_mb_flow_through_and_are_fetched_once(s3, compile_pipeline, by_name):
    before = s3.wire.seen
    with memory_of(s3.service.pid) as memory:
        run = s3.client.run(compile_pipeline(large), {"mib": 200})
    assert run.state == run_pb2.SUCCEEDED, run.error
    assert max(memory) - memory[0] < 64 * MIB
    assert s3.wire.seen - before < 410 * MIB  # once up, once down
    task = by_name(run)["make-large"]
    url = f"{base_of(s3.service, run, task)}/artifacts/data"
    digest = hashlib.sha256()
    with memory_of(s3.service.pid) as memory, requests.get(url, stream=True, timeout=30) as answer:
        for chunk in answer.iter_content(1 << 20):
            digest.update(chunk)
    assert digest.hexdigest() == artifacts_of(s3.service, run, task)["data"][0]["digest"]
    assert max(memory) - memory[0] < 64 * MIB
    part = requests.get(url, headers={"Range": f"bytes={150 * MIB}-{150 * MIB + 9}"}, timeout=5)
    assert (part.status_code, len(part.content)) == (206, 10)
    listed = requests.get(f"{url}?list=true", timeout=5).json()
    assert listed["files"] == [{"path": "", "size": 200 * (MIB + 8)}]
    too_large = run_pb2.ReadArtifactRequest(run_id=run.run_id, node_id=task.task_id, artifact_name="data")
    with pytest.raises(grpc.RpcError) as caught:
        s3.client.runs.ReadArtifact(too_large)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    # Who has begun to read learns by a broken connection that the store has gone, the next by the status.
    s3.wire.cut_after(20 * MIB)
    with pytest.raises(requests.RequestException):
        assert requests.get(url, timeout=30).content
    away = requests.get(url, timeout=30)
    assert away.status_code == 503 and "cannot be reached" in away.json()["message"]
    s3.wire.mend()
    # A store that keeps silent holds up nobody else.
    s3.wire.hold_after(MIB)
    with requests.get(url, stream=True, timeout=30):
        assert s3.wire.held.wait(20)
    assert requests.get(f"{s3.service.http}/healthz", timeout=5).status_code == 200
    assert artifacts_of(s3.service, run, task)["data"]
    s3.wire.release()


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def unfinished(store, prefix: str) -> list[str]:
    return [one.object_name for one in store._list_multipart_uploads(BUCKET, prefix=prefix).uploads]


@pytest.mark.parametrize("at", [12, 36], ids=["going up", "coming down"])
def test_a_store_that_goes_away_is_waited_for(s3, compile_pipeline, by_name, at):
    """At 12 of 2 * 24 MiB the output is going up, at 70 the input is coming down."""
    s3.wire.cut_after(at * MIB)
    run_id = s3.client.create(compile_pipeline(large), {"mib": 24}).run_id
    logs = s3.service.data_dir / "pipeline/runs" / run_id
    wait_for(lambda: any("trying again" in log.read_text() for log in logs.rglob("*.log")))
    assert s3.client.get(run_id).state == run_pb2.RUNNING
    s3.wire.mend()
    run = s3.client.wait(run_id)
    assert run.state == run_pb2.SUCCEEDED, run.error
    for task in run.run_details.task_details:
        assert not task.executor_detail.failed_main_jobs
    assert unfinished(s3.store, f"module/default/large/{run_id}/check") == []
    assert not list((s3.service.data_dir / "pipeline/inputs").glob("*.part"))


@pytest.mark.parametrize(("end", "at"), [("kill", 12), ("kill", 36), ("stop", 12)])
def test_a_service_that_ends_in_mid_transfer(s3, compile_pipeline, by_name, end, at):
    """At 12 of 2 * 24 MiB the output is going up, at 36 the input is coming down; the store does not answer."""
    s3.wire.hold_after(at * MIB)
    run_id = s3.client.create(compile_pipeline(large), {"mib": 24}).run_id
    assert s3.wire.held.wait(20)
    if end == "kill":
        s3.service.kill()
    else:
        assert s3.service.stop() == 0  # within its time, although the store keeps silent
    s3.wire.cut()
    s3.wire.mend()
    s3.service.start()
    s3.client.connect()
    run = s3.client.wait(run_id)
    assert run.state == run_pb2.SUCCEEDED, run.error
    made = by_name(run)["make-large"]
    attempts = 2 if at == 12 else 1
    assert made.executor_detail.main_job == f"{made.task_id}/{attempts}"
    key = f"module/default/large/{run_id}/make-large"
    assert list(objects(s3.store, key)) == [f"{key}/{attempts}/data"]
    assert unfinished(s3.store, key) == []
    folder = s3.service.data_dir / "pipeline"
    assert not list((folder / "inputs").glob("*.part"))
    assert {path.suffix for path in (folder / "runs" / run_id).rglob("*") if path.is_file()} == {".log"}


def test_terminate_in_mid_upload(s3, compile_pipeline):
    s3.wire.hold_after(12 * MIB)
    run_id = s3.client.create(compile_pipeline(large), {"mib": 24}).run_id
    assert s3.wire.held.wait(20)
    s3.client.runs.TerminateRun(run_pb2.TerminateRunRequest(run_id=run_id))
    s3.wire.release()
    assert s3.client.wait(run_id).state == run_pb2.CANCELED
    wait_for(lambda: unfinished(s3.store, f"module/default/large/{run_id}") == [])
    assert objects(s3.store, f"module/default/large/{run_id}") == {}


@dsl.component
def count(data: Input[Dataset]) -> str:
    import os

    if os.path.isdir(data.path):
        return " ".join(sorted(os.listdir(data.path)))
    assert data.path.endswith(".csv")
    with open(data.path) as file:
        return file.read()


@dsl.component
def pass_on(data: Input[Dataset], part: Output[Dataset]):
    part.uri = data.path + "/x.csv"


@dsl.pipeline(name="imports")
def imports(uri: str):
    imported = dsl.importer(artifact_uri=uri, artifact_class=Dataset, reimport=False)
    count(data=imported.output)


@dsl.pipeline(name="parts")
def parts(uri: str):
    imported = dsl.importer(artifact_uri=uri, artifact_class=Dataset, reimport=False)
    count(data=pass_on(data=imported.output).output)


def output_of(service, run, task) -> str:
    return requests.get(f"{base_of(service, run, task)}/outputs", timeout=5).json()["parameters"]["Output"]


def test_importers_record_and_tasks_fetch(s3, compile_pipeline, by_name):
    uri = f"minio://{BUCKET}/imported/folder"

    def put(name: str, text: str) -> None:
        s3.store.put_object(BUCKET, f"imported/folder/{name}", BytesIO(text.encode()), len(text))

    put("x.csv", "1,2")
    put("y.csv", "3,4")
    spec = compile_pipeline(imports)
    file = s3.client.run(spec, {"uri": f"{uri}/x.csv"})
    assert file.state == run_pb2.SUCCEEDED, file.error
    assert output_of(s3.service, file, by_name(file)["count"]) == "1,2"
    assert artifacts_of(s3.service, file, by_name(file)["importer"])["artifact"][0]["uri"] == f"{uri}/x.csv"
    folder = s3.client.run(spec, {"uri": uri})
    assert output_of(s3.service, folder, by_name(folder)["count"]) == "x.csv y.csv"
    assert by_name(s3.client.run(spec, {"uri": uri}))["count"].state == run_pb2.SKIPPED
    put("z.csv", "5,6")  # what is imported has changed: it is fetched again, and no cached output stands for it
    changed = s3.client.run(spec, {"uri": uri})
    assert output_of(s3.service, changed, by_name(changed)["count"]) == "x.csv y.csv z.csv"
    put("x.csv", "7,8")
    part = s3.client.run(compile_pipeline(parts), {"uri": uri})
    assert part.state == run_pb2.SUCCEEDED, part.error
    given = artifacts_of(s3.service, part, by_name(part)["pass-on"])["part"][0]
    assert (given["uri"], given["digest"]) == (f"{uri}/x.csv", hashlib.sha256(b"7,8").hexdigest())
    assert output_of(s3.service, part, by_name(part)["count"]) == "7,8"


@dsl.component
def only_the_uri(data: Input[Dataset]) -> str:
    return data.uri


@dsl.pipeline(name="elsewhere")
def elsewhere():
    imported = dsl.importer(artifact_uri="gs://bucket/data.csv", artifact_class=Dataset, reimport=False)
    only_the_uri(data=imported.output)
    count(data=imported.output)


def test_what_is_elsewhere_is_recorded_and_whoever_needs_it_is_told(s3, compile_pipeline, by_name):
    run = s3.client.run(compile_pipeline(elsewhere, caching=False))
    tasks = by_name(run)
    assert tasks["importer"].state == run_pb2.SUCCEEDED
    assert output_of(s3.service, run, tasks["only-the-uri"]) == "gs://bucket/data.csv"
    assert tasks["count"].state == run_pb2.FAILED
    assert "input 'data' (gs://bucket/data.csv)" in tasks["count"].error.message
    url = f"{base_of(s3.service, run, tasks['importer'])}/artifacts/artifact"
    refused = requests.get(url, timeout=5)
    assert refused.status_code == 400 and "is not on this machine" in refused.json()["message"]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (f"s3://{BUCKET}/imported/nothing.csv", "there is nothing"),
        ("s3://no-such-bucket/nothing.csv", "there is nothing"),
        (f"s3://{BUCKET}/../x.csv", "must not hold '..'"),
        ("s3://X/x.csv", "uri"),
    ],
)
def test_inputs_that_cannot_be_had(s3, compile_pipeline, by_name, uri, words):
    run = s3.client.run(compile_pipeline(imports, caching=False), {"uri": uri})
    assert run.state == run_pb2.FAILED
    message = by_name(run)["count"].error.message
    assert "input artifact 'data'" in message and words in message, message


@dsl.pipeline(name="foreign-root", pipeline_root="gs://elsewhere/x")
def foreign_root():
    write(text="x")


def test_permanent_and_lasting_troubles_fail_the_task(s3_wire, make_service, connect, compile_pipeline, by_name):
    environment = s3_environment(s3_wire.endpoint, secret_key="not-the-secret")
    settings = {"ARTIFACT_ROOT": f"s3://{BUCKET}/other", "STORE_RETRY_SECONDS": "0.2", "IMPORT_ROOTS": "s3://mine/"}
    client = connect(make_service(environment=environment, **settings))
    spec = compile_pipeline(foreign_root, caching=False)
    refused = by_name(client.run(spec))["write"]
    assert refused.state == run_pb2.FAILED
    assert "output artifact" in refused.error.message and "refused access" in refused.error.message
    s3_wire.cut()
    away = by_name(client.run(spec))["write"]
    assert away.state == run_pb2.FAILED
    assert "cannot be reached (tried for" in away.error.message
    outside = client.run(compile_pipeline(imports), {"uri": f"s3://{BUCKET}/imported/folder"})
    assert "MLMESH_PIPELINE_IMPORT_ROOTS" in by_name(outside)["count"].error.message
    for log in [client.service.log_path, *client.service.data_dir.rglob("*.log")]:
        assert "not-the-secret" not in log.read_text()


@dsl.pipeline(name="own-root", pipeline_root=f"minio://{BUCKET}/team/x")
def own_root():
    write(text="x")


def test_pipeline_roots(s3, compile_pipeline, by_name):
    def uri_of(run) -> str:
        assert run.state == run_pb2.SUCCEEDED, run.error
        return artifacts_of(s3.service, run, by_name(run)["write"])["model"][0]["uri"]

    own, foreign = compile_pipeline(own_root, caching=False), compile_pipeline(foreign_root, caching=False)
    run = s3.client.run(own)
    assert uri_of(run) == f"minio://{BUCKET}/team/x/default/own-root/{run.run_id}/write/1/model"
    assert uri_of(s3.client.run(foreign)).startswith(f"{s3.prefix}/default/foreign-root/")
    asked = {"runtime_config": run_pb2.Run().runtime_config}
    asked["runtime_config"].pipeline_root = f"{s3.prefix}/deeper/"
    assert uri_of(s3.client.run(own, **asked)).startswith(f"{s3.prefix}/deeper/default/own-root/")
    invalid, precondition = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
    for root, code in [
        ("gs://elsewhere/x", precondition),
        (f"s3://{BUCKET}/module2", precondition),
        (f"s3://{BUCKET}/team", precondition),
        (f"{s3.prefix}/../x", invalid),
        (f"{s3.prefix}/%2e%2e/x", invalid),
        (f"{s3.prefix}?endpoint=evil.example.com", invalid),
        (f"{s3.prefix}/a\nb", invalid),
        ("s3://", invalid),
    ]:
        asked["runtime_config"].pipeline_root = root
        with pytest.raises(grpc.RpcError) as caught:
            s3.client.create(own, **asked)
        assert caught.value.code() == code, root
        details = caught.value.details()
        assert "pipeline_root" in details, details


def test_commands_see_files_too(s3, compile_pipeline, by_name):
    run = s3.client.run(compile_pipeline(commands, caching=False))
    assert run.state == run_pb2.SUCCEEDED, run.error
    copied = by_name(run)["copy"]
    content = requests.get(f"{base_of(s3.service, run, copied)}/artifacts/to", timeout=5)
    assert content.content == b"for a command"


@dsl.container_component
def copy(source: Input[Model], to: Output[Dataset]):
    return dsl.ContainerSpec(image="busybox", command=["sh", "-c", 'cp "$0" "$1"'], args=[source.path, to.path])


@dsl.pipeline(name="commands")
def commands():
    copy(source=write(text="for a command").outputs["model"])


@dsl.component
def returned(text: str) -> Dataset:
    data = Dataset(uri=dsl.get_uri("data.csv"))
    with open(data.path, "w") as file:
        file.write(text)
    return data


@dsl.pipeline(name="returned")
def returns():
    count(data=returned(text="of my own").output)


def test_what_is_written_where_get_uri_says_is_kept(where, compile_pipeline, by_name):
    run = where.client.run(compile_pipeline(returns, caching=False))
    assert run.state == run_pb2.SUCCEEDED, run.error
    url = f"{base_of(where.service, run, by_name(run)['returned'])}/artifacts/Output"
    assert requests.get(url, timeout=5).content == b"of my own"
