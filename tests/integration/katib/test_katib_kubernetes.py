"""Trials that are resources of Kubernetes: a cluster by kmock, whose controllers the tests are."""

import asyncio
import functools
import time
from dataclasses import replace

import pytest
from mlmesh_katib.jobs.base import JobSpec
from mlmesh_katib.jobs.kubernetes import KubernetesBackend
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from support.trial_cluster import TrialCluster

TRAINING = {"image": "python", "command": ["train"]}


def in_loop(test):
    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 60))

    return run


def job_manifest(**container) -> dict:
    containers = [{"name": "main", **TRAINING, **container}]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {"template": {"spec": {"containers": containers, "restartPolicy": "Never"}}},
    }


def pytorch_manifest() -> dict:
    def replicas() -> dict:
        containers = [{"name": "sidecar", "image": "x"}, {"name": "pytorch", **TRAINING}]
        return {"replicas": 1, "template": {"spec": {"containers": containers}}}

    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "spec": {"pytorchReplicaSpecs": {"Master": replicas(), "Worker": replicas()}},
    }


def spec_of(trial: str, manifest: dict | None = None, **fields) -> JobSpec:
    return JobSpec(
        experiment_id=7,
        namespace="default",
        experiment="tuning",
        trial=trial,
        manifest=manifest or job_manifest(),
        labels={"team": "blue"},
        **fields,
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with TrialCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def backend(cluster, tmp_path) -> KubernetesBackend:
    return KubernetesBackend(tmp_path, str(cluster.kubeconfig))


async def until(condition, *arguments):
    deadline = time.monotonic() + 20
    while not (found := await asyncio.to_thread(condition, *arguments)):
        assert time.monotonic() < deadline, f"never: {condition}"
        await asyncio.sleep(0.02)
    return found


@in_loop
async def test_a_job_succeeds_and_its_log_arrives_while_it_is_written(cluster, backend):
    job = await backend.start(spec_of("good-1"))
    made = await asyncio.to_thread(cluster.wait_for, "Job", "good-1")
    marks = {"katib.kubeflow.org/experiment": "tuning", "katib.kubeflow.org/trial": "good-1", "team": "blue"}
    template = made["spec"]["template"]
    assert marks.items() <= made["metadata"]["labels"].items()
    assert marks.items() <= template["metadata"]["labels"].items()
    assert {"name": "KATIB_TRIAL_NAME", "value": "good-1"} in template["spec"]["containers"][0]["env"]
    waiting = asyncio.create_task(job.wait())
    await asyncio.to_thread(cluster.run_pod, "good-1-a", made, "loss=0.5\nloss=0.")
    await until(lambda: job.log_path.read_bytes() == b"loss=0.5\n")
    cluster.say("good-1-a", "25\n", ends=True)
    await asyncio.to_thread(cluster.end, "Job", "good-1", "Complete")
    ended = await waiting
    assert ended.ok
    assert job.log_path.read_bytes() == b"loss=0.5\nloss=0.25\n"
    await backend.cleanup(spec_of("good-1"), job.reference)
    assert "good-1" not in cluster.objects("Job")


@in_loop
async def test_a_job_that_has_failed_says_why_and_is_retained(cluster, backend):
    spec = spec_of("bad-1", retain=True)
    job = await backend.start(spec)
    await asyncio.to_thread(cluster.end, "Job", "bad-1", "Failed")
    ended = await job.wait()
    assert (ended.ok, ended.message) == (False, "MadeFailed: said")
    await backend.cleanup(spec, job.reference)
    assert "bad-1" in cluster.objects("Job")


@in_loop
async def test_only_the_primary_pod_of_a_pytorchjob_is_read(cluster, backend):
    job = await backend.start(spec_of("torch-1", pytorch_manifest(), primary_container="pytorch"))
    made = await asyncio.to_thread(cluster.wait_for, "PyTorchJob", "torch-1")
    role = {"training.kubeflow.org/job-role": "master"}
    await asyncio.to_thread(functools.partial(cluster.run_pod, "torch-1-worker-0", made, "worker\n", ends=True))
    await asyncio.to_thread(functools.partial(cluster.run_pod, "torch-1-master-0", made, "master\n", ends=True, **role))
    await asyncio.to_thread(cluster.end, "PyTorchJob", "torch-1", "Succeeded")
    assert (await job.wait()).ok
    assert job.log_path.read_bytes() == b"master\n"


@in_loop
async def test_other_pods_and_conditions_can_be_asked_for(cluster, backend):
    spec = spec_of(
        "own-1",
        primary_pod_labels={"role": "chief"},
        success_condition='status.[@this].#(phase=="Done")#',
        failure_condition='status.[@this].#(phase=="Broken")#',
    )
    job = await backend.start(spec)
    made = await asyncio.to_thread(cluster.wait_for, "Job", "own-1")
    await asyncio.to_thread(functools.partial(cluster.run_pod, "own-1-a", made, "a\n", ends=True))
    await asyncio.to_thread(functools.partial(cluster.run_pod, "own-1-b", made, "b\n", ends=True, role="chief"))
    await asyncio.to_thread(cluster.end, "Job", "own-1", "Complete")  # not what was asked for
    await asyncio.to_thread(cluster.change, "Job", "own-1", {"status": {"phase": "Done"}})
    assert (await job.wait()).ok
    assert job.log_path.read_bytes() == b"b\n"


@in_loop
async def test_kill_deletes_the_resource_and_lets_go_of_silent_logs(cluster, backend):
    readers = cluster.readers
    job = await backend.start(spec_of("kill-1"))
    made = await asyncio.to_thread(cluster.wait_for, "Job", "kill-1")
    await asyncio.to_thread(cluster.run_pod, "kill-1-a", made, "loss=1\n")
    waiting = asyncio.create_task(job.wait())
    await until(lambda: job.log_path.read_bytes() == b"loss=1\n")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert "kill-1" in cluster.objects("Job")
    await job.kill()
    assert "kill-1" not in cluster.objects("Job")
    await until(lambda: cluster.readers == readers)
    await job.kill()  # it may have ended


@in_loop
async def test_a_resource_that_others_delete_is_a_failed_trial(cluster, backend):
    job = await backend.start(spec_of("deleted-1"))
    waiting = asyncio.create_task(job.wait())
    await until(lambda: "metadata.name=deleted-1" in cluster.api.watched)
    made = cluster.objects("Job")["deleted-1"]
    other = await backend.find(spec_of("deleted-1"), job.reference)
    await other.kill()
    while not waiting.done():
        await asyncio.to_thread(cluster.tell, "DELETED", "Job", made)
        await asyncio.sleep(0.02)
    ended = waiting.result()
    assert (ended.ok, ended.message) == (False, "its resource was deleted")


@pytest.mark.parametrize("fault", ["gone", "cut", 500])
@in_loop
async def test_a_watch_that_is_interrupted_goes_on(cluster, backend, fault):
    name = f"watch-{fault}"
    cluster.fail("watch", fault)
    job = await backend.start(spec_of(name))
    waiting = asyncio.create_task(job.wait())
    await until(lambda: ("watch", fault) in cluster.api.befallen)
    await asyncio.to_thread(cluster.end, "Job", name, "Complete")
    assert (await waiting).ok


@in_loop
async def test_a_job_is_found_again_after_a_restart_and_its_log_is_whole(cluster, backend, tmp_path):
    spec = spec_of("again-1")
    job = await backend.start(spec)
    made = await asyncio.to_thread(cluster.wait_for, "Job", "again-1")
    await asyncio.to_thread(cluster.run_pod, "again-1-a", made, "loss=1\n")
    waiting = asyncio.create_task(job.wait())
    await until(lambda: job.log_path.read_bytes() == b"loss=1\n")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    restarted = KubernetesBackend(tmp_path, str(cluster.kubeconfig))
    cluster.say("again-1-a", "loss=0\n", ends=True)
    found = await restarted.find(spec, job.reference)
    await asyncio.to_thread(cluster.end, "Job", "again-1", "Complete")
    assert (await found.wait()).ok
    assert found.log_path.read_bytes() == b"loss=1\nloss=0\n"
    ended = await restarted.find(spec, job.reference)  # it has ended meanwhile
    assert (await ended.wait()).ok
    await ended.kill()
    assert await restarted.find(spec, job.reference) is None


@in_loop
async def test_starting_again_gives_the_job_that_runs_unless_it_is_of_another_experiment(cluster, backend):
    cluster.fail("create", "lost")
    spec = spec_of("twice-1")
    with pytest.raises(Exception, match="500"):
        await backend.start(spec)
    uid = cluster.objects("Job")["twice-1"]["metadata"]["uid"]
    job = await backend.start(spec)
    assert job.reference["uid"] == uid
    await asyncio.to_thread(cluster.end, "Job", "twice-1", "Complete")
    assert (await job.wait()).ok
    ended = await (await backend.start(replace(spec, experiment_id=8))).wait()
    assert not ended.ok
    assert "is not of this experiment" in ended.message


@in_loop
async def test_what_the_cluster_refuses_is_a_failed_trial_that_says_why(cluster, backend, tmp_path):
    cluster.fail("create", 422)
    job = await backend.start(spec_of("refused-1"))
    assert "the cluster refused Job 'refused-1': said by the test" in (await job.wait()).message
    assert "said by the test" in job.log_path.read_text()
    unknown = {"apiVersion": "example.org/v1", "kind": "Fancy", "spec": {}}
    conditions = {"success_condition": "status.x", "failure_condition": "status.y"}
    job = await backend.start(spec_of("unknown-1", unknown, **conditions))
    assert "the cluster has no Fancy (example.org/v1)" in (await job.wait()).message
    nowhere = KubernetesBackend(tmp_path, str(tmp_path / "none"))
    assert "no cluster is configured" in (await (await nowhere.start(spec_of("none-1"))).wait()).message


@pytest.mark.parametrize(
    "api_version", ["apps/v1", "rbac.authorization.k8s.io/v1", "networking.k8s.io/v1", "autoscaling/v2"]
)
def test_kinds_that_are_no_trials_are_refused(tmp_path, api_version):
    with pytest.raises(FailedPrecondition, match=r"t\.apiVersion"):
        KubernetesBackend(tmp_path).check({**job_manifest(), "apiVersion": api_version}, "main", "t")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"apiVersion": "v1"}, "t.apiVersion"),
        ({"kind": "../x"}, "t.kind"),
        ({"metadata": {"name": "mine"}}, "t.metadata.name"),
        ({"metadata": {"namespace": "other"}}, "t.metadata.namespace"),
        ({"metadata": {"labels": ["a"]}}, "t.metadata.labels"),
        ({"spec": []}, "t.spec"),
        ({"spec": {"template": {"spec": {"containers": []}}}}, "t.spec.template.spec.containers"),
        ({"spec": {"template": {"spec": {"containers": [{"name": "b"}]}}}}, "t.spec.template.spec.containers"),
    ],
)
def test_what_cannot_be_a_trial_is_refused_when_the_experiment_is_made(tmp_path, change, field):
    backend = KubernetesBackend(tmp_path)
    backend.check(job_manifest(), "main", "t")
    backend.check(pytorch_manifest(), "pytorch", "t")
    with pytest.raises(InvalidArgument) as caught:
        backend.check({**job_manifest(), **change}, "main", "t")
    assert caught.value.violations[0][0] == field
