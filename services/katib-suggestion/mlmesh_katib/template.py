"""Trial templates: a batch/v1 Job with placeholders, and the local command that it becomes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

_PLACEHOLDER = re.compile(r"\$\{trialParameters\.([^}]*)\}")
_META = re.compile(r"\$\{trialSpec\.(Name|Namespace|Kind|APIVersion)\}")
_EITHER = re.compile(f"{_PLACEHOLDER.pattern}|{_META.pattern}")
MAX_ARGUMENTS = 1000


@dataclass(frozen=True, slots=True)
class TrialTemplate:
    """How a trial is run.

    Attributes:
        command: Command and arguments, with placeholders.
        environment: Variables, with placeholders.
        references: Placeholder → parameter of the experiment, or `${trialSpec...}`.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    references: Mapping[str, str]


def parse_template(template: Mapping[str, Any], parameters: Sequence[str], where: str) -> TrialTemplate:
    """Checks a trial template.

    Args:
        template: As in the manifest.
        parameters: Names of the experiment's parameters.
        where: Its path, for errors.

    Raises:
        InvalidArgument: Something is missing, or a placeholder means nothing.
        FailedPrecondition: It needs Kubernetes.
    """
    if template.get("configMap") is not None:
        raise FailedPrecondition(f"{where}.configMap needs the Kubernetes backend; give trialSpec")
    spec = template.get("trialSpec")
    if not isinstance(spec, Mapping):
        raise InvalidArgument("must be an object", field=f"{where}.trialSpec")
    if (spec.get("apiVersion"), spec.get("kind")) != ("batch/v1", "Job"):
        raise FailedPrecondition(
            f"{where}.trialSpec: {spec.get('kind')} ({spec.get('apiVersion')}) needs the Kubernetes backend, which is "
            "not served yet; locally a trial is a Job (batch/v1)"
        )
    container, path = _container(spec, template.get("primaryContainerName"), f"{where}.trialSpec")
    words = []
    for key in ("command", "args"):
        given = container.get(key) or []
        if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
            raise InvalidArgument("must be a list of strings", field=f"{path}.{key}")
        for index, word in enumerate(given):
            _check_text(word, f"{path}.{key}[{index}]")
        words += given
    if not container.get("command"):
        raise InvalidArgument("must be there: locally no image says what to run", field=f"{path}.command")
    if len(words) > MAX_ARGUMENTS:
        raise InvalidArgument(f"must hold at most {MAX_ARGUMENTS} words", field=f"{path}.command")
    environment = _environment(container.get("env") or [], f"{path}.env")
    references = _references(template.get("trialParameters") or [], parameters, f"{where}.trialParameters")
    for text in (*words, *environment.values()):
        for name in _PLACEHOLDER.findall(text):
            if name not in references:
                raise InvalidArgument(f"must name {name!r}, which the trialSpec uses", field=f"{where}.trialParameters")
    return TrialTemplate(tuple(words), environment, references)


def render(
    template: TrialTemplate, assignments: Mapping[str, str], trial: str, namespace: str
) -> tuple[list[str], dict[str, str]]:
    """Fills the placeholders in; gives the command and the environment.

    Values are put into the words as they are; no shell sees them unless the command calls one.
    """
    meta = {"Name": trial, "Namespace": namespace, "Kind": "Job", "APIVersion": "batch/v1"}

    def fill(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            if match.group(2):
                return meta[match.group(2)]
            reference = template.references[match.group(1)]
            own = _META.fullmatch(reference)
            return meta[own.group(1)] if own else assignments[reference]

        return _EITHER.sub(value, text)  # in one go: what a value holds is no placeholder

    return [fill(word) for word in template.command], {k: fill(v) for k, v in template.environment.items()}


def _container(spec: Mapping[str, Any], primary: Any, where: str) -> tuple[Mapping[str, Any], str]:
    value: Any = spec
    path = where
    for key in ("spec", "template", "spec", "containers"):
        path += f".{key}"
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        raise InvalidArgument("must be a list of containers", field=path)
    for index, container in enumerate(value):
        if primary is None or container.get("name") == primary:
            return container, f"{path}[{index}]"
    raise InvalidArgument(f"must hold a container named {primary!r} (primaryContainerName)", field=path)


def _environment(variables: Any, where: str) -> dict[str, str]:
    if not isinstance(variables, list):
        raise InvalidArgument("must be a list", field=where)
    found = {}
    for index, variable in enumerate(variables):
        path = f"{where}[{index}]"
        name = variable.get("name") if isinstance(variable, Mapping) else None
        if not isinstance(name, str) or not name or "=" in name:
            raise InvalidArgument("must be an object with a name that has no '='", field=path)
        if variable.get("valueFrom") is not None:
            raise FailedPrecondition(f"{path}.valueFrom needs the Kubernetes backend")
        value = variable.get("value", "")
        if not isinstance(value, str):
            raise InvalidArgument("must be a string", field=f"{path}.value")
        _check_text(name, f"{path}.name")
        _check_text(value, f"{path}.value")
        found[name] = value
    return found


def _check_text(text: str, field: str) -> None:
    if "\0" in text:
        raise InvalidArgument("must not hold NUL characters: no process can be given one", field=field)


def _references(items: Any, parameters: Sequence[str], where: str) -> dict[str, str]:
    if not isinstance(items, list):
        raise InvalidArgument("must be a list", field=where)
    found: dict[str, str] = {}
    for index, item in enumerate(items):
        path = f"{where}[{index}]"
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str) or not item["name"]:
            raise InvalidArgument("must be an object with a name", field=path)
        reference = item.get("reference")
        if reference not in parameters and not (isinstance(reference, str) and _META.fullmatch(reference)):
            raise InvalidArgument(
                f"must be a parameter of the experiment or ${{trialSpec.Name}}, got {reference!r}",
                field=f"{path}.reference",
            )
        if item["name"] in found:
            raise InvalidArgument(f"{item['name']!r} is there twice", field=f"{path}.name")
        found[item["name"]] = str(reference)
    return found
