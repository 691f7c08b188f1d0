"""A container's `resources.limits`, for a trial that is a process of this machine."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.launch import Limits
from mlmesh_kit.quantity import BadQuantity, parse_quantity

_PLACEHOLDER = "${trial"


def read_limits(container: Mapping[str, Any], where: str) -> Mapping[str, float]:
    """Reads `cpu` and `memory`; what else a node may have (accelerators, storage) is not looked at.

    Args:
        container: Of the Job's template; a quantity that a trial's parameter gives is read when that is filled in.
        where: Path of the container, for errors.

    Returns:
        Processors and bytes, of those that are limited.

    Raises:
        InvalidArgument: One is no quantity, or zero.
    """
    resources = container.get("resources") or {}
    given = resources.get("limits") or {} if isinstance(resources, Mapping) else None
    if not isinstance(given, Mapping):
        raise InvalidArgument("must be an object", field=f"{where}.resources.limits")
    found = {}
    for name in ("cpu", "memory"):
        value = given.get(name)
        if value is None or (isinstance(value, str) and _PLACEHOLDER in value):
            continue
        field = f"{where}.resources.limits.{name}"
        try:
            amount = float(parse_quantity(f"{value:.9f}" if isinstance(value, float) else str(value)))
        except BadQuantity as error:
            raise InvalidArgument(str(error), field=field) from error
        if not amount:
            raise InvalidArgument("must be above 0", field=field)
        found[name] = amount
    return found


def limited(limits: Limits, asked: Mapping[str, float]) -> Limits:
    """Gives the limits of one trial.

    Args:
        limits: Of all trials; theirs is the smaller of the two.
        asked: See `read_limits`. Processors are whole ones here: a part of one counts as one.
    """
    memory = [amount for amount in (limits.memory_bytes, math.ceil(asked.get("memory", 0))) if amount]
    return replace(limits, memory_bytes=min(memory, default=0), cpus=math.ceil(asked.get("cpu", 0)))
