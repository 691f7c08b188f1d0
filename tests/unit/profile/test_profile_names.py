"""Names, users, labels and manifests that are not valid are refused, naming the field."""

import contextlib
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.names import check_name
from mlmesh_profile.gate import coarse_question
from mlmesh_profile.manifest import MAX_MANIFEST_BYTES, read_manifest
from mlmesh_profile.profile import MAX_METADATA_BYTES, MAX_SPEC_BYTES, check_metadata, check_spec, check_user

GOOD = b"""
apiVersion: kubeflow.org/v1
kind: Profile
metadata:
  name: team-a
  labels: {team: a}
spec:
  owner: {kind: User, name: alice@example.com}
  resourceQuotaSpec: {hard: {cpu: "2"}}
"""


@pytest.mark.parametrize("name", ["a", "team-a", "0", "a" * 63, "x--y"])
def test_rfc_1123_labels_pass(name: str) -> None:
    assert check_name(name, field="f") == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a.b", "a_b", "a" * 64, "a b", "a/b", "../x", "ä", "a\n", "a;--", "a%2fb", "٣"]
)
def test_other_names_do_not(name: str) -> None:
    with pytest.raises(InvalidArgument, match="lower case letters") as caught:
        check_name(name, field="metadata.name")
    assert caught.value.violations[0][0] == "metadata.name"


@pytest.mark.parametrize(
    "user", ["alice@example.com", "o'brien@x.org", "auth0|12", "system:serviceaccount:ns:default-editor", "u"]
)
def test_users_of_identity_providers_pass(user: str) -> None:
    assert check_user(user, field="f") == user


@pytest.mark.parametrize("user", ["", " ", "a b", "a/b", "a\r\nx: y", "a\x00", "a" * 255, "system", "-x", 'a"b', "é@x"])
def test_other_users_do_not(user: str) -> None:
    with pytest.raises(InvalidArgument):
        check_user(user, field="user")


def test_metadata_has_limits() -> None:
    assert check_metadata({"a": "b", "x.io/y": "z"}, field="f") == {"a": "b", "x.io/y": "z"}
    for bad in (
        {"": "x"},
        {"a b": "x"},
        {f"k{n}": "" for n in range(65)},
        {"k": "v" * MAX_METADATA_BYTES},
        {"k": "\ud800"},
    ):
        with pytest.raises(InvalidArgument):
            check_metadata(bad, field="f")


def test_the_rest_of_a_spec_has_limits() -> None:
    assert check_spec({"a": [1, None, "x"]}, field="spec")
    for bad in ({"a": "x" * MAX_SPEC_BYTES}, {"a": datetime.date(2026, 1, 1)}, {"a": b"x"}, {"a": {1}}):
        with pytest.raises(InvalidArgument):
            check_spec(bad, field="spec")


def test_a_manifest_is_read() -> None:
    profile = read_manifest(GOOD)
    assert (profile.name, profile.owner, profile.labels) == ("team-a", "alice@example.com", {"team": "a"})
    assert profile.spec == {"resourceQuotaSpec": {"hard": {"cpu": "2"}}}


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        (b"kubeflow.org/v1", b"apps/v1", "apiVersion"),
        (b"kind: Profile", b"kind: Deployment", "kind"),
        (b"kind: User", b"kind: Group", "spec.owner.kind"),
        (b"name: alice@example.com", b"name: 7", "spec.owner.name"),
        (b"name: team-a", b"name: [a]", "metadata.name"),
        (b"labels: {team: a}", b"labels: {team: 1}", "metadata.labels[team]"),
        (b"labels: {team: a}", b"labels: x", "metadata.labels"),
    ],
)
def test_a_manifest_that_is_wrong_names_the_field(old: bytes, new: bytes, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_manifest(GOOD.replace(old, new))
    assert caught.value.violations[0][0] == field


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"- a", b"!!python/object/apply:os.system [id]", b"a: " + b"[" * 5000, b"x" * (MAX_MANIFEST_BYTES + 1)],
)
def test_hostile_manifests_are_refused(text: bytes) -> None:
    with pytest.raises(InvalidArgument):
        read_manifest(text)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_fail_otherwise(text: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        read_manifest(text)


@pytest.mark.parametrize(
    ("method", "target", "verb", "namespace"),
    [
        ("GET", "/katib/v1/namespaces/team/experiments", "get", "team"),
        ("POST", "/katib/v1/namespaces/team/experiments?namespace=other", "update", "team"),
        ("GET", "/apis/v2beta1/runs?namespace=team&page_size=2", "get", "team"),
        ("DELETE", "/serving/v1/namespaces/te%61m:x/y", "update", "team"),
        ("POST", "/ml_metadata.MetadataStoreService/PutTypes", "update", ""),
    ],
)
def test_the_coarse_check_reads_the_request_line(method: str, target: str, verb: str, namespace: str) -> None:
    question = coarse_question(method, target)
    assert (question.verb, question.namespace) == (verb, namespace)
