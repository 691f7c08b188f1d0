"""What a container asks for and may take: CPUs and memory, in both spellings of the IR.

Older SDKs write numbers (`cpuLimit: 0.5`, `memoryLimit: 0.064`, in units of 10^9 bytes), newer ones quantities
as text beside them (`resourceMemoryLimit: 64M`), which may be placeholders, and then stand alone. The text counts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_kit.quantity import BadQuantity, format_bytes, parse_quantity

from mlmesh_pipeline.ir.placeholders import UnknownPlaceholder, names_in, resolve
from mlmesh_pipeline.ir.values import whole

_GIGA = Decimal(10**9)


class BadResources(ValueError):
    """What a container asks for makes no sense, or is not to be had; the message names the field."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to be had.

    Attributes:
        millicpus: Thousandths of a CPU.
        memory: Bytes.
    """

    millicpus: int
    memory: int


UNBOUNDED = Machine(1 << 62, 1 << 62)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a container asks for and may take; 0: not said.

    Attributes:
        cpu_request, cpu_limit: Thousandths of a CPU.
        memory_request, memory_limit: Bytes.
    """

    cpu_request: int = 0
    cpu_limit: int = 0
    memory_request: int = 0
    memory_limit: int = 0

    def counted_cpus(self, machine: Machine) -> int:
        """Thousandths of a CPU to set aside: the request, or else the limit, though not more than there is.

        Raises:
            BadResources: The request is more than there is.
        """
        if self.cpu_request > machine.millicpus:
            raise BadResources(f"asks for {_cpus(self.cpu_request)}, and this machine has {_cpus(machine.millicpus)}")
        return self.cpu_request or min(self.cpu_limit, machine.millicpus)

    def counted_memory(self, machine: Machine) -> int:
        """Bytes to set aside: the request, or else the limit, though not more than there is.

        Raises:
            BadResources: The request is more than there is.
        """
        if self.memory_request > machine.memory:
            asked, there = format_bytes(self.memory_request), format_bytes(machine.memory)
            raise BadResources(f"asks for {asked} of memory, and this machine has {there}")
        return self.memory_request or min(self.memory_limit, machine.memory)


def resources_of(spec: Any, parameters: Mapping[str, Any], context: Mapping[str, str]) -> Resources:
    """Reads what a container asks for.

    Args:
        spec: ResourceSpec.
        parameters: Values of the task's inputs.
        context: Values of placeholders such as `pipeline_job_name`.

    Raises:
        BadResources: A value is no quantity, a placeholder has no value, or a request is more than its limit.
    """
    values: dict[str, Decimal] = {}
    for kind in ("cpu_request", "cpu_limit", "memory_request", "memory_limit"):
        text = getattr(spec, f"resource_{kind}")
        try:
            values[kind] = _of_text(text, parameters, context) if text else _of_number(getattr(spec, kind), kind)
        except (BadQuantity, UnknownPlaceholder) as error:
            raise BadResources(f"{_field(spec, kind)}: {error}") from error
    for kind in ("cpu", "memory"):
        request, limit = values[f"{kind}_request"], values[f"{kind}_limit"]
        if 0 < limit < request:
            raise BadResources(f"{_field(spec, f'{kind}_request')}: must not be more than the limit")
    return Resources(
        cpu_request=math.ceil(values["cpu_request"] * 1000),
        cpu_limit=math.ceil(values["cpu_limit"] * 1000),
        memory_request=math.ceil(values["memory_request"]),
        memory_limit=math.ceil(values["memory_limit"]),
    )


def check_resources(spec: Any, path: str, machine: Machine) -> None:
    """Checks what can be known before a run: quantities that are no placeholders, and the names of placeholders.

    Args:
        spec: ResourceSpec.
        path: Its path, for messages.
        machine: Where it is to run.

    Raises:
        InvalidArgument: A value is no quantity, or a request is more than its limit.
        FailedPrecondition: A request is more than the machine has.
    """
    known = type(spec)()
    known.CopyFrom(spec)
    for kind in ("cpu_request", "cpu_limit", "memory_request", "memory_limit"):
        text = getattr(spec, f"resource_{kind}")
        if "{{" in text:
            if unknown := names_in(text)[1]:
                raise InvalidArgument(f"unknown placeholder {min(unknown)}", field=f"{path}.{_field(spec, kind)}")
            known.ClearField(f"resource_{kind}")
            known.ClearField(kind)
    try:
        resources = resources_of(known, {}, {})
    except BadResources as error:
        field, _, words = str(error).partition(": ")
        raise InvalidArgument(words, field=f"{path}.{field}") from error
    try:
        resources.counted_cpus(machine)
    except BadResources as error:
        raise FailedPrecondition(f"{path}.{_field(spec, 'cpu_request')}: {error}") from error
    try:
        resources.counted_memory(machine)
    except BadResources as error:
        raise FailedPrecondition(f"{path}.{_field(spec, 'memory_request')}: {error}") from error


def _of_text(text: str, parameters: Mapping[str, Any], context: Mapping[str, str]) -> Decimal:
    value = resolve(text, parameters, context)
    if value is None or value == "":  # an optional parameter that was not given
        return Decimal(0)
    return parse_quantity(str(whole(value)))


def _of_number(value: float, kind: str) -> Decimal:
    if not 0 <= value < 10**9:
        raise BadQuantity(f"{value} is not a number of {'CPUs' if kind.startswith('cpu') else '10^9 bytes'}")
    return Decimal(repr(value)) * (_GIGA if kind.startswith("memory") else 1)


def _field(spec: Any, kind: str) -> str:
    """Name of the field that counts, as the IR has it."""
    first, *rest = (f"resource_{kind}" if getattr(spec, f"resource_{kind}") else kind).split("_")
    return first + "".join(word.title() for word in rest)


def _cpus(millicpus: int) -> str:
    return f"{millicpus / 1000:g} CPU{'' if millicpus == 1000 else 's'}"
