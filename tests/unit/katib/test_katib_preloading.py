"""The algorithms' libraries are loaded behind the service's start, not before it."""

import subprocess
import sys

CODE = """
import asyncio, sys, threading
from mlmesh_katib.preloading import algorithms_loaded
before = {"skopt", "cmaes", "scipy.stats"} & sys.modules.keys()
async def main():
    async with algorithms_loaded():
        await asyncio.to_thread(lambda: [t.join() for t in threading.enumerate() if t.name == "load algorithms"])
asyncio.run(main())
print(sorted(before), sorted({"skopt", "cmaes", "scipy.stats"} & sys.modules.keys()))
"""


def test_libraries_come_after_the_start() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[] ['cmaes', 'scipy.stats', 'skopt']"
