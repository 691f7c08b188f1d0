"""Who may do what: roles, owners, strangers, administrators."""

import pytest
from mlmesh_profile.grants import Grants, decide, decide_administrator
from mlmesh_profile.role import Role

ALICE = Grants("alice@x.org", {"own": Role.OWNER, "edits": Role.EDIT, "sees": Role.VIEW, "runs": Role.ADMIN}, "own")
NOBODY = Grants("new@x.org", {}, "")

ALLOWED = {
    # (verb, resource): lowest role
    ("get", "runs"): Role.VIEW,
    ("list", "experiments"): Role.VIEW,
    ("infer", "inferenceservices"): Role.VIEW,
    ("get", "profiles"): Role.VIEW,
    ("list", "contributors"): Role.VIEW,
    ("create", "runs"): Role.EDIT,
    ("terminate", "runs"): Role.EDIT,
    ("somethingnew", "runs"): Role.EDIT,
    ("delete", "secrets"): Role.EDIT,
    ("create", "contributors"): Role.ADMIN,
    ("delete", "contributors"): Role.ADMIN,
    ("update", "quotas"): Role.ADMIN,
    ("list", "auditentries"): Role.ADMIN,
    ("delete", "profiles"): Role.OWNER,
}


@pytest.mark.parametrize(("question", "least"), ALLOWED.items())
@pytest.mark.parametrize("namespace", ["own", "runs", "edits", "sees"])
def test_each_role_may_what_it_needs_and_no_more(question: tuple[str, str], least: Role, namespace: str) -> None:
    decision = decide(ALICE, *question, namespace)
    assert decision.allowed == (ALICE.roles[namespace] >= least)
    assert decision.namespace == namespace
    assert bool(decision.reason) != decision.allowed


@pytest.mark.parametrize("question", ALLOWED)
def test_a_stranger_may_nothing_and_learns_nothing(question: tuple[str, str]) -> None:
    foreign = decide(NOBODY, *question, "own")
    missing = decide(NOBODY, *question, "neverwas")
    assert not foreign.allowed
    assert not missing.allowed
    assert foreign.reason == missing.reason


def test_an_empty_namespace_is_the_default_one() -> None:
    assert decide(ALICE, "create", "runs", "").namespace == "own"
    nowhere = decide(NOBODY, "list", "runs", "")
    assert not nowhere.allowed
    assert "no profile" in nowhere.reason


def test_everybody_may_make_a_first_profile() -> None:
    assert decide(NOBODY, "create", "profiles", "").allowed
    assert decide(NOBODY, "get", "users", "").allowed
    assert not decide(NOBODY, "delete", "profiles", "").allowed
    assert not decide(NOBODY, "create", "profiles", "own").allowed


def test_an_administrator_may_everything_where_there_is_a_profile() -> None:
    for question in ALLOWED:
        assert decide_administrator(NOBODY, *question, "own", exists=True).allowed
    assert not decide_administrator(NOBODY, "create", "runs", "neverwas", exists=False).allowed
    assert decide_administrator(NOBODY, "get", "profiles", "neverwas", exists=False).allowed  # to be told NOT_FOUND
    assert not decide_administrator(NOBODY, "list", "runs", "", exists=False).allowed
