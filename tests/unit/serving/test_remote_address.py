"""Addresses of remote servers, and which hosts may be called."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, Unavailable
from mlmesh_serving.manifest.spec import Protocol
from mlmesh_serving.manifest.stages import parse_remote
from mlmesh_serving.remote.address import parse_address
from mlmesh_serving.remote.headers import parse_patterns
from mlmesh_serving.remote.hosts import LOOPBACK, parse_hosts
from mlmesh_serving.remote.model import RemoteModel, remote_model


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("grpc://localhost:8001", "grpc://localhost:8001"),
        ("grpcs://Models.Example.COM:443", "grpcs://models.example.com:443"),
        ("http://127.0.0.1:8080/base/", "http://127.0.0.1:8080/base"),
        ("https://models.example.com", "https://models.example.com:443"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("http://x.", "http://x:80"),
    ],
)
def test_addresses_are_read(url: str, text: str) -> None:
    assert str(parse_address(url, "url")) == text


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (None, "printable"),
        ("", "printable"),
        ("http://a b", "printable"),
        ("http://a\r\nx: y", "printable"),
        ("http://" + "a" * 3000, "printable"),
        ("ftp://a", "must begin with grpc://"),
        ("a:80", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("grpc://a", "must name a port"),
        ("http://a:0", "must name a port"),
        ("http://a:99999", "host:port"),
        ("http://:80", "must name a host"),
        ("http://-a:80", "must name a host"),
        ("http://a..b:80", "must name a host"),
        ("http://[fe80::1%25eth0]:80", "must name a host"),
        ("http://a\\@b", "must not hold credentials"),
        ("http://a?x=1", "no query"),
        ("http://a#x", "no query"),
        ("http://a/%0d%0a/../b", "plain path"),
        ("http://a/b\\c", "plain path"),
        ("grpc://a:1/b", "must have no path"),
    ],
)
def test_other_urls_are_refused(url: object, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as error:
        parse_address(url, "manifest.spec.predictor.remote.url")
    assert error.value.violations[0][0] == "manifest.spec.predictor.remote.url"


def test_credentials_are_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidArgument, match="must not hold credentials") as error:
        parse_address("https://me:hunter2@models.example.com", "url")
    assert "hunter2" not in error.value.message and "me" not in error.value.message.replace("name", "")


@given(st.text(max_size=40))
def test_any_text_is_an_address_that_reads_back_or_is_refused(text: str) -> None:
    for url in (text, f"http://{text}", f"grpc://{text}:1"):
        try:
            found = parse_address(url, "url")
        except InvalidArgument:
            continue
        assert parse_address(str(found), "url") == found


def allowed(setting: str, host: str) -> bool:
    """Asks as a connection would: at the door, and then for the address."""
    hosts = parse_hosts(setting)
    try:
        hosts.check(host, "url")
        return bool(asyncio.run(hosts.resolve(host, 80)))
    except (InvalidArgument, FailedPrecondition):
        return False


@pytest.mark.parametrize(
    ("setting", "host", "may"),
    [
        (LOOPBACK, "127.0.0.1", True),
        (LOOPBACK, "127.8.8.8", True),
        (LOOPBACK, "localhost", True),
        (LOOPBACK, "::1", True),
        (LOOPBACK, "::ffff:127.0.0.1", True),
        (LOOPBACK, "10.0.0.1", False),
        (LOOPBACK, "0.0.0.0", False),
        (LOOPBACK, "169.254.169.254", False),
        (LOOPBACK, "::ffff:169.254.169.254", False),
        (LOOPBACK, "64:ff9b::a9fe:a9fe", False),
        (LOOPBACK, "2852039166", False),  # 169.254.169.254, as the C library reads it
        ("", "127.0.0.1", False),
        ("", "localhost", False),
        ("10.0.0.0/8", "10.200.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("*", "8.8.8.8", True),
        ("*", "169.254.169.254", False),
        ("*", "::ffff:169.254.169.254", False),
        ("*", "fe80::1", False),
        ("*, 169.254.0.0/16", "169.254.169.254", True),
        ("localhost", "localhost", True),
        ("localhost", "127.0.0.1", False),
    ],
)
def test_which_hosts_may_be_called(setting: str, host: str, may: bool) -> None:
    assert allowed(setting, host) is may


def answering(monkeypatch: pytest.MonkeyPatch, **addresses: str) -> None:
    """Has names resolve as given."""

    async def getaddrinfo(self, host, port, **_):
        if host not in addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses[host].split()]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


def test_a_name_is_judged_by_the_address_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "inside": "127.0.0.1",
        "metadata": "169.254.169.254",
        "mixed": "10.0.0.1 127.0.0.1",
        "a.models.example.com": "10.1.1.1",
        "models.example.com": "10.1.1.2",
    }
    answering(monkeypatch, **names)
    assert not allowed("10.0.0.0/8", "inside")
    assert not allowed("*", "metadata")
    assert not allowed("metadata", "metadata")
    assert asyncio.run(parse_hosts("10.0.0.0/8").resolve("mixed", 80)) == ["10.0.0.1"]
    assert allowed("*.example.com", "a.models.example.com")
    assert allowed("*.models.example.com", "a.models.example.com")
    assert not allowed("*.models.example.com", "models.example.com")
    assert not allowed("example.com", "models.example.com")
    with pytest.raises(Unavailable, match="gone has no address"):
        asyncio.run(parse_hosts("*").resolve("gone", 80))


@pytest.mark.parametrize("setting", ["a b", "10.0.0.0/99", "http://a", "**.a", "*a"])
def test_a_wrong_setting_of_hosts_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="is no host name"):
        parse_hosts(setting)


def test_headers_go_on_by_patterns() -> None:
    headers = {
        "authorization": "a", "x-tenant": "b", "kubeflow-userid": "c", "traceparent": "d", "content-length": "7",
        "host": "h", "grpc-timeout": "1S", "te": "trailers",
    }  # fmt: skip
    assert parse_patterns("").select(headers) == {"traceparent": "d"}
    assert parse_patterns("^X-, Auth").select(headers) == {"traceparent": "d", "x-tenant": "b", "authorization": "a"}
    assert set(parse_patterns(".*").select(headers)) == {"authorization", "x-tenant", "kubeflow-userid", "traceparent"}
    with pytest.raises(ValueError, match="no regular expression"):
        parse_patterns("(")


def read(value: object) -> RemoteModel:
    return remote_model(parse_remote(value, "r"), parse_hosts(LOOPBACK))


def test_remote_models_are_read() -> None:
    grpc = read({"url": "grpc://localhost:9000", "model": "iris", "version": "3"})
    assert (grpc.protocol, grpc.name, grpc.version, grpc.timeout_seconds) == (Protocol.GRPC_V2, "iris", "3", 60)
    http = read({"url": "http://127.0.0.1:80", "protocol": "v1", "timeout": 2, "openai": True})
    assert (http.protocol, http.timeout_seconds, http.openai_path) == (Protocol.V1, 2, "/openai/v1")
    assert read({"url": "http://127.0.0.1:80", "openai": "/v1"}).openai_path == "/v1"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "^r.url"),
        ({"url": "http://10.0.0.1"}, "^r.url: 10.0.0.1 is no host that this server may call"),
        ({"url": "grpc://localhost:1/path"}, "^r.url: must have no path"),
        ({"url": "grpc://localhost:1", "protocol": "v2"}, "^r.url: must be a URL that begins with http"),
        ({"url": "http://localhost:1", "protocol": "grpc-v2"}, "^r.url: must be a URL that begins with grpc"),
        ({"url": "http://localhost:1", "protocol": "v3"}, "^r.protocol"),
        ({"url": "http://localhost:1?x"}, "^r.url: must have no query"),
        ({"url": "grpc://localhost:1", "openai": True}, "^r.openai: is served by HTTP only"),
        ({"url": "http://localhost:1", "openai": "v1"}, "^r.openai: must be true, or a path"),
        ({"url": "http://localhost:1", "openai": "/v1/../x"}, "^r.openai: must be true, or a path"),
        ({"url": "http://localhost:1", "openai": "/v1/"}, "^r.openai: must be true, or a path"),
        ({"url": "http://localhost:1", "uri": "x"}, "^r.uri: is not known"),
    ],
)
def test_wrong_remote_models_are_refused(value: object, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        read(value)
