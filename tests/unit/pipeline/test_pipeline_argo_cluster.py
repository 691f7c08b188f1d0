"""What we ask of a cluster, of kmock: watches, claims, and what a Workflow's status says."""

import asyncio
import base64
import gzip
import json
import shutil
import subprocess
import sys
import warnings

import pytest
from mlmesh_kit.errors import FailedPrecondition, NotFound, PermissionDenied, Unavailable
from mlmesh_kit.kubernetes import Refused
from mlmesh_pipeline.argo.claims import claim_manifest, create_claim, delete_claim
from mlmesh_pipeline.argo.cluster import Cluster
from mlmesh_pipeline.argo.nodes import Nodes
from mlmesh_pipeline.argo.platform import BadPlatform
from mlmesh_pipeline.argo.watching import WorkflowWatches
from mlmesh_pipeline.resources import Run, Values
from support.kubernetes import Kubernetes

warnings.simplefilter("ignore", FutureWarning)
from kfp import compiler, dsl  # noqa: E402

RUN = Run("r1", "team", "e", "run", "train it", "", {})


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory):
    with Kubernetes(tmp_path_factory.mktemp("cluster"), controller=False) as kubernetes:
        yield kubernetes


@pytest.fixture
def cluster(kubernetes):
    kubernetes.api.faults, kubernetes.api.befallen = {}, []
    cluster = Cluster(str(kubernetes.kubeconfig), timeout_seconds=2)
    yield cluster
    cluster.close()


def workflow(name: str) -> dict:
    metadata = {"name": name, "namespace": "team", "labels": {"app.kubernetes.io/managed-by": "mlmesh-pipeline"}}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata, "spec": {}}


def test_a_watch_goes_on_after_faults_and_after_its_version_is_too_old(kubernetes, cluster):
    cluster.create_workflow(workflow("watched"))
    kubernetes.api.faults = {"list": [503], "watch": ["gone", 500]}

    async def follow() -> str:
        watches = WorkflowWatches(cluster, pause_seconds=0.05, watch_seconds=2)
        with watches.following("team", "watched") as changes:
            number = 0
            async with asyncio.timeout(20):
                while len(kubernetes.api.befallen) < 3:  # each change may fall into a gap, and is listed then
                    await changes.next(0.05)
                while True:
                    number += 1
                    patch = {"status": {"phase": "Running", "message": str(number)}}
                    await asyncio.to_thread(kubernetes.call, kubernetes.change, "team", "watched", patch)
                    found = await changes.next(0.5)
                    if found is not None and "status" in found:
                        break
            watches.stop()
            return found["status"]["phase"]

    assert asyncio.run(follow()) == "Running"
    assert kubernetes.api.befallen == [503, "gone", 500]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")
def test_kubectl_takes_what_the_command_prints(kubernetes, cluster, tmp_path):
    @dsl.component
    def make(x: int = 1) -> int:
        return x

    @dsl.pipeline(name="Odd name_1")
    def odd():
        with dsl.ParallelFor([1, 2]) as item:
            make(x=item)

    compiler.Compiler().compile(odd, str(tmp_path / "p.yaml"))
    command = [sys.executable, "-m", "mlmesh_pipeline.argo", "compile", str(tmp_path / "p.yaml"), "--namespace", "team"]
    workflow = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    # There is no OpenAPI document to be had of kmock; the schema is looked at in test_pipeline_argo_workflow.
    command = ["kubectl", "--kubeconfig", str(kubernetes.kubeconfig), "--cache-dir", str(tmp_path / "cache"), "apply"]
    command += ["--dry-run=client", "--validate=false", "-f", "-"]
    done = subprocess.run(command, input=workflow, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"workflow.argoproj.io/odd-name-1-") and done.stdout.endswith(b"created (dry run)\n")


def test_what_the_cluster_answers_becomes_an_error_of_ours(kubernetes, cluster):
    kubernetes.api.faults = {"fetch": [403, 500, 422]}
    for kind in (PermissionDenied, Unavailable, Refused):
        with pytest.raises(kind):
            cluster.workflow("team", "any")
    with pytest.raises(NotFound):
        cluster.workflow("team", "none")
    with pytest.raises(NotFound):
        cluster.terminate("team", "none")
    cluster.delete_workflow("team", "none")
    with pytest.raises(FailedPrecondition, match="no cluster is configured"):
        Cluster("/nowhere/kubeconfig")
    assert cluster.create_workflow(workflow("twice")) is not None
    assert cluster.create_workflow(workflow("twice")) is None


def test_claims_are_made_once_and_removed(cluster):
    inputs = Values(
        {"pvc_name_suffix": "-data", "access_modes": ["ReadWriteMany"], "size": "1Gi", "storage_class_name": "fast"}
    )
    name = create_claim(cluster, "team", RUN, "task-1", inputs)
    assert name.startswith("train-it-") and name.endswith("-data")
    assert create_claim(cluster, "team", RUN, "task-1", inputs) == name  # its driver was lost, and made again
    assert create_claim(cluster, "team", RUN, "task-2", inputs) != name
    assert cluster.claim("team", name)["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "fast",
    }
    given = Values({"pvc_name": name, "access_modes": ["ReadWriteMany"], "size": "1Gi"})
    with pytest.raises(BadPlatform, match="already"):
        create_claim(cluster, "team", RUN, "task-3", given)
    for _ in range(2):
        delete_claim(cluster, "team", Values({"pvc_name": name}))
    with pytest.raises(NotFound):
        cluster.claim("team", name)


@pytest.mark.parametrize(
    "given",
    [
        {"access_modes": ["ReadWriteOnce"], "size": "1Gi"},
        {"pvc_name": "a", "pvc_name_suffix": "-b", "access_modes": ["ReadWriteOnce"], "size": "1Gi"},
        {"pvc_name": "No Name", "access_modes": ["ReadWriteOnce"], "size": "1Gi"},
        {"pvc_name": "a", "size": "1Gi"},
        {"pvc_name": "a", "access_modes": ["ReadWriteOnce"]},
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(given):
    with pytest.raises(BadPlatform):
        claim_manifest(RUN, "t", Values(given))


def node(name, kind, template, path, phase="Succeeded", **more):
    inputs = {"parameters": [{"name": "path", "value": path}]} if path else {}
    return {"id": name, "name": name, "type": kind, "templateName": template, "phase": phase, "inputs": inputs, **more}


NODES = {
    one["id"]: one
    for one in (
        node("root", "DAG", "root", ""),
        node("d", "Retry", "driver", "a/b[3]"),
        node("d0", "Pod", "driver", "a/b[3]", "Failed"),
        node("d1", "Pod", "driver", "a/b[3]"),
        node("e1", "Pod", "exec-b", "a/b[3]", startedAt="2026-01-01T00:00:02Z"),
        node("e", "Retry", "exec-b", "a/b[3]", finishedAt="2026-01-01T00:00:03Z"),
        node("e0", "Pod", "exec-b", "a/b[3]", "Failed", startedAt="2026-01-01T00:00:01Z", outputs={"exitCode": "7"}),
    )
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "compressed"])
def test_nodes_are_found_by_the_task_that_they_are_of(packed):
    status = {"phase": "Running", "nodes": NODES}
    if packed:
        text = base64.b64encode(gzip.compress(json.dumps(NODES).encode())).decode()
        status = {"phase": "Running", "compressedNodes": text}
    nodes = Nodes({"status": status})
    assert nodes.driver("a/b[3]").ident == "d"
    assert nodes.executor("a/b[3]").ident == "e"
    assert nodes.executor("a/b[3]").finished_at == 1767225603 * 10**6
    assert [(pod.ident, pod.exit_code) for pod in nodes.pods("a/b[3]")] == [("e0", 7), ("e1", None)]
    assert nodes.has_begun("a")
    assert not nodes.has_begun("a/b")
    assert not nodes.has_ended


@pytest.mark.parametrize(
    "status",
    [None, {}, {"nodes": None}, {"compressedNodes": "no base64!"}, {"nodes": {"a": {"inputs": None}}}],
)
def test_a_status_that_says_nothing_has_no_nodes(status):
    nodes = Nodes({"status": status})
    assert nodes.driver("a") is None
    assert nodes.pods("a") == []
