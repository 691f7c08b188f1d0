"""Retention: rules, dry runs, and what is deleted by them."""

import contextlib
import sqlite3
import threading
import time
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import duration_pb2, field_mask_pb2
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import retention_pb2 as r
from mlmesh_protos.mlmesh.metadata.v1 import tombstone_pb2 as t
from support.mesh import RunningMesh

DELETED, CHANGED, USED, GONE = (
    r.RETENTION_OUTCOME_DELETED,
    r.RETENTION_OUTCOME_CHANGED,
    r.RETENTION_OUTCOME_USED,
    r.RETENTION_OUTCOME_GONE,
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def client(request: Any, tmp_path_factory: Any, connect: Any) -> Any:
    tmp_path = tmp_path_factory.mktemp(request.param)
    settings = {}
    if request.param != "sqlite":
        settings["DATABASE_URL"] = request.getfixturevalue(f"{request.param}_server").make_database()
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path, settings) as process:
        made = connect(process)
        yield made
        made.channel.close()
        assert "Traceback" not in process.log_path.read_text()


@pytest.fixture
def policy_id(client: Any, fresh_name: Any) -> Any:
    """A policy's id; the policy is removed in the end, for a plan of all policies has it in."""
    name = fresh_name("p")
    yield name
    stub = client.retention
    for one in stub.ListRetentionPolicies(r.ListRetentionPoliciesRequest()).retention_policies:
        if one.name == f"retentionPolicies/{name}":
            stub.DeleteRetentionPolicy(r.DeleteRetentionPolicyRequest(name=one.name))


def create(client: Any, policy_id: str, **fields: Any) -> r.RetentionPolicy:
    policy = r.RetentionPolicy(**{"node_kind": "artifact", **fields})
    request = r.CreateRetentionPolicyRequest(retention_policy_id=policy_id, retention_policy=policy)
    answer: r.RetentionPolicy = client.retention.CreateRetentionPolicy(request)
    return answer


def plan(client: Any, *policies: str) -> r.RetentionPlan:
    names = [f"retentionPolicies/{one}" for one in policies]
    answer: r.RetentionPlan = client.retention.PlanRetention(r.PlanRetentionRequest(retention_policies=names))
    return answer


def apply(client: Any, made: r.RetentionPlan) -> r.RetentionPlan:
    answer: r.RetentionPlan = client.retention.ApplyRetentionPlan(
        r.ApplyRetentionPlanRequest(name=made.name), timeout=60
    )
    return answer


def items(client: Any, made: r.RetentionPlan, page_size: int = 0) -> list[r.RetentionItem]:
    found: list[r.RetentionItem] = []
    request = r.ListRetentionItemsRequest(parent=made.name, page_size=page_size)
    while True:
        page = client.retention.ListRetentionItems(request)
        found += page.retention_items
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


def outcomes(client: Any, made: r.RetentionPlan) -> dict[int, int]:
    return {one.node_id: one.outcome for one in items(client, made)}


def of_type(client: Any, fresh_name: Any, count: int) -> tuple[str, int, list[int]]:
    name = fresh_name("models")
    kind = client.artifact_type(name)
    return name, kind, client.artifacts(*(mlpb.Artifact(type_id=kind, name=f"m{n}", uri="x") for n in range(count)))


def test_a_dry_run_and_then_exactly_that(client: Any, policy_id: str, fresh_name: Any) -> None:
    name, kind, ids = of_type(client, fresh_name, 7)
    create(client, policy_id, type=name, keep_latest=2)
    before = client.everything()
    made = plan(client, policy_id)
    assert client.everything() == before
    assert (made.node_count, made.truncated, made.deleted_count, made.HasField("apply_time")) == (5, False, 0, False)
    assert made.creator and 86_300 < made.expire_time.seconds - made.create_time.seconds < 86_500
    listed = items(client, made, page_size=2)
    assert [one.node_id for one in listed] == ids[:5]
    assert {(one.type, one.retention_policy, one.reason, one.outcome) for one in listed} == {
        (name, f"retentionPolicies/{policy_id}", "not among the 2 newest", 0)
    }
    changed = client.artifact(ids[0])
    changed.uri = "elsewhere"
    client.artifacts(changed)
    (job,) = client.executions(mlpb.Execution(type_id=client.execution_type()))
    client.connect(job, [ids[1]], [])
    client.retention.DeleteNodes(t.DeleteNodesRequest(artifact_ids=[ids[2]], reason="by hand"))
    (later,) = client.artifacts(mlpb.Artifact(type_id=kind, name="later"))
    done = apply(client, made)
    assert (done.deleted_count, done.skipped_count, done.HasField("apply_time")) == (2, 3, True)
    assert outcomes(client, made) == dict(zip(ids[:5], (CHANGED, USED, GONE, DELETED, DELETED), strict=True))
    alive = [node.id for node in client.call("GetArtifactsByType", type_name=name).artifacts if node.name]
    assert alive == [*ids[:2], *ids[5:], later]
    assert apply(client, made) == done  # twice is once
    buried = client.retention.ListTombstones(t.ListTombstonesRequest(page_size=2)).tombstones
    assert {one.reason for one in buried} == {f"retentionPolicies/{policy_id}: not among the 2 newest"}


def test_age_filter_and_the_newest_of_each_context(client: Any, policy_id: str, fresh_name: Any) -> None:
    name, _, ids = of_type(client, fresh_name, 9)
    runs, other = fresh_name("runs"), client.context_type()
    run = client.context_type(runs)
    one, two, three = client.contexts(
        mlpb.Context(type_id=run, name="1"), mlpb.Context(type_id=run, name="2"), mlpb.Context(type_id=other, name="3")
    )
    members = [(one, ids[:4]), (two, ids[3:6]), (three, ids)]  # ids[6:] are in no run
    client.call(
        "PutAttributionsAndAssociations",
        attributions=[mlpb.Attribution(context_id=c, artifact_id=a) for c, some in members for a in some],
    )
    create(client, policy_id, type=name, keep_latest=1, latest_in=runs)
    assert [item.node_id for item in items(client, plan(client, policy_id))] == [*ids[:3], ids[4], *ids[6:8]]
    request = r.UpdateRetentionPolicyRequest(
        retention_policy=r.RetentionPolicy(name=f"retentionPolicies/{policy_id}", filter="name IN ('m0', 'm8')"),
        update_mask=field_mask_pb2.FieldMask(paths=["filter", "latest_in"]),
    )
    updated = client.retention.UpdateRetentionPolicy(request)
    assert (updated.filter, updated.latest_in, updated.keep_latest, updated.type) == (
        "name IN ('m0', 'm8')",
        "",
        1,
        name,
    )
    assert [item.node_id for item in items(client, plan(client, policy_id))] == [ids[0]]
    request.retention_policy.older_than.FromSeconds(3600)
    request.update_mask.paths[:] = ["older_than", "keep_latest", "filter"]
    request.retention_policy.filter = ""
    client.retention.UpdateRetentionPolicy(request)
    assert plan(client, policy_id).node_count == 0
    request.retention_policy.older_than.FromMilliseconds(1)
    client.retention.UpdateRetentionPolicy(request)
    deadline = time.monotonic() + 10
    while (found := items(client, plan(client, policy_id))) == [] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [item.node_id for item in found] == ids and found[0].reason.startswith("not changed since 20")


def test_what_others_hang_on_stays(client: Any, policy_id: str, fresh_name: Any) -> None:
    name, _, (raw, clean, model) = of_type(client, fresh_name, 3)
    jobs, runs = fresh_name("jobs"), fresh_name("runs")
    job, run = client.execution_type(jobs), client.context_type(runs)
    states = (mlpb.Execution.COMPLETE, mlpb.Execution.COMPLETE, mlpb.Execution.RUNNING)
    prepare, train, running = client.executions(*(mlpb.Execution(type_id=job, last_known_state=s) for s in states))
    within, outer, empty = client.contexts(*(mlpb.Context(type_id=run, name=n) for n in ("within", "outer", "empty")))
    client.connect(prepare, [raw], [clean])
    client.connect(train, [clean], [model])
    client.call(
        "PutAttributionsAndAssociations", associations=[mlpb.Association(context_id=within, execution_id=prepare)]
    )
    client.call("PutParentContexts", parent_contexts=[mlpb.ParentContext(parent_id=outer, child_id=within)])

    def goes(kind: str, type_name: str, include_used: bool = False) -> list[int]:
        policy = r.RetentionPolicy(
            name=f"retentionPolicies/{policy_id}",
            node_kind=kind,
            type=type_name,
            older_than=duration_pb2.Duration(nanos=1_000_000),
            include_used=include_used,
        )
        request = r.UpdateRetentionPolicyRequest(retention_policy=policy, allow_missing=True)
        client.retention.UpdateRetentionPolicy(request)
        return [one.node_id for one in items(client, plan(client, policy_id))]

    time.sleep(0.01)  # what is to go must be a millisecond old
    assert goes("artifact", name) == [model]
    assert goes("artifact", name, True) == [raw, clean, model]
    assert goes("execution", jobs) == [] and goes("execution", jobs, True) == [prepare, train, running]
    assert goes("context", runs) == [empty] and goes("context", runs, True) == [within, outer, empty]
    client.retention.DeleteNodes(t.DeleteNodesRequest(artifact_ids=[model]))
    assert goes("execution", jobs) == [train]
    client.retention.DeleteNodes(t.DeleteNodesRequest(execution_ids=[train]))
    assert goes("artifact", name) == [clean]
    client.retention.DeleteNodes(t.DeleteNodesRequest(artifact_ids=[clean], execution_ids=[prepare]))
    assert goes("artifact", name) == [raw] and goes("context", runs) == [within, empty]
    client.retention.DeleteNodes(t.DeleteNodesRequest(context_ids=[within]))
    assert goes("context", runs) == [outer, empty]


def test_applied_by_several_at_once(client: Any, policy_id: str, fresh_name: Any) -> None:
    name, _, ids = of_type(client, fresh_name, 1200)
    create(client, policy_id, type=name, keep_latest=1)
    made = plan(client, policy_id)
    done: list[r.RetentionPlan] = []
    threads = [threading.Thread(target=lambda: done.append(apply(client, made))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert {(one.deleted_count, one.skipped_count) for one in done} == {(1199, 0)}
    assert set(outcomes(client, made).values()) == {DELETED} and client.artifact(ids[-1]).name == "m1199"


def test_killed_in_the_middle_and_applied_again(tmp_path: Any, connect: Any, fresh_name: Any) -> None:
    settings: dict[str, str] = {}
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path, settings) as process:
        client = connect(process)
        name, _, ids = of_type(client, fresh_name, 6000)
        create(client, "old", type=name, keep_latest=1)
        made = plan(client, "old")
        call = client.retention.ApplyRetentionPlan.future(r.ApplyRetentionPlanRequest(name=made.name))
        request = r.GetRetentionPlanRequest(name=made.name)
        while not client.retention.GetRetentionPlan(request).deleted_count and not call.done():
            pass
        process.kill()
        client.channel.close()
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path, settings) as process:
        client = connect(process)
        between = client.retention.GetRetentionPlan(request)
        left = [node for node in client.call("GetArtifacts").artifacts if node.state != mlpb.Artifact.DELETED]
        assert len(left) == 6000 - between.deleted_count and between.deleted_count
        done = apply(client, made)
        assert (done.deleted_count, done.skipped_count) == (5999, 0)
        assert [node.id for node in client.call("GetArtifacts").artifacts if node.name] == ids[-1:]
        client.channel.close()


def test_bad_requests_change_nothing(client: Any, policy_id: str, refused: Any) -> None:
    good: dict[str, Any] = {"type": "T", "keep_latest": 1}
    for given, field in (
        ({**good, "node_kind": "model"}, "node_kind"),
        ({"keep_latest": 1}, "type"),
        ({"type": "T"}, "older_than"),
        ({"type": "T", "older_than": duration_pb2.Duration(seconds=-1)}, "older_than"),
        ({"type": "T", "older_than": duration_pb2.Duration(seconds=10**11)}, "older_than"),
        ({**good, "keep_latest": -1}, "keep_latest"),
        ({**good, "keep_latest": 10_001}, "keep_latest"),
        ({**good, "filter": "name = "}, "filter"),
        ({**good, "filter": "x" * 10_001}, "filter"),
        ({**good, "type": "a\0b"}, "type"),
        ({"type": "T", "older_than": duration_pb2.Duration(seconds=1), "latest_in": "R"}, "latest_in"),
        ({**good, "node_kind": "context", "latest_in": "R"}, "latest_in"),
    ):
        refusal = refused(lambda given=given: create(client, policy_id, **given))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT and refusal.fields == (f"retention_policy.{field}",)
    for name in ("", "Upper", "a b", "-a", "a" * 64, "a/b"):
        assert refused(lambda name=name: create(client, name, **good)).fields == ("retention_policy_id",)
    assert not client.retention.ListRetentionPolicies(r.ListRetentionPoliciesRequest()).retention_policies
    assert refused(lambda: plan(client)).code is grpc.StatusCode.FAILED_PRECONDITION
    assert refused(lambda: plan(client, "none")).code is grpc.StatusCode.NOT_FOUND
    create(client, policy_id, **good)
    assert refused(lambda: create(client, policy_id, **good)).code is grpc.StatusCode.ALREADY_EXISTS
    request = r.UpdateRetentionPolicyRequest(retention_policy=r.RetentionPolicy(name=f"retentionPolicies/{policy_id}"))
    request.update_mask.paths.append("creator")
    assert refused(lambda: client.retention.UpdateRetentionPolicy(request)).fields == ("update_mask.paths[0]",)
    request.update_mask.paths[:] = ["keep_latest"]
    assert refused(lambda: client.retention.UpdateRetentionPolicy(request)).fields == ("retention_policy.older_than",)
    missing = r.UpdateRetentionPolicyRequest(retention_policy=r.RetentionPolicy(name="retentionPolicies/none", **good))
    missing.retention_policy.node_kind = "artifact"
    assert refused(lambda: client.retention.UpdateRetentionPolicy(missing)).code is grpc.StatusCode.NOT_FOUND
    for name in ("", "retentionPlans/0", "retentionPlans/x", "plans/1"):
        asked = r.ApplyRetentionPlanRequest(name=name)
        assert refused(lambda asked=asked: client.retention.ApplyRetentionPlan(asked)).fields == ("name",)
    gone = r.ApplyRetentionPlanRequest(name="retentionPlans/999999")
    assert refused(lambda: client.retention.ApplyRetentionPlan(gone)).code is grpc.StatusCode.NOT_FOUND
    empty = plan(client, policy_id)
    listing = r.ListRetentionItemsRequest(parent=empty.name, page_size=1001)
    assert refused(lambda: client.retention.ListRetentionItems(listing)).fields == ("page_size",)


def test_no_more_than_a_hundred(client: Any, refused: Any, fresh_name: Any) -> None:
    names = [fresh_name("p") for _ in range(100)]
    for name in names:
        create(client, name, type="T", keep_latest=1)
    refusal = refused(lambda: create(client, "one-more", type="T", keep_latest=1))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert plan(client).node_count == 0
    for name in names:
        client.retention.DeleteRetentionPolicy(r.DeleteRetentionPolicyRequest(name=f"retentionPolicies/{name}"))
    deleted = r.GetRetentionPolicyRequest(name=f"retentionPolicies/{names[0]}")
    assert refused(lambda: client.retention.GetRetentionPolicy(deleted)).code is grpc.StatusCode.NOT_FOUND


def test_over_rest(mesh: RunningMesh, fresh_name: Any) -> None:
    """The paths that the protos say, through the ingress."""
    name = fresh_name("rest")
    with httpx.Client(base_url=mesh.ingress, timeout=20) as http:
        rule = {"node_kind": "artifact", "type": "NoSuchType", "older_than": "86400s"}
        made = http.post("/metadata/v1/retentionPolicies", params={"retention_policy_id": name}, json=rule)
        assert made.status_code == 200 and made.json()["name"] == f"retentionPolicies/{name}", made.text
        path = f"/metadata/v1/retentionPolicies/{name}"
        patched = http.patch(path, params={"update_mask": "keep_latest"}, json={"keep_latest": 3})
        assert patched.json()["keep_latest"] == 3 and patched.json()["older_than"] == "86400s", patched.text
        assert http.get(path).json() == patched.json()
        assert patched.json() in http.get("/metadata/v1/retentionPolicies").json()["retention_policies"]
        planned = http.post("/metadata/v1/retentionPlans", json={"retention_policies": [f"retentionPolicies/{name}"]})
        plan_path = f"/metadata/v1/{planned.json()['name']}"
        assert http.get(plan_path).json() == planned.json()
        assert http.get(f"{plan_path}/items").json().get("retention_items", []) == []
        assert "apply_time" in http.post(f"{plan_path}:apply", json={}).json()
        assert http.delete(path).status_code == 200 and http.get(path).status_code == 404
        assert http.get("/metadata/v1/tombstones").status_code == 200
        assert http.post("/metadata/v1/nodes:delete", json={}).status_code == 400


def test_an_old_plan_is_not_applied_and_then_forgotten(tmp_path: Any, connect: Any, refused: Any) -> None:
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path) as process:
        client = connect(process)
        create(client, "old", type="T", keep_latest=1)
        made = plan(client, "old")
        (path,) = tmp_path.rglob("*.db")
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE mlmesh_retention_plan SET expire_time = expire_time - 25 * 3600000")
        refusal = refused(lambda: apply(client, made))
        assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION and "expired" in refusal.message
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE mlmesh_retention_plan SET expire_time = expire_time - 31 * 86400000")
        plan(client, "old")
        refusal = refused(lambda: client.retention.GetRetentionPlan(r.GetRetentionPlanRequest(name=made.name)))
        assert refusal.code is grpc.StatusCode.NOT_FOUND
        client.channel.close()
