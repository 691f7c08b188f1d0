"""The parts of a `metricsCollectorSpec.source` that kinds share."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.collectors.files import inner_path
from mlmesh_katib.collectors.text import MAX_FILTERS, check_filter


def read_object(value: Any, field: str) -> Mapping[str, Any]:
    """Gives an object; an empty one for what is not there.

    Raises:
        InvalidArgument: It is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidArgument("must be an object", field=field)
    return value


def read_filters(source: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Gives the expressions of `filter.metricsFormat`; none: Katib's default is meant.

    Args:
        source: The `source`.
        where: Its path, for errors.

    Raises:
        InvalidArgument: They are no expressions with two groups, or too many.
    """
    path = f"{where}.filter.metricsFormat"
    formats = read_object(source.get("filter"), f"{where}.filter").get("metricsFormat") or []
    if not isinstance(formats, list):
        raise InvalidArgument("must be a list", field=path)
    if len(formats) > MAX_FILTERS:
        raise InvalidArgument(f"must hold at most {MAX_FILTERS} expressions", field=path)
    for index, expression in enumerate(formats):
        if not isinstance(expression, str) or not expression:
            raise InvalidArgument("must be a non-empty string", field=f"{path}[{index}]")
        check_filter(expression, f"{path}[{index}]")
    return tuple(formats)


def read_path(source: Mapping[str, Any], where: str, *, kind: str, default: str) -> tuple[PurePosixPath, str]:
    """Gives where a trial writes, and in which format.

    Args:
        source: The `source`.
        where: Its path, for errors.
        kind: What `fileSystemPath.kind` has to be: File or Directory.
        default: The path where none is given.

    Returns:
        The path below the trial's working directory (an absolute path is mapped into it), `format` as it was given.

    Raises:
        InvalidArgument: It is another kind, or leads out.
    """
    path = f"{where}.fileSystemPath"
    given = read_object(source.get("fileSystemPath"), path)
    if (given.get("kind") or kind) != kind:
        raise InvalidArgument(f"must be {kind}", field=f"{path}.kind")
    text = given.get("path") or default
    if not isinstance(text, str):
        raise InvalidArgument("must be a string", field=f"{path}.path")
    form = given.get("format") or ""
    if not isinstance(form, str):
        raise InvalidArgument("must be a string", field=f"{path}.format")
    try:
        return inner_path(text), form
    except ValueError as error:
        raise InvalidArgument(str(error), field=f"{path}.path") from error
