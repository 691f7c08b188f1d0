"""When a trial's resource has succeeded or failed: Katib's `successCondition` and `failureCondition`.

Each is a path in GJSON's syntax (https://github.com/tidwall/gjson/blob/master/SYNTAX.md) over the resource; it holds
if it gives an object, or a list that is not empty.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.jobs.base import Ended

MAX_LENGTH = 1000
MAX_WILDCARDS = 2
_COMPLETE = 'status.conditions.#(type=="Complete")#|#(status=="True")#'
_SUCCEEDED = 'status.conditions.#(type=="Succeeded")#|#(status=="True")#'
_FAILED = 'status.conditions.#(type=="Failed")#|#(status=="True")#'
DEFAULTS: Mapping[str, tuple[str, str]] = {
    "Job": (_COMPLETE, _FAILED),
    "TrainJob": (_COMPLETE, _FAILED),
    "TFJob": (_SUCCEEDED, _FAILED),
    "PyTorchJob": (_SUCCEEDED, _FAILED),
    "XGBoostJob": (_SUCCEEDED, _FAILED),
    "MPIJob": (_SUCCEEDED, _FAILED),
    "MXJob": (_SUCCEEDED, _FAILED),  # which earlier releases of Katib have
    "PaddleJob": (_SUCCEEDED, _FAILED),
    "JAXJob": (_SUCCEEDED, _FAILED),  # Katib has none for it, and it says its state as those above do
}
"""Success and failure by the kind of the resource, as Katib has them."""
_WILDCARDS_ONLY = re.compile(r"[^()\[\]{}+|\\^$]*")


@dataclass(frozen=True, slots=True)
class Conditions:
    """When a resource has ended, and how.

    Attributes:
        success: Path that holds when it has succeeded.
        failure: Path that holds when it has failed; looked at first, as Katib does.
    """

    success: str
    failure: str

    def ended(self, resource: Mapping[str, Any]) -> Ended | None:
        """Says how a resource has ended; None: it has not.

        Args:
            resource: As the cluster gives it.
        """
        for path, ok in ((self.failure, False), (self.success, True)):
            found = _first(resource, path)
            if found is not None:
                words = [str(found[key]) for key in ("reason", "message") if found.get(key)]
                return Ended(ok=ok, message=": ".join(words)[:1000])
        return None


def parse_conditions(kind: str, success: Any, failure: Any, where: str) -> Conditions:
    """Checks the conditions of a trial template, and gives Katib's defaults for those that are not there.

    Args:
        kind: Of the resource.
        success: `successCondition`; None or empty: not given.
        failure: `failureCondition`; the same.
        where: Path of the trial template, for errors.

    Raises:
        InvalidArgument: It is no GJSON path, or the kind has no default.
    """
    defaults = DEFAULTS.get(kind, ("", ""))
    found = []
    for field, given, default in zip(
        ("successCondition", "failureCondition"), (success, failure), defaults, strict=True
    ):
        path = default if given is None or given == "" else given
        if path == "":
            raise InvalidArgument(f"must be given: {kind} has no default", field=f"{where}.{field}")
        problem = _problem(path)
        if problem:
            raise InvalidArgument(f"must be a GJSON path: {problem}", field=f"{where}.{field}")
        found.append(path)
    return Conditions(*found)


def _first(resource: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """Gives what a path finds, or the first of it; {} for what is no object; None if it does not hold."""
    import gjson

    try:
        found = gjson.get(dict(resource), path)
    except (gjson.GJSONError, ValueError, TypeError, LookupError, RecursionError):  # nothing there yet, or not so
        return None
    if isinstance(found, list):
        if not found:
            return None
        return found[0] if isinstance(found[0], Mapping) else {}
    return found if isinstance(found, Mapping) else None


def _problem(path: Any) -> str:
    """Says what is wrong with a path; "" if nothing is."""
    import gjson

    if not isinstance(path, str):
        return "it must be a string"
    if len(path) > MAX_LENGTH:
        return f"at most {MAX_LENGTH} characters"
    if path.count("*") > MAX_WILDCARDS:  # a text can be made on which each more takes that much longer
        return f"at most {MAX_WILDCARDS} wildcards *"
    try:  # parsed alone: evaluating it would call a key that is not there yet a mistake too
        parts = gjson.GJSONObj({}, path)._parse(start=0, end=len(path) - 1)
        return next(filter(None, map(_problem_of_part, parts)), "")
    except gjson.GJSONError as error:
        return str(error.args[0])
    except (ValueError, LookupError, RecursionError):
        return "it cannot be read"


def _problem_of_part(part: Any) -> str:
    """Says what the library would find only when it comes to a part, or what may take it for ever; "": nothing."""
    import gjson

    kind = type(part).__name__
    if kind == "ModifierQueryPart" and part.name not in gjson.GJSONObj.builtin_modifiers():
        return f"there is no modifier @{part.name}"
    if kind == "MultipathsArrayQueryPart":
        return next(filter(None, (_problem_of_part(one) for parts in part.parts for one in parts)), "")
    if kind == "MultipathsObjectQueryPart":
        return next(filter(None, (_problem_of_part(one) for item in part.parts for one in item.values)), "")
    if kind == "ArrayQueryQueryPart":
        if not isinstance(part.value, str):
            return _problem_of_part(part.value)
        if part.operator and not part.operator.endswith("~"):
            value = _json(part.value)
            if value is None:
                return f"{part.value} must be a number, true, false, or text in double quotes"
            if part.operator.endswith("%") and not _WILDCARDS_ONLY.fullmatch(str(value)):
                return "a pattern has only the wildcards * and ?"
    return ""


def _json(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return None
