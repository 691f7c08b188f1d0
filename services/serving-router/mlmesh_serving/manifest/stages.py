"""Stages: Python code, or a server elsewhere."""

import re
from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import InvalidArgument

from mlmesh_serving.manifest.fields import as_choice, as_integer, as_object, as_optional_text, as_text, as_url, only
from mlmesh_serving.manifest.spec import Protocol, RemoteSpec, StageSpec

MAX_TIMEOUT_SECONDS = 600
"""Knative's bound (max-revision-timeout-seconds)."""
DEFAULT_OPENAI_PATH = "/openai/v1"
"""Where KServe's servers have OpenAI's routes."""
_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*){1,8}", re.ASCII)
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_SCHEMES = {Protocol.V1: ("http", "https"), Protocol.V2: ("http", "https"), Protocol.GRPC_V2: ("grpc", "grpcs")}


def parse_stage(stage: Mapping[str, Any], where: str, *, others: frozenset[str] = frozenset()) -> StageSpec:
    """Reads `{python: {class, storageUri}}` or `{remote: {url, protocol, ...}}`.

    Args:
        stage: Has one of the two.
        where: The stage.
        others: Fields that it may have besides.

    Raises:
        InvalidArgument: Something is missing, wrong, or not known.
    """
    only(stage, {"python", "remote"} | others, where)
    given = [kind for kind in ("python", "remote") if stage.get(kind) is not None]
    if len(given) != 1:
        raise InvalidArgument("must hold one of python, remote", field=where)
    if given == ["remote"]:
        remote = parse_remote(as_object(stage, "remote", where), f"{where}.remote")
        return StageSpec("", "", f"{where}.remote", remote)
    where, python = f"{where}.python", as_object(stage, "python", where)
    only(python, {"class", "storageUri"}, where)
    return StageSpec(parse_class(python, "class", where), as_text(python, "storageUri", where), f"{where}.storageUri")


def parse_class(parent: Mapping[str, Any], key: str, where: str) -> str:
    """Reads `module:Class`, or raises InvalidArgument."""
    target = as_text(parent, key, where)
    if not _CLASS.fullmatch(target):
        raise InvalidArgument("must be module:Class or module:function", field=f"{where}.{key}")
    return target


def parse_remote(remote: Mapping[str, Any], where: str) -> RemoteSpec:
    """Reads a server elsewhere, or raises InvalidArgument. Without a protocol the URL says whether it is gRPC."""
    only(remote, {"url", "protocol", "model", "version", "timeout", "openai"}, where)
    default = Protocol.GRPC_V2 if str(remote.get("url", "")).startswith("grpc") else Protocol.V2
    protocol = Protocol(as_choice(remote, "protocol", where, list(Protocol), default))
    return RemoteSpec(
        url=as_url(remote, "url", where, _SCHEMES[protocol]),
        protocol=protocol,
        model=as_optional_text(remote, "model", where),
        version=as_optional_text(remote, "version", where),
        timeout_seconds=parse_timeout(remote, where),
        field=f"{where}.url",
        openai=_openai(remote, protocol, f"{where}.openai"),
    )


def _openai(remote: Mapping[str, Any], protocol: Protocol, field: str) -> str:
    """Reads the path of OpenAI's routes: true for KServe's, or the path; or raises InvalidArgument."""
    given = remote.get("openai")
    if given in (None, False):
        return ""
    if protocol is Protocol.GRPC_V2:
        raise InvalidArgument("is served by HTTP only", field=field)
    if given is True:
        return DEFAULT_OPENAI_PATH
    if not isinstance(given, str) or not _PATH.fullmatch(given):
        raise InvalidArgument("must be true, or a path like /v1", field=field)
    return given


def parse_timeout(parent: Mapping[str, Any], where: str) -> float | None:
    """Reads KServe's `timeout` in whole seconds, 0 and nothing alike for the default, or raises InvalidArgument."""
    found = as_integer(parent, "timeout", where, default=None, smallest=0, largest=MAX_TIMEOUT_SECONDS)
    return float(found) if found else None
