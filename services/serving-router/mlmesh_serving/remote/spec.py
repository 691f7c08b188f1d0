"""A server elsewhere, as manifests name it: `remote: {url: grpc://host:port, model: name}`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mlmesh_kit.errors import InvalidArgument

from mlmesh_serving.remote.address import RemoteAddress, parse_address
from mlmesh_serving.remote.hosts import AllowedHosts

DEFAULT_TIMEOUT_SECONDS = 60.0
MAX_TIMEOUT_SECONDS = 3600.0
DEFAULT_OPENAI_PATH = "/openai/v1"
_MAX_NAME = 256


class Protocol(Enum):
    """What a server speaks, in the words of KServe's `protocolVersion`."""

    GRPC = "grpc-v2"
    REST_V2 = "v2"
    REST_V1 = "v1"


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """A model on a server elsewhere.

    Attributes:
        address: Of the server.
        protocol: It speaks.
        model: Its name there; empty: as our client calls it.
        version: Its version there; empty: that server chooses.
        timeout_seconds: For an answer, if the client does not want it sooner.
        openai_path: Below which its OpenAI routes lie, below the address; empty: it has none.
    """

    address: RemoteAddress
    protocol: Protocol
    model: str = ""
    version: str = ""
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    openai_path: str = ""


def parse_remote(value: Any, field: str, hosts: AllowedHosts) -> RemoteSpec:
    """Checks what a manifest says of a remote server.

    Args:
        value: `{url, model, version, protocol, timeout, openai}`; all but the url may be missing.
            `protocol` is v2 (the default) or v1 where the url is http. `openai` is true, or the routes' path.
        field: Where it stands in the manifest.
        hosts: That may be called.

    Raises:
        InvalidArgument: A field is missing, wrong, or not known; or the host may not be called.
    """
    if not isinstance(value, Mapping):
        raise InvalidArgument("must be an object", field=field)
    known = {"url", "model", "version", "protocol", "timeout", "openai"}
    for key in value:
        if key not in known:
            raise InvalidArgument(f"is not known; known are {', '.join(sorted(known))}", field=f"{field}.{key}")
    address = parse_address(value.get("url"), f"{field}.url")
    hosts.check(address.host, f"{field}.url")
    return RemoteSpec(
        address,
        _protocol(value.get("protocol"), address, f"{field}.protocol"),
        _name(value, "model", field),
        _name(value, "version", field),
        _timeout(value.get("timeout"), f"{field}.timeout"),
        _openai(value.get("openai"), address, f"{field}.openai"),
    )


def _protocol(given: Any, address: RemoteAddress, field: str) -> Protocol:
    allowed = [Protocol.GRPC] if address.is_grpc else [Protocol.REST_V2, Protocol.REST_V1]
    if given in (None, ""):
        return allowed[0]
    for protocol in allowed:
        if given == protocol.value:
            return protocol
    words = " or ".join(protocol.value for protocol in allowed)
    raise InvalidArgument(f"must be {words} with {address.scheme}://", field=field)


def _name(value: Mapping[str, Any], key: str, field: str) -> str:
    given = value.get(key)
    if given in (None, ""):
        return ""
    if not isinstance(given, str) or len(given) > _MAX_NAME or not given.isprintable():
        raise InvalidArgument(f"must be a string of at most {_MAX_NAME} printable characters", field=f"{field}.{key}")
    return given


def _timeout(given: Any, field: str) -> float:
    if given is None:
        return DEFAULT_TIMEOUT_SECONDS
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given <= MAX_TIMEOUT_SECONDS:
        raise InvalidArgument(f"must be seconds, more than 0 and at most {MAX_TIMEOUT_SECONDS:g}", field=field)
    return float(given)


def _openai(given: Any, address: RemoteAddress, field: str) -> str:
    if given in (None, False):
        return ""
    if address.is_grpc:
        raise InvalidArgument("is served by HTTP only", field=field)
    if given is True:
        return DEFAULT_OPENAI_PATH
    if not isinstance(given, str) or not given.startswith("/"):
        raise InvalidArgument("must be true, or a path that begins with /", field=field)
    return parse_address(f"http://host{given}", field).path
