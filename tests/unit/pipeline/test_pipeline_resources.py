"""Quantities, what containers ask for, and who gets it first."""

import asyncio
import contextlib
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kfp.pipeline_spec import pipeline_spec_pb2
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_kit.quantity import BadQuantity, format_bytes, parse_bytes, parse_quantity
from mlmesh_pipeline.engine.capacity import Capacity
from mlmesh_pipeline.ir.container_resources import BadResources, Machine, Resources, check_resources, resources_of

ResourceSpec = pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec
MACHINE = Machine(4000, 8 << 30)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"), ("500m", "0.5"), ("2", "2"), ("1.5", "1.5"), (".5", "0.5"), ("64M", "64e6"), ("1k", "1000"),
        ("1.5Gi", "1610612736"), ("2Ki", "2048"), ("3Ei", str(3 << 60)), ("1e3", "1000"), ("5E-1", "0.5"),
        ("7E", "7e18"), (" 1G ", "1e9"),
    ],
)  # fmt: skip
def test_quantities(text: str, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1.2.3", "1Q", "1gi", "1 Gi", "Gi", "inf", "nan", "1e999", "9Ei", "9" * 30, "0x10", "1_0", "١"],
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(BadQuantity):
        parse_quantity(text)


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    with contextlib.suppress(BadQuantity):
        assert 0 <= parse_quantity(text) < 2**63


@given(st.integers(0, 2**62))
def test_bytes_written_for_people_are_within_a_tenth(count: int) -> None:
    assert abs(parse_bytes(format_bytes(count)) - count) <= count / 10


def spec(**fields: Any) -> Any:
    return ResourceSpec(**fields)


def test_both_spellings() -> None:
    numbers = spec(cpu_request=0.5, cpu_limit=1, memory_request=0.064, memory_limit=1.073741824)
    text = spec(
        resource_cpu_request="500m", resource_cpu_limit="1", resource_memory_request="64M", resource_memory_limit="1Gi"
    )
    expected = Resources(500, 1000, 64_000_000, 1 << 30)
    assert resources_of(numbers, {}, {}) == resources_of(text, {}, {}) == expected
    assert resources_of(spec(cpu_limit=4, resource_cpu_limit="2"), {}, {}).cpu_limit == 2000, "the text counts"
    assert resources_of(spec(), {}, {}) == Resources()


def test_placeholders_are_filled_in() -> None:
    asked = spec(
        resource_memory_limit="{{$.inputs.parameters['m']}}", resource_cpu_request="{{$.inputs.parameters['c']}}"
    )
    assert resources_of(asked, {"m": "2Gi", "c": 2.0}, {}) == Resources(cpu_request=2000, memory_limit=2 << 30)
    assert resources_of(asked, {"m": "", "c": 0.25}, {}) == Resources(cpu_request=250)
    with pytest.raises(BadResources, match=r"^resourceMemoryLimit: 'lots' is not a quantity"):
        resources_of(asked, {"m": "lots", "c": 1}, {})
    with pytest.raises(BadResources, match=r"^resourceCpuRequest: "):
        resources_of(asked, {"m": "1Gi"}, {})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"resource_cpu_limit": "much"}, "x.resourceCpuLimit"),
        ({"resource_memory_request": "-1Gi"}, "x.resourceMemoryRequest"),
        ({"memory_limit": float("nan")}, "x.memoryLimit"),
        ({"cpu_request": -1}, "x.cpuRequest"),
        ({"cpu_request": 2, "cpu_limit": 1}, "x.cpuRequest"),
        ({"resource_memory_request": "2Gi", "resource_memory_limit": "1Gi"}, "x.resourceMemoryRequest"),
        ({"resource_cpu_limit": "{{$.nothing}}"}, "x.resourceCpuLimit"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_path(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_resources(spec(**fields), "x", MACHINE)
    assert caught.value.violations[0][0] == field


def test_more_than_the_machine_has_is_refused() -> None:
    with pytest.raises(
        FailedPrecondition, match=r"x.resourceCpuRequest: asks for 4.5 CPUs, and this machine has 4 CPUs"
    ):
        check_resources(spec(resource_cpu_request="4500m"), "x", MACHINE)
    with pytest.raises(
        FailedPrecondition, match=r"x.memoryRequest: asks for 9.3Gi of memory, and this machine has 8Gi"
    ):
        check_resources(spec(memory_request=10), "x", MACHINE)
    check_resources(spec(resource_cpu_limit="64", resource_memory_limit="1Ti"), "x", MACHINE)  # a limit is no request
    check_resources(spec(resource_cpu_request="{{$.inputs.parameters['x']}}"), "x", MACHINE)


class Held:
    """Attempts that hold what they need until they are told to end."""

    def __init__(self, slots: int) -> None:
        self.capacity = Capacity(slots, MACHINE)
        self.running: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def add(self, name: str, cpus: float = 0, memory: int = 0) -> None:
        need = self.capacity.need(Resources(cpu_request=int(cpus * 1000), memory_request=memory << 30))
        end = self._ends[name] = asyncio.Event()

        async def hold() -> None:
            async with self.capacity.taken(need):
                self.running.append(name)
                try:
                    await end.wait()
                finally:
                    self.running.remove(name)

        self._tasks[name] = asyncio.create_task(hold())
        await self.settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self.settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


def test_tasks_that_ask_nothing_take_slots() -> None:
    async def use() -> None:
        held = Held(2)
        for name in "abc":
            await held.add(name)
        assert held.running == ["a", "b"]
        await held.add("cpu", cpus=1)
        assert held.running == ["a", "b", "cpu"], "who asks for CPUs takes no slot"
        await held.cancel("c")
        await held.end("a")
        await held.add("d")
        assert held.running == ["b", "cpu", "d"]

    asyncio.run(use())


def test_a_large_task_is_not_starved() -> None:
    async def use() -> None:
        held = Held(2)
        await held.add("small", cpus=2)
        await held.add("large", cpus=4)
        await held.add("later", cpus=1)
        await held.add("other", memory=1)
        assert held.running == ["small", "other"], "who needs none of what the large one is short of goes ahead"
        await held.end("small")
        assert held.running == ["other", "large"]
        await held.end("large")
        assert held.running == ["other", "later"]

    asyncio.run(use())


def test_who_gives_up_waiting_lets_the_others_go() -> None:
    async def use() -> None:
        held = Held(2)
        await held.add("one", cpus=3)
        await held.add("large", cpus=4)
        await held.add("later", cpus=1)
        assert held.running == ["one"]
        await held.cancel("large")
        assert held.running == ["one", "later"]
        await held.cancel("one")
        await held.add("all", cpus=4)
        await held.end("later")
        assert held.running == ["all"]

    asyncio.run(use())


def test_more_than_there_is_is_never_waited_for() -> None:
    capacity = Capacity(1, MACHINE)
    with pytest.raises(BadResources, match="asks for 5 CPUs"):
        capacity.need(Resources(cpu_request=5000))
    assert capacity.need(Resources(cpu_limit=64_000, memory_limit=1 << 50)).amounts() == (0, 4000, 8 << 30)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 0, 0.05, 1, 3, 4]), st.integers(0, 8), st.booleans()), min_size=1, max_size=25
    )
)
def test_whatever_is_asked_for_everybody_gets_it_and_never_more_than_there_is(
    asked: list[tuple[float, int, bool]],
) -> None:
    async def use() -> None:
        capacity = Capacity(2, MACHINE)
        taken, done = [0, 0, 0], 0

        async def one(cpus: float, memory: int) -> None:
            nonlocal done
            need = capacity.need(Resources(cpu_request=int(cpus * 1000), memory_request=memory << 30))
            async with capacity.taken(need):
                for number, amount in enumerate(need.amounts()):
                    taken[number] += amount
                assert taken[0] <= 2 and taken[1] <= MACHINE.millicpus and taken[2] <= MACHINE.memory
                try:
                    await asyncio.sleep(0)
                finally:
                    for number, amount in enumerate(need.amounts()):
                        taken[number] -= amount
            done += 1

        tasks = [(asyncio.create_task(one(cpus, memory)), give_up) for cpus, memory, give_up in asked]
        await asyncio.sleep(0)
        cancelled = sum(task.cancel() for task, give_up in tasks if give_up)
        async with asyncio.timeout(5):
            await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert done + cancelled >= len(tasks) and taken[0] >= 0
        async with asyncio.timeout(5), capacity.taken(capacity.need(Resources(4000, 0, 8 << 30, 0))):
            pass

    asyncio.run(use())
