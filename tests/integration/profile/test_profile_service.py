"""The profile service as a real process, called as its peers and its users call it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from google.api.httpbody_pb2 import HttpBody
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mlmesh_kit.paging import encode_page_token
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.kubeflow.kfam.v1 import kfam_pb2, kfam_pb2_grpc
from mlmesh_protos.mlmesh.profile.v1 import access_pb2, access_pb2_grpc, profile_pb2, profile_pb2_grpc

LOCAL, ALICE, BOB, EVE, ADA = "user@mlmesh.local", "alice@x.org", "bob@x.org", "eve@x.org", "ada@x.org"
SETTINGS = {"ADMINISTRATORS": f"{ADA}, second@x.org", "FRESHNESS_SECONDS": "0"}


class Client:
    """All doors of one service, as one user."""

    def __init__(self, channel: Any, user: str | None) -> None:
        intercepted = channel if user is None else grpc.intercept_channel(channel, _As(user))
        self.kfam: Any = kfam_pb2_grpc.AccessManagementServiceStub(intercepted)
        self.profiles: Any = profile_pb2_grpc.ProfileServiceStub(intercepted)
        self.access: Any = access_pb2_grpc.AccessServiceStub(intercepted)
        self.envoy: Any = external_auth_pb2_grpc.AuthorizationStub(intercepted)

    def make(self, name: str, owner: str = "") -> profile_pb2.Profile:
        profile = profile_pb2.Profile(owner=owner)
        return self.profiles.CreateProfile(profile_pb2.CreateProfileRequest(profile=profile, profile_id=name))

    def share(self, name: str, user: str, role: str = "edit") -> None:
        self.kfam.CreateBinding(binding(name, user, role))

    def may(self, user: str, verb: str, resource: str, namespace: str = "") -> access_pb2.ReviewAccessResponse:
        request = access_pb2.ReviewAccessRequest(user=user, verb=verb, resource=resource, namespace=namespace)
        return self.access.ReviewAccess(request)


class _As(grpc.UnaryUnaryClientInterceptor):
    def __init__(self, user: str) -> None:
        self._user = user

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details._replace(metadata=(("kubeflow-userid", self._user),)), request)


def binding(name: str, user: str, role: str = "edit") -> kfam_pb2.Binding:
    return kfam_pb2.Binding(
        user=kfam_pb2.Subject(kind="User", name=user),
        referredNamespace=name,
        RoleRef=kfam_pb2.RoleRef(kind="ClusterRole", name=role),
    )


def code_of(call: Any, *arguments: Any) -> str:
    try:
        call(*arguments)
    except grpc.RpcError as error:
        assert "Traceback" not in error.details()
        return str(error.code().name)
    return "OK"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess("mlmesh_profile", "MLMESH_PROFILE_", tmp_path_factory.mktemp("profile"), SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def channel(service: ServiceProcess) -> Iterator[Any]:
    with service.channel() as opened:
        yield opened


@pytest.fixture
def alice(channel: Any) -> Client:
    return Client(channel, ALICE)


@pytest.fixture
def eve(channel: Any) -> Client:
    return Client(channel, EVE)


@pytest.fixture
def ada(channel: Any) -> Client:
    return Client(channel, ADA)


@pytest.fixture
def team(alice: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    """A profile of Alice's that Bob edits."""
    name = f"t-{abs(hash(request.node.name)):x}"
    alice.make(name)
    alice.share(name, BOB)
    yield name
    code_of(alice.profiles.DeleteProfile, profile_pb2.DeleteProfileRequest(name=f"profiles/{name}"))


def test_the_local_user_owns_the_default_profile_and_needs_no_header(channel: Any) -> None:
    local = Client(channel, None)
    me = local.profiles.GetUser(profile_pb2.GetUserRequest(name="users/me"))
    assert me.name == f"users/{LOCAL}"
    assert me.default_namespace == "default"
    assert [(m.namespace, m.owner) for m in me.memberships] == [("default", True)]
    assert local.may(LOCAL, "create", "runs").allowed
    assert local.may(LOCAL, "create", "runs").namespace == "default"


def test_a_second_start_changes_nothing_and_kill_9_loses_nothing(tmp_path: Path) -> None:
    with ServiceProcess("mlmesh_profile", "MLMESH_PROFILE_", tmp_path) as service:
        with service.channel() as channel:
            local = Client(channel, None)
            uid = local.profiles.GetProfile(profile_pb2.GetProfileRequest(name="profiles/default")).uid
            local.share("default", BOB, "view")
        service.kill()
        service.start()
        with service.channel() as channel:
            local = Client(channel, None)
            assert local.profiles.GetProfile(profile_pb2.GetProfileRequest(name="profiles/default")).uid == uid
            entries = local.profiles.ListAuditEntries(
                profile_pb2.ListAuditEntriesRequest(parent="profiles/default")
            ).audit_entries
            assert [(e.actor, e.action, e.user) for e in entries] == [
                (LOCAL, "contributor.create", BOB),
                ("system", "profile.create", LOCAL),
            ]
            assert Client(channel, BOB).may(BOB, "get", "runs", "default").allowed


def test_kfam_makes_shares_lists_and_deletes(alice: Client, channel: Any) -> None:
    owner = kfam_pb2.Subject(kind="User", name=ALICE)
    spec = kfam_pb2.ProfileSpec(owner=owner)
    alice.kfam.CreateProfile(kfam_pb2.Profile(metadata=kfam_pb2.ObjectMeta(name="kfam-a"), spec=spec))
    alice.share("kfam-a", BOB, "edit")
    alice.share("kfam-a", BOB, "view")
    found = alice.kfam.ReadBindings(kfam_pb2.ReadBindingsRequest(namespace="kfam-a")).bindings
    assert [(b.user.name, b.RoleRef.kind, b.RoleRef.name) for b in found] == [
        (ALICE, "ClusterRole", "admin"),
        (BOB, "ClusterRole", "edit"),
        (BOB, "ClusterRole", "view"),
    ]
    views = alice.kfam.ReadBindings(kfam_pb2.ReadBindingsRequest(namespace="kfam-a", role="view")).bindings
    assert [b.user.name for b in views] == [BOB]
    bob = Client(channel, BOB)
    own = bob.kfam.ReadBindings(kfam_pb2.ReadBindingsRequest(user=BOB)).bindings
    assert {b.RoleRef.name for b in own if b.referredNamespace == "kfam-a"} == {"edit", "view"}
    alice.kfam.DeleteBinding(binding("kfam-a", BOB, "edit"))
    assert bob.may(BOB, "get", "runs", "kfam-a").allowed
    assert not bob.may(BOB, "create", "runs", "kfam-a").allowed
    assert code_of(alice.kfam.DeleteBinding, binding("kfam-a", BOB, "edit")) == "NOT_FOUND"
    assert code_of(alice.share, "kfam-a", BOB, "view") == "ALREADY_EXISTS"
    alice.kfam.DeleteProfile(kfam_pb2.DeleteProfileRequest(profile="kfam-a"))
    assert not alice.may(ALICE, "get", "runs", "kfam-a").allowed
    assert not alice.kfam.ReadBindings(kfam_pb2.ReadBindingsRequest(namespace="kfam-a")).bindings


def test_kfam_s_other_calls(alice: Client, ada: Client) -> None:
    assert alice.kfam.Index(kfam_pb2.IndexRequest()).data == b"Hello World!"
    assert b"mlmesh_rpc_total" in alice.kfam.Metrics(kfam_pb2.MetricsRequest()).data
    query = kfam_pb2.QueryClusterAdminRequest
    assert not alice.kfam.QueryClusterAdmin(query(user=ALICE)).value
    assert ada.kfam.QueryClusterAdmin(query(user=ADA)).value
    assert not ada.kfam.QueryClusterAdmin(query(user=ALICE)).value
    assert code_of(alice.kfam.QueryClusterAdmin, query(user=ADA)) == "PERMISSION_DENIED"


def test_a_stranger_cannot_tell_a_foreign_profile_from_a_missing_one(alice: Client, eve: Client, team: str) -> None:
    def seen(name: str) -> list[tuple[str, str]]:
        calls = [
            lambda: eve.profiles.GetProfile(profile_pb2.GetProfileRequest(name=f"profiles/{name}")),
            lambda: eve.profiles.DeleteProfile(profile_pb2.DeleteProfileRequest(name=f"profiles/{name}")),
            lambda: eve.profiles.ListContributors(profile_pb2.ListContributorsRequest(parent=f"profiles/{name}")),
            lambda: eve.profiles.ListAuditEntries(profile_pb2.ListAuditEntriesRequest(parent=f"profiles/{name}")),
            lambda: eve.kfam.DeleteProfile(kfam_pb2.DeleteProfileRequest(profile=name)),
            lambda: eve.kfam.CreateBinding(binding(name, EVE)),
            lambda: eve.kfam.DeleteBinding(binding(name, BOB)),
            lambda: eve.kfam.ReadBindings(kfam_pb2.ReadBindingsRequest(namespace=name)),
            lambda: eve.may(EVE, "get", "runs", name),
        ]
        answers = []
        for call in calls:
            try:
                answers.append(("OK", str(call()).replace(name, "NAME")))
            except grpc.RpcError as error:
                answers.append((error.code().name, error.details().replace(name, "NAME")))
        return answers

    assert seen(team) == seen("neverwas")
    assert alice.profiles.GetProfile(profile_pb2.GetProfileRequest(name=f"profiles/{team}")).owner == ALICE


def test_contributors_may_what_their_role_says(alice: Client, channel: Any, team: str) -> None:
    bob = Client(channel, BOB)
    assert bob.may(BOB, "create", "runs", team).allowed
    assert code_of(bob.share, team, EVE) == "PERMISSION_DENIED"
    assert code_of(bob.kfam.DeleteProfile, kfam_pb2.DeleteProfileRequest(profile=team)) == "PERMISSION_DENIED"
    alice.share(team, BOB, "admin")
    bob.share(team, EVE, "view")
    assert code_of(bob.kfam.DeleteProfile, kfam_pb2.DeleteProfileRequest(profile=team)) == "PERMISSION_DENIED"


def test_who_may_make_profiles_for_whom(alice: Client, ada: Client) -> None:
    assert code_of(alice.make, "for-bob", BOB) == "PERMISSION_DENIED"
    assert ada.make("for-bob", BOB).owner == BOB
    assert code_of(ada.profiles.GetProfile, profile_pb2.GetProfileRequest(name="profiles/nope")) == "NOT_FOUND"
    assert not ada.may(ADA, "create", "runs", "nope").allowed
    assert ada.may(ADA, "create", "runs", "for-bob").allowed


def test_a_manifest_makes_a_profile(alice: Client) -> None:
    text = b"apiVersion: kubeflow.org/v1\nkind: Profile\nmetadata: {name: from-yaml, labels: {a: b}}\n"
    request = profile_pb2.ImportProfileRequest(manifest=HttpBody(content_type="application/yaml", data=text))
    made = alice.profiles.ImportProfile(request)
    assert (made.name, made.owner, dict(made.labels)) == ("profiles/from-yaml", ALICE, {"a": "b"})
    assert code_of(alice.profiles.ImportProfile, request) == "ALREADY_EXISTS"


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda c: c.make("Not_A_Label"), "profile_id"),
        (lambda c: c.make("x", "no spaces please"), "spec.owner.name"),
        (lambda c: c.kfam.CreateProfile(kfam_pb2.Profile()), "metadata.name"),
        (lambda c: c.kfam.CreateBinding(binding("", BOB)), "referredNamespace"),
        (lambda c: c.kfam.ReadBindings(kfam_pb2.ReadBindingsRequest(role="emperor")), "role"),
        (lambda c: c.kfam.ReadBindings(kfam_pb2.ReadBindingsRequest(namespace="' OR 1=1")), "namespace"),
        (lambda c: c.profiles.ListProfiles(profile_pb2.ListProfilesRequest(page_size=-1)), "page_size"),
        (lambda c: c.profiles.ListProfiles(profile_pb2.ListProfilesRequest(page_token="%%")), "page_token"),
        (
            lambda c: c.profiles.ImportProfile(
                profile_pb2.ImportProfileRequest(manifest=HttpBody(data=b"kind: Pod\napiVersion: kubeflow.org/v1"))
            ),
            "kind",
        ),
    ],
)
def test_bad_input_names_the_field(alice: Client, call: Any, field: str) -> None:
    alice_has = alice.profiles.ListProfiles(profile_pb2.ListProfilesRequest()).profiles
    with pytest.raises(grpc.RpcError) as caught:
        call(alice)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(caught.value)
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    assert bad.field_violations[0].field == field
    assert alice.profiles.ListProfiles(profile_pb2.ListProfilesRequest()).profiles == alice_has


@pytest.mark.parametrize(
    ("kind", "role", "field"),
    [("Group", "edit", "user.kind"), ("User", "owner", "RoleRef.name"), ("ServiceAccount", "edit", "user.kind")],
)
def test_only_users_get_only_known_roles(alice: Client, team: str, kind: str, role: str, field: str) -> None:
    wanted = binding(team, EVE, role)
    wanted.user.kind = kind
    with pytest.raises(grpc.RpcError, match=field) as caught:
        alice.kfam.CreateBinding(wanted)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_racing_creators_one_wins_the_others_are_told(channel: Any) -> None:
    barrier = threading.Barrier(8)

    def create(number: int) -> str:
        barrier.wait()
        return code_of(Client(channel, f"racer{number}@x.org").make, "raced")

    with ThreadPoolExecutor(8) as pool:
        codes = sorted(pool.map(create, range(8)))
    assert codes == ["ALREADY_EXISTS"] * 7 + ["OK"]


def test_pages_are_whole_and_tokens_are_of_one_list_and_user(channel: Any, eve: Client) -> None:
    pat = Client(channel, "pat@x.org")
    names = [f"page-{n}" for n in range(7)]
    for name in names:
        pat.make(name)
    seen, token = [], ""
    while True:
        page = pat.profiles.ListProfiles(profile_pb2.ListProfilesRequest(page_size=3, page_token=token))
        seen += [profile.name.removeprefix("profiles/") for profile in page.profiles]
        token = page.next_page_token
        if not token:
            break
    assert seen == names
    token = pat.profiles.ListProfiles(profile_pb2.ListProfilesRequest(page_size=3)).next_page_token
    forged = encode_page_token({"not": "a name"}, ["profiles", "pat@x.org"])
    assert code_of(pat.profiles.ListProfiles, profile_pb2.ListProfilesRequest(page_token=forged)) == "INVALID_ARGUMENT"
    stolen = profile_pb2.ListProfilesRequest(page_token=token)
    assert code_of(eve.profiles.ListProfiles, stolen) == "INVALID_ARGUMENT"


def test_the_audit_log_is_for_those_who_say_who_may(alice: Client, ada: Client, channel: Any, team: str) -> None:
    def listed(client: Client, parent: str) -> str:
        return code_of(client.profiles.ListAuditEntries, profile_pb2.ListAuditEntriesRequest(parent=parent))

    assert listed(alice, f"profiles/{team}") == "OK"
    assert listed(Client(channel, BOB), f"profiles/{team}") == "PERMISSION_DENIED"
    assert listed(alice, "profiles/-") == "PERMISSION_DENIED"
    assert listed(ada, "profiles/-") == "OK"


def test_reviews_are_answered_about_oneself_only(alice: Client, ada: Client, team: str) -> None:
    assert code_of(alice.may, BOB, "get", "runs", team) == "PERMISSION_DENIED"
    assert ada.may(BOB, "get", "runs", team).allowed
    answer = alice.may(ALICE, "get", "runs", "elsewhere")
    assert (answer.allowed, answer.namespace) == (False, "elsewhere")
    assert answer.reason


@pytest.mark.parametrize(
    ("headers", "method", "path", "status"),
    [
        ({}, "GET", "/apis/v2beta1/runs", 401),
        ({"kubeflow-userid": EVE}, "GET", "/apis/v2beta1/runs", 0),
        ({"kubeflow-userid": BOB}, "POST", "/katib/v1/namespaces/{team}/experiments", 0),
        ({"kubeflow-userid": EVE}, "GET", "/katib/v1/namespaces/{team}/experiments", 403),
        ({"kubeflow-userid": EVE}, "GET", "/katib/v1/namespaces/neverwas/experiments", 403),
        ({"kubeflow-userid": "a b"}, "GET", "/apis/v2beta1/runs?namespace={team}", 403),
    ],
)
def test_envoy_s_question_is_answered(
    channel: Any, team: str, headers: dict[str, str], method: str, path: str, status: int
) -> None:
    request = external_auth_pb2.CheckRequest()
    http = request.attributes.request.http
    http.method, http.path = method, path.replace("{team}", team)
    http.headers.update(headers)
    answer = Client(channel, None).envoy.Check(request)
    assert answer.denied_response.status.code == status
    assert (answer.status.code == 0) == (status == 0)


def test_a_user_cannot_ask_in_envoy_s_place_about_others(channel: Any, team: str) -> None:
    request = external_auth_pb2.CheckRequest()
    http = request.attributes.request.http
    http.method, http.path = "GET", f"/katib/v1/namespaces/{team}/experiments"
    http.headers["kubeflow-userid"] = BOB
    assert code_of(Client(channel, EVE).envoy.Check, request) == "PERMISSION_DENIED"
    assert Client(channel, BOB).envoy.Check(request).status.code == 0
    assert Client(channel, None).envoy.Check(request).status.code == 0  # Envoy itself


def test_revocation_reaches_a_second_replica(service: ServiceProcess, tmp_path: Path, alice: Client, team: str) -> None:
    database = f"sqlite:///{service.data_dir / 'profile' / 'profile.db'}"
    settings = {"DATABASE_URL": database, "FRESHNESS_SECONDS": "0.25"}
    with (
        ServiceProcess("mlmesh_profile", "MLMESH_PROFILE_", tmp_path, settings) as replica,
        replica.channel() as second,
    ):
        bob = Client(second, BOB)
        assert bob.may(BOB, "create", "runs", team).allowed
        alice.kfam.DeleteBinding(binding(team, BOB))
        revoked = threading.Event()
        for _ in range(100):
            if not bob.may(BOB, "create", "runs", team).allowed:
                revoked.set()
                break
            revoked.wait(0.02)
        assert revoked.is_set(), "still allowed after 2 s"


def test_the_second_port_answers(service: ServiceProcess) -> None:
    assert httpx.get(f"{service.http}/healthz").json() == {"status": "SERVING"}


@pytest.mark.parametrize(("name", "value"), [("ADMINISTRATORS", "not a user"), ("MAX_PROFILES_PER_USER", "0")])
def test_wrong_settings_are_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(RuntimeError, match=f"MLMESH_PROFILE_{name}"):
        ServiceProcess("mlmesh_profile", "MLMESH_PROFILE_", tmp_path, {name: value}).start()


def test_kill_9_in_the_midst_of_changes_loses_no_answer_and_tears_none(tmp_path: Path) -> None:
    """What was answered is there; and the log has exactly what is in force."""
    with ServiceProcess("mlmesh_profile", "MLMESH_PROFILE_", tmp_path) as service:
        answered: list[str] = []
        enough = threading.Event()

        def share(worker: int) -> None:
            with service.channel() as channel:
                local = Client(channel, None)
                for number in range(1000):
                    user = f"u{worker}-{number}@x.org"
                    try:
                        local.share("default", user)
                    except grpc.RpcError:
                        return
                    answered.append(user)
                    if len(answered) >= 40:
                        enough.set()

        workers = [threading.Thread(target=share, args=(number,)) for number in range(3)]
        for worker in workers:
            worker.start()
        assert enough.wait(30)
        service.kill()
        for worker in workers:
            worker.join()
        service.start()
        with service.channel() as channel:
            local = Client(channel, None)
            bindings = local.kfam.ReadBindings(kfam_pb2.ReadBindingsRequest(namespace="default", role="edit")).bindings
            request = profile_pb2.ListAuditEntriesRequest(parent="profiles/default", page_size=1000)
            entries = local.profiles.ListAuditEntries(request).audit_entries
        in_force = {binding.user.name for binding in bindings}
        logged = [entry.user for entry in entries if entry.action == "contributor.create"]
        assert set(answered) <= in_force
        assert sorted(logged) == sorted(in_force)


def test_one_s_own_changes_hold_at_once_however_long_decisions_are_believed(tmp_path: Path) -> None:
    settings = {"FRESHNESS_SECONDS": "3"}
    with (
        ServiceProcess("mlmesh_profile", "MLMESH_PROFILE_", tmp_path, settings) as service,
        service.channel() as opened,
    ):
        alice, bob = Client(opened, ALICE), Client(opened, BOB)
        assert not alice.may(ALICE, "create", "runs", "fresh").allowed
        assert not bob.may(BOB, "create", "runs", "fresh").allowed
        alice.make("fresh")
        assert alice.may(ALICE, "create", "runs", "fresh").allowed
        alice.share("fresh", BOB)
        assert bob.may(BOB, "create", "runs", "fresh").allowed
        alice.kfam.DeleteBinding(binding("fresh", BOB))
        assert not bob.may(BOB, "create", "runs", "fresh").allowed
        alice.kfam.DeleteProfile(kfam_pb2.DeleteProfileRequest(profile="fresh"))
        assert not alice.may(ALICE, "get", "runs", "fresh").allowed
