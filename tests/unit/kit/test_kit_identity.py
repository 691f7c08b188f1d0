"""Who is calling, and which namespace a request means."""

from types import SimpleNamespace
from typing import Any

import pytest
from mlmesh_kit.access import IN_DOMAIN, Access, namespace_of
from mlmesh_kit.config import ServiceSettings
from mlmesh_kit.interceptor import caller_of, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "unix:/run/x.sock"])
def test_on_loopback_a_call_without_header_is_the_local_user(host: str) -> None:
    assert is_loopback(host)
    assert caller_of(None, ServiceSettings(host=host)).user == "user@mlmesh.local"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org", "", "127.0.0.1.example.org"])
def test_elsewhere_it_is_nobody(host: str) -> None:
    assert not is_loopback(host)
    assert caller_of(None, ServiceSettings(host=host)).user == ""


def test_a_header_is_believed_and_an_empty_one_is_nobody() -> None:
    settings = ServiceSettings(host="127.0.0.1")
    assert caller_of("alice@x.org", settings).user == "alice@x.org"
    assert caller_of("", settings).user == ""


@pytest.mark.parametrize(
    ("where", "request_", "namespace"),
    [
        ("namespace", SimpleNamespace(namespace="team"), "team"),
        ("namespace", SimpleNamespace(namespace=""), ""),
        ("run.namespace", SimpleNamespace(run=SimpleNamespace(namespace="team")), "team"),
        ("parent", SimpleNamespace(parent="namespaces/team"), "team"),
        ("name", SimpleNamespace(name="namespaces/team/experiments/x"), "team"),
        ("name", SimpleNamespace(name="namespaces/"), ""),
        ("absent", SimpleNamespace(), ""),
        (lambda request: request.path["ns"], SimpleNamespace(path={"ns": "team"}), "team"),
        (IN_DOMAIN, SimpleNamespace(namespace="team"), ""),
        (None, SimpleNamespace(namespace="team"), ""),
    ],
)
def test_the_namespace_is_where_the_rule_says(where: Any, request_: Any, namespace: str) -> None:
    assert namespace_of(Access("get", "things", namespace=where), request_) == namespace
