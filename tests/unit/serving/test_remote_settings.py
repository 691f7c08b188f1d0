"""What the service may be told of servers elsewhere."""

import pytest
from mlmesh_kit.errors import InvalidArgument
from mlmesh_serving.config import Settings
from pydantic import ValidationError


def may_call(called: str, **settings) -> bool:
    try:
        Settings(**settings).allowed_hosts.check(called, "url")
    except InvalidArgument:
        return False
    return True


def test_without_a_setting_a_laptop_calls_itself_and_a_server_nobody() -> None:
    assert may_call("127.0.0.1", host="127.0.0.1")
    assert not may_call("10.0.0.1", host="127.0.0.1")
    assert not may_call("127.0.0.1", host="0.0.0.0")
    assert may_call("10.0.0.1", host="0.0.0.0", remote_hosts="10.0.0.0/8")
    assert not may_call("127.0.0.1", host="127.0.0.1", remote_hosts="")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("remote_hosts", "http://a", "is no host name"),
        ("propagate_headers", "(", "is no regular expression"),
        ("remote_ca_file", "/nowhere/ca.pem", "is no file"),
        ("remote_credentials_file", "/nowhere/c.json", "is no JSON file that can be read"),
    ],
)
def test_wrong_settings_are_refused_at_the_start(name: str, value: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(**{name: value})
