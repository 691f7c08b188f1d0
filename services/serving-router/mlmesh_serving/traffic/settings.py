"""How requests are spread over the revisions of a model, as an operator says it.

Percentages, tags and their bounds are those of a traffic block of Knative Serving (serving.knative.dev/v1).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mlmesh_kit.errors import InvalidArgument

LATEST = 0
"""Stands for the newest revision that is ready, where a revision is named."""
WHOLE = 100
MAX_TARGETS = 32
MAX_RULES = 32
MAX_HEADER_VALUE = 1024
MAX_PATTERN = 256
_TAG = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)


class Match(StrEnum):
    """How a header's value is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"
    """The whole value, in RE2's syntax, as Envoy and Istio do it: its time is linear in the value's length."""


@dataclass(frozen=True, slots=True)
class Target:
    """A revision and its share.

    Attributes:
        revision: Its number; `LATEST`: the newest that is ready.
        percent: Of the requests, 0 to 100.
        tag: A name that requests may ask for as a version; empty: none.
    """

    revision: int
    percent: int
    tag: str = ""


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """Sends requests with a header to a revision.

    Attributes:
        header: Name, in lower case.
        match: How the value is compared.
        value: What it is compared with.
        revision: Where such requests go; `LATEST`: the newest that is ready.
    """

    header: str
    match: Match
    value: str
    revision: int


@dataclass(frozen=True, slots=True)
class Sticky:
    """Requests with the same key go to the same revision.

    Attributes:
        header: Whose value is the key, in lower case.
    """

    header: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """A revision that is sent copies; its answers are dropped.

    Attributes:
        revision: Its number; `LATEST`: the newest that is ready.
        percent: Of the requests, 1 to 100.
    """

    revision: int
    percent: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """What an operator has said.

    Attributes:
        targets: Shares; empty: the manifest says it (canaryTrafficPercent).
        rules: The first that matches decides, before shares.
        sticky: None: each request is on its own.
        shadow: None: no copies.
    """

    targets: tuple[Target, ...] = ()
    rules: tuple[HeaderRule, ...] = ()
    sticky: Sticky | None = None
    shadow: Shadow | None = None

    def revisions(self) -> frozenset[int]:
        """Gives the numbers that it names."""
        named = [target.revision for target in self.targets] + [rule.revision for rule in self.rules]
        return frozenset(named + ([self.shadow.revision] if self.shadow else []))


def check_traffic(traffic: Traffic) -> Traffic:
    """Gives back what is well formed.

    Raises:
        InvalidArgument: It is not; the message names the field.
    """
    _check_targets(traffic.targets)
    if len(traffic.rules) > MAX_RULES:
        raise InvalidArgument(f"must be at most {MAX_RULES}", field="rules")
    for index, rule in enumerate(traffic.rules):
        _check_rule(rule, f"rules[{index}]")
    if traffic.sticky is not None:
        _check_header(traffic.sticky.header, "sticky.header")
    if traffic.shadow is not None and not 1 <= traffic.shadow.percent <= WHOLE:
        raise InvalidArgument("must be 1 to 100", field="shadow.percent")
    return traffic


def _check_targets(targets: Iterable[Target]) -> None:
    found = list(targets)
    if len(found) > MAX_TARGETS:
        raise InvalidArgument(f"must be at most {MAX_TARGETS}", field="targets")
    tags: set[str] = set()
    for index, target in enumerate(found):
        if not 0 <= target.percent <= WHOLE:
            raise InvalidArgument("must be 0 to 100", field=f"targets[{index}].percent")
        if not target.tag:
            continue
        if not _TAG.fullmatch(target.tag):
            raise InvalidArgument(
                "must be a letter, then at most 62 lower case letters, digits and '-', not ending with '-'",
                field=f"targets[{index}].tag",
            )
        if target.tag in tags:
            raise InvalidArgument(f"{target.tag!r} is there twice", field=f"targets[{index}].tag")
        tags.add(target.tag)
    total = sum(target.percent for target in found)
    if found and total != WHOLE:
        raise InvalidArgument(f"percentages must add up to 100, not to {total}", field="targets")


def _check_rule(rule: HeaderRule, where: str) -> None:
    _check_header(rule.header, f"{where}.header")
    most = MAX_PATTERN if rule.match is Match.REGEX else MAX_HEADER_VALUE
    if not 1 <= len(rule.value) <= most:
        raise InvalidArgument(f"must be 1 to {most} characters", field=f"{where}.{rule.match}")


def _check_header(name: str, field: str) -> None:
    if not _HEADER.fullmatch(name):
        raise InvalidArgument("must be the name of a header, in lower case, at most 128 characters", field=field)


def traffic_to_json(traffic: Traffic) -> dict[str, Any]:
    """Gives it as JSON, to be kept."""
    made: dict[str, Any] = {
        "targets": [{"revision": t.revision, "percent": t.percent, "tag": t.tag} for t in traffic.targets],
        "rules": [
            {"header": r.header, "match": r.match.value, "value": r.value, "revision": r.revision}
            for r in traffic.rules
        ],
    }
    if traffic.sticky is not None:
        made["sticky"] = {"header": traffic.sticky.header}
    if traffic.shadow is not None:
        made["shadow"] = {"revision": traffic.shadow.revision, "percent": traffic.shadow.percent}
    return made


def traffic_from_json(kept: Mapping[str, Any]) -> Traffic:
    """Reads what `traffic_to_json` gave."""
    return Traffic(
        targets=tuple(Target(**target) for target in kept.get("targets", ())),
        rules=tuple(
            HeaderRule(rule["header"], Match(rule["match"]), rule["value"], rule["revision"])
            for rule in kept.get("rules", ())
        ),
        sticky=Sticky(**kept["sticky"]) if kept.get("sticky") else None,
        shadow=Shadow(**kept["shadow"]) if kept.get("shadow") else None,
    )
