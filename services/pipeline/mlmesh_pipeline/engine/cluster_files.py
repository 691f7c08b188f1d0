"""Secrets and config maps on one machine: files `DATA_DIR/secrets/NAMESPACE/NAME/KEY` and `DATA_DIR/configmaps/...`."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlmesh_pipeline.ir.cluster_names import Source, sources, volumes

MAX_BYTES = 1 << 20
"""Of one value; that of Kubernetes for a whole secret."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,253}")
_FOLDERS = {"secret": "secrets", "config map": "configmaps"}


class NotThere(ValueError):
    """A secret or config map is not there; the message says where it is looked for. It never holds a value."""


def variables(
    config: Mapping[str, Any], root: Path, namespace: str, value_of: Callable[[Source], Any]
) -> dict[str, str]:
    """Gives the environment variables that come from secrets and config maps.

    Args:
        config: Platform configuration of the executor (kfp-kubernetes).
        root: The data directory.
        namespace: Of the run.
        value_of: Gives the names that are inputs or outputs; None where there is no value.

    Raises:
        NotThere: One is not there, and is not optional; or a name is none. Or one that is there would be a volume.
    """
    found = {}
    for source in volumes(config):
        name = source.name or value_of(source)
        if name is not None and (not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name):
            raise NotThere(f"{name!r} is no name of a {source.kind}")
        if not source.optional or (name and (root / _FOLDERS[source.kind] / namespace / name).exists()):
            raise NotThere(f"the {source.kind} {name!r} as a volume needs the backend argo")
    for source in sources(config):
        name = source.name or value_of(source)
        if name is None and source.optional:
            continue
        if not isinstance(name, str) or not all(_NAME.fullmatch(one) and ".." not in one for one in (name, namespace)):
            raise NotThere(f"{name!r} is no name of a {source.kind}")
        if not _KEY.fullmatch(source.key) or source.key in {".", ".."}:
            raise NotThere(f"{source.key!r} is no key of a {source.kind}")
        place = Path(_FOLDERS[source.kind], namespace, name, source.key)
        value = _read(root / place)
        if value is not None:
            found[source.variable] = value
        elif not source.optional:
            message = f"there is no {source.kind} {name!r} with the key {source.key!r}: put it into DATA_DIR/{place}"
            raise NotThere(message)
    return found


def _read(path: Path) -> str | None:
    """Reads a value; the newline at its end that editors and `echo` leave is not part of it."""
    try:
        if path.is_symlink() or path.stat().st_size > MAX_BYTES:
            return None
        return path.read_text().removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        return None
