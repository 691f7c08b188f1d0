"""In what two tasks, or what their fingerprints are made of, are not alike."""

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mlmesh_pipeline.ir.lightweight import NotLightweight, recognise

_UNDER_KEY = frozenset({"container", "parameters", "artifacts"})
_MAX_DIFF_LINES = 200
_MAX_LINE = 500
_MAX_COMPARED = 400_000  # lines times lines: what is made to be slow takes difflib long
MISSING = object()
"""Stands for a value that is not there, which is not the same as None."""


class Kind(StrEnum):
    """What kind of thing differs."""

    PARAMETER = "PARAMETER"
    ARTIFACT = "ARTIFACT"
    METADATA = "METADATA"
    SOURCE = "SOURCE"
    FUNCTION = "FUNCTION"
    PACKAGES = "PACKAGES"
    IMAGE = "IMAGE"
    COMMAND = "COMMAND"
    ENVIRONMENT = "ENVIRONMENT"
    RESOURCES = "RESOURCES"
    OUTPUTS = "OUTPUTS"
    CACHE_KEY = "CACHE_KEY"
    OTHER = "OTHER"
    TASK = "TASK"
    WIRING = "WIRING"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two things differ.

    Attributes:
        kind: What kind of thing.
        name: Which one.
        before, after: What it was and is; `MISSING` where it is not there.
        text: More of it, for people: a unified diff.
    """

    kind: Kind
    name: str
    before: Any = MISSING
    after: Any = MISSING
    text: str = ""


def content_differences(before: Mapping[str, Any], after: Mapping[str, Any], *, texts: bool = True) -> list[Difference]:
    """Compares what two fingerprints are made of (`engine.fingerprint.fingerprint_content`).

    Whatever differs is named, and be it as OTHER: no difference means that the fingerprints are the same.

    Args:
        before, after: What they are made of.
        texts: Whether texts are compared line by line, which takes long.
    """
    found: list[Difference] = []
    by_key = ("key" in before) != ("key" in after)  # a key stands for the rest, which then cannot be compared
    for part in sorted({*before, *after}):
        old, new = before.get(part, MISSING), after.get(part, MISSING)
        if same(old, new) or (by_key and part in _UNDER_KEY):
            continue
        found += _part(part, old, new, texts) or [Difference(Kind.OTHER, part, old, new)]
    return found


def _part(part: str, old: Any, new: Any, texts: bool) -> list[Difference]:
    """Compares one part of what two fingerprints are made of; nothing where it is not one that is known."""
    if part == "key":
        return [Difference(Kind.CACHE_KEY, "cache key", old, new)]
    if part == "outputs":
        return [Difference(Kind.OUTPUTS, "declared outputs", old, new)]
    if not isinstance(old, dict) or not isinstance(new, dict):
        return []
    if part == "parameters":
        return mapping_differences(Kind.PARAMETER, old, new)
    if part == "artifacts":
        return list(_artifacts(old, new))
    return container_differences(old, new, texts=texts) if part == "container" else []


def same(one: Any, other: Any) -> bool:
    """Compares as fingerprints do: by the JSON, in which 1, 1.0 and true are three things."""
    if one is MISSING or other is MISSING:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def mapping_differences(kind: Kind, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Compares values by name."""
    return [
        Difference(kind, name, before.get(name, MISSING), after.get(name, MISSING))
        for name in sorted({*before, *after})
        if not same(before.get(name, MISSING), after.get(name, MISSING))
    ]


def _artifacts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    """Compares lists of [type, digest or URI, metadata] by name."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is None or new is None or len(old) != len(new):
            was = MISSING if old is None else [item[1] for item in old]
            yield Difference(Kind.ARTIFACT, name, was, MISSING if new is None else [item[1] for item in new])
            continue
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            label = f"{name}[{index}]" if len(old) > 1 else name
            if one[1] != other[1]:
                yield Difference(Kind.ARTIFACT, label, one[1], other[1])
            if one[0] != other[0]:
                yield Difference(Kind.ARTIFACT, f"{label} (type)", one[0], other[0])
            for key in sorted({*one[2], *other[2]}):
                was, now = one[2].get(key, MISSING), other[2].get(key, MISSING)
                if not same(was, now):
                    yield Difference(Kind.METADATA, f"{label}.{key}", was, now)


def container_differences(
    before: Mapping[str, Any], after: Mapping[str, Any], *, texts: bool = True
) -> list[Difference]:
    """Compares two containers, JSON-ready as protobuf gives them (`image`, `command`, `args`, `env`, `resources`)."""
    found: list[Difference] = []
    if before.get("image") != after.get("image"):
        found.append(Difference(Kind.IMAGE, "image", before.get("image", MISSING), after.get("image", MISSING)))
    found += _commands(before, after, unified if texts else _nothing)
    found += mapping_differences(Kind.ENVIRONMENT, _variables(before), _variables(after))
    if before.get("resources") != after.get("resources"):
        old, new = before.get("resources", MISSING), after.get("resources", MISSING)
        found.append(Difference(Kind.RESOURCES, "resources", old, new))
    known = {"image", "command", "args", "env", "resources"}
    rest = [{key: value for key, value in one.items() if key not in known} for one in (before, after)]
    return found + mapping_differences(Kind.OTHER, rest[0], rest[1])


def _commands(
    before: Mapping[str, Any], after: Mapping[str, Any], compared: Callable[[list[str], list[str]], str]
) -> list[Difference]:
    old = (before.get("command", []), before.get("args", []))
    new = (after.get("command", []), after.get("args", []))
    if old == new:
        return []
    try:
        one, other = recognise(*old), recognise(*new)
    except NotLightweight:
        words = compared([*old[0], *old[1]], [*new[0], *new[1]])
        return [Difference(Kind.COMMAND, "command", [*old[0], *old[1]], [*new[0], *new[1]], words)]
    found = []
    if one.source != other.source:
        diff = compared(one.source.splitlines(), other.source.splitlines())
        found.append(Difference(Kind.SOURCE, other.function, text=diff))
    if one.function != other.function:
        found.append(Difference(Kind.FUNCTION, "function", one.function, other.function))
    packages = [[*each.requirements, *each.pip_options] for each in (one, other)]
    if packages[0] != packages[1]:
        found.append(Difference(Kind.PACKAGES, "packages_to_install", packages[0], packages[1]))
    if not found:  # the wrapper around the source is another: that of another version of kfp
        found.append(Difference(Kind.COMMAND, "command", text=compared([*old[0], *old[1]], [*new[0], *new[1]])))
    return found


def _variables(container: Mapping[str, Any]) -> dict[str, Any]:
    return {str(one.get("name")): one.get("value", "") for one in container.get("env", [])}


def _nothing(before: list[str], after: list[str]) -> str:
    return ""


def unified(before: list[str], after: list[str]) -> str:
    """Gives a unified diff, without file names, cut where it is long; of long texts, one of all between their ends."""
    if len(before) * len(after) <= _MAX_COMPARED:
        lines = list(difflib.unified_diff(before, after, lineterm="", n=2))[2:]
    else:
        lines = _hunk(before, after)
    shown = [line[:_MAX_LINE] for line in lines[:_MAX_DIFF_LINES]]
    if len(lines) > len(shown):
        shown.append(f"... and {len(lines) - len(shown)} more lines")
    return "\n".join(shown)


def _hunk(before: list[str], after: list[str]) -> list[str]:
    """Gives the diff of two texts as one hunk, from the first line that differs to the last."""
    least = min(len(before), len(after))
    start = next((at for at in range(least) if before[at] != after[at]), least)
    end = next((at for at in range(least - start) if before[-1 - at] != after[-1 - at]), least - start)
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    if not old and not new:
        return []
    header = f"@@ -{start + 1},{len(old)} +{start + 1},{len(new)} @@"
    return [header, *(f"-{line}" for line in old), *(f"+{line}" for line in new)]
