"""Trial templates: a resource with placeholders, and the resource that a trial gets."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import InvalidArgument

MAX_DEPTH = 50
MAX_VALUES = 20_000
MAX_RENDERED = 4 << 20
_PLACEHOLDER = re.compile(r"\$\{trialParameters\.([^}]*)\}")
_META = re.compile(r"\$\{trialSpec\.(?:(Name|Namespace|Kind|APIVersion)|(Annotations|Labels)\[([^\]}]+)\])\}")
_EITHER = re.compile(f"{_PLACEHOLDER.pattern}|{_META.pattern}")


@dataclass(frozen=True, slots=True)
class TrialTemplate:
    """How a trial is run.

    Attributes:
        manifest: The `trialSpec`, with placeholders.
        references: Placeholder → parameter of the experiment, or `${trialSpec...}`.
        primary_container: Name of the container that counts; empty: the first.
        primary_pod_labels: Katib's; empty: by the kind of the resource.
        success_condition, failure_condition: GJSON paths; empty: by the kind of the resource.
        retain: Whether the resource is kept after its end.
    """

    manifest: Mapping[str, Any]
    references: Mapping[str, str]
    primary_container: str = ""
    primary_pod_labels: Mapping[str, str] | None = None
    success_condition: str = ""
    failure_condition: str = ""
    retain: bool = False


def parse_template(template: Mapping[str, Any], parameters: Sequence[str] | None, where: str) -> TrialTemplate:
    """Checks what all backends have in common; `JobBackend.check` looks at the resource.

    Args:
        template: As in the manifest.
        parameters: Names of the experiment's parameters; None: an algorithm makes them up (architectures).
        where: Its path, for errors.

    Raises:
        InvalidArgument: Something is missing, or a placeholder means nothing.
    """
    spec = template.get("trialSpec")
    if not isinstance(spec, Mapping):
        raise InvalidArgument("must be an object", field=f"{where}.trialSpec")
    references = _references(template.get("trialParameters") or [], parameters, f"{where}.trialParameters")
    for text in _texts(spec, f"{where}.trialSpec"):
        for name in _PLACEHOLDER.findall(text):
            if name not in references:
                raise InvalidArgument(f"must name {name!r}, which the trialSpec uses", field=f"{where}.trialParameters")
    labels = template.get("primaryPodLabels")
    if labels is not None and (
        not isinstance(labels, Mapping) or not all(isinstance(value, str) for value in labels.values())
    ):
        raise InvalidArgument("must be an object of strings", field=f"{where}.primaryPodLabels")
    retain = template.get("retain") or False
    if not isinstance(retain, bool):
        raise InvalidArgument("must be true or false", field=f"{where}.retain")
    return TrialTemplate(
        manifest=spec,
        references=references,
        primary_container=_text(template, "primaryContainerName", where),
        primary_pod_labels=labels,
        success_condition=_text(template, "successCondition", where),
        failure_condition=_text(template, "failureCondition", where),
        retain=retain,
    )


def check_references(template: Mapping[str, Any], where: str) -> None:
    """Checks, when an experiment is made, what Katib asks of `trialParameters` beyond what a trial needs to run.

    Args:
        template: As in the manifest, checked by `parse_template`.
        where: Its path, for errors.

    Raises:
        InvalidArgument: They are missing, one is not used, has braces in its name, or means the same as another.
    """
    path = f"{where}.trialParameters"
    if template.get("trialParameters") is None:
        raise InvalidArgument("must be given: what the trialSpec gets of the parameters", field=path)
    used = {name for text in _texts(template["trialSpec"], where) for name in _PLACEHOLDER.findall(text)}
    references: set[str] = set()
    for index, item in enumerate(template["trialParameters"]):
        name, reference = item["name"], item["reference"]
        if "{" in name or "}" in name:
            raise InvalidArgument("must hold no braces", field=f"{path}[{index}].name")
        if reference in references:
            raise InvalidArgument(f"{reference!r} is there twice", field=f"{path}[{index}].reference")
        if name not in used:
            message = f"must be used: the trialSpec holds no ${{trialParameters.{name}}}"
            raise InvalidArgument(message, field=f"{path}[{index}].name")
        references.add(reference)


def render(
    template: TrialTemplate,
    assignments: Mapping[str, str],
    trial: str,
    namespace: str,
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Fills the placeholders in, in one go: what a value holds is no placeholder.

    Values are put into the texts as they are; no shell sees them unless the command calls one.

    Args:
        template: What `parse_template` gave.
        assignments: Of the trial.
        trial: Its name.
        namespace: Of the experiment.
        labels: Of the trial, which `${trialSpec.Labels[...]}` finds besides the template's own.

    Raises:
        InvalidArgument: What comes out is too large, or asks for a label that is not there.
    """
    metadata = template.manifest.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    own = {
        "Name": trial,
        "Namespace": namespace,
        "Kind": str(template.manifest.get("kind", "")),
        "APIVersion": str(template.manifest.get("apiVersion", "")),
    }
    maps: dict[str, dict[str, Any]] = {
        "Annotations": dict(metadata.get("annotations") or {}),
        "Labels": {**dict(metadata.get("labels") or {}), **dict(labels or {})},
    }
    written = 0

    def meta(match: re.Match[str], first: int) -> str:
        if match.group(first):
            return own[match.group(first)]
        kind, key = match.group(first + 1), match.group(first + 2)
        if key not in maps[kind]:
            raise InvalidArgument(f"{match.group(0)}: the trial has no such entry", field="trialTemplate.trialSpec")
        return str(maps[kind][key])

    def value(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return meta(match, 2)
        reference = template.references[match.group(1)]
        found = _META.fullmatch(reference)
        if found:
            return meta(found, 1)
        if reference not in assignments:
            raise InvalidArgument(f"the algorithm gave no {reference!r}", field="trialTemplate.trialParameters")
        return assignments[reference]

    def fill(text: str) -> str:
        nonlocal written
        filled = _EITHER.sub(value, text)
        written += len(filled)
        if written > MAX_RENDERED:
            raise InvalidArgument(f"must be at most {MAX_RENDERED} characters", field="trialTemplate.trialSpec")
        return filled

    rendered: dict[str, Any] = _map(template.manifest, fill)
    return rendered


def _map(value: Any, fill: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return fill(value)
    if isinstance(value, Mapping):
        return {key: _map(item, fill) for key, item in value.items()}
    return [_map(item, fill) for item in value] if isinstance(value, list) else value


def _texts(root: Any, where: str) -> list[str]:
    """Gives all strings of a tree, which is neither too deep nor too large."""
    found = []
    left = [(root, 0)]
    seen = 0
    while left:
        value, depth = left.pop()
        seen += 1
        if depth > MAX_DEPTH:
            raise InvalidArgument(f"must not be deeper than {MAX_DEPTH}", field=where)
        if seen > MAX_VALUES:
            raise InvalidArgument(f"must hold at most {MAX_VALUES} values", field=where)
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, Mapping):
            left += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            left += [(item, depth + 1) for item in value]
    return found


def _text(template: Mapping[str, Any], key: str, where: str) -> str:
    value = template.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidArgument("must be a string", field=f"{where}.{key}")
    return value or ""


def _references(items: Any, parameters: Sequence[str] | None, where: str) -> dict[str, str]:
    if not isinstance(items, list):
        raise InvalidArgument("must be a list", field=where)
    found: dict[str, str] = {}
    for index, item in enumerate(items):
        path = f"{where}[{index}]"
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str) or not item["name"]:
            raise InvalidArgument("must be an object with a name", field=path)
        reference = item.get("reference")
        known = isinstance(reference, str) and (
            _META.fullmatch(reference) or (reference if parameters is None else reference in parameters)
        )
        if not known:
            raise InvalidArgument(
                f"must be a parameter of the experiment or ${{trialSpec.Name}}, got {reference!r}",
                field=f"{path}.reference",
            )
        if item["name"] in found:
            raise InvalidArgument(f"{item['name']!r} is there twice", field=f"{path}.name")
        found[item["name"]] = str(reference)
    return found
