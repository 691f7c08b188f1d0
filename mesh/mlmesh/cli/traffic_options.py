"""What the command line says about traffic, as the service reads it."""

import re
from collections.abc import Sequence
from typing import Any

LATEST = "latest"
CALLER = "caller"
_RULE = re.compile(r"(?P<header>[^=^~]+?)(?P<how>\^=|~=|=)(?P<value>.*):(?P<revision>[^:]+)", re.DOTALL)
_HOW = {"=": "exact", "^=": "prefix", "~=": "regex"}


class TrafficError(Exception):
    """An option cannot be understood; the message says what is expected."""


def read_targets(shares: Sequence[str], tags: Sequence[str]) -> list[dict[str, Any]]:
    """Reads `REV=PERCENT` and `TAG=REV`.

    Raises:
        TrafficError: One is neither, or there are tags without shares.
    """
    if tags and not shares:
        raise TrafficError("tags go with the shares of all revisions, such as 1=90 2=10 --tag blue=2")
    found: dict[str, dict[str, Any]] = {}
    for share in shares:
        revision, _, percent = share.rpartition("=")
        if not revision or not percent.removesuffix("%").isdigit():
            raise TrafficError(f"{share!r} is no share; expected REV=PERCENT, such as 2=90 or latest=10")
        if revision in found:
            raise TrafficError(f"revision {revision} is there twice")
        found[revision] = {**_target(revision), "percent": int(percent.removesuffix("%"))}
    for tag in tags:
        name, _, revision = tag.partition("=")
        if not name or not revision:
            raise TrafficError(f"{tag!r} is no tag; expected TAG=REV, such as blue=2")
        target = found.setdefault(revision, {**_target(revision), "percent": 0})
        if "tag" in target:
            raise TrafficError(f"revision {revision} has two tags; one is expected")
        target["tag"] = name
    total = sum(target["percent"] for target in found.values())
    if found and total != 100:
        raise TrafficError(f"percentages add up to {total}, not to 100")
    return list(found.values())


def read_rule(text: str) -> dict[str, Any]:
    """Reads `HEADER=VALUE:REV` (exactly), `HEADER^=VALUE:REV` (begins with) or `HEADER~=PATTERN:REV`.

    Raises:
        TrafficError: It is none of these.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise TrafficError(
            f"{text!r} is no rule; expected HEADER=VALUE:REV, HEADER^=BEGINNING:REV or HEADER~=PATTERN:REV"
        )
    how = _HOW[match["how"]]
    return {"header": match["header"].strip().lower(), how: match["value"], "revision": match["revision"]}


def read_shadow(text: str) -> dict[str, Any]:
    """Reads `REV=PERCENT`, or `REV` for all.

    Raises:
        TrafficError: It is neither.
    """
    revision, equals, percent = text.partition("=")
    percent = percent.removesuffix("%") if equals else "100"
    if not revision or not percent.isdigit():
        raise TrafficError(f"{text!r} is no shadow; expected REV=PERCENT, such as latest=10")
    return {"revision": revision, "percent": int(percent)}


def _target(revision: str) -> dict[str, Any]:
    return {"latest_revision": True} if revision == LATEST else {"revision_name": revision}
