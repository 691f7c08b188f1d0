"""What bench_pipeline runs. `python pipeline_loads.py NAME` runs one by KFP's own local runner; prints seconds."""

import sys
import tempfile
import time

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

MEGABYTES = 100


@dsl.component
def step(number: int) -> int:
    return number + 1


@dsl.component
def write(megabytes: int, data: Output[Dataset]):
    with open(data.path, "wb") as file:
        for _ in range(megabytes):
            file.write(bytes(1 << 20))


@dsl.component
def copy(source: Input[Dataset], target: Output[Dataset]):
    import shutil

    shutil.copyfile(source.path, target.path)


@dsl.component
def compare(left: Input[Dataset], right: Input[Dataset]) -> int:
    import os

    return os.path.getsize(left.path) - os.path.getsize(right.path)


@dsl.pipeline(name="one")
def one(number: int = 0):
    step(number=number)


@dsl.pipeline(name="chain")
def chain(number: int = 0):
    last = step(number=number)
    for _ in range(9):
        last = step(number=last.output)


def fan_out(width: int):
    """Makes a pipeline with a ParallelFor of so many iterations."""

    @dsl.pipeline(name=f"fan-out-{width}")
    def fan(number: int = 0):
        with dsl.ParallelFor(list(range(width))) as item:
            step(number=item)

    return fan


@dsl.pipeline(name="diamond")
def diamond(number: int = 0):
    top = write(megabytes=MEGABYTES)
    left, right = copy(source=top.outputs["data"]), copy(source=top.outputs["data"])
    compare(left=left.outputs["target"], right=right.outputs["target"])


LOADS = {
    "one task": one,
    "chain of 10": chain,
    "20-way ParallelFor": fan_out(20),
    "200-way ParallelFor": fan_out(200),
    f"diamond, {MEGABYTES} MB artifacts": diamond,
}


def main() -> None:
    from kfp import local

    with tempfile.TemporaryDirectory() as folder:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=folder)
        before = time.perf_counter()
        LOADS[sys.argv[1]]()
        print(f"\nseconds: {time.perf_counter() - before}")


if __name__ == "__main__":
    main()
