"""Finds metrics in a trial's log, in a process of its own where that may take long.

Expressions come from users, and Python's `re` holds the interpreter while it matches: one that backtracks for hours
would stop the whole service. `python -m mlmesh_katib.collector` is that process.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mlmesh_katib.objective import parse_log

MAX_LOG_BYTES = 64 << 20
_INLINE_BYTES = 64 << 10


class CollectionTimeout(Exception):
    """The expressions took too long."""


def collect(log: Path, metrics: Sequence[str], filters: Sequence[str], timeout_seconds: float) -> list[tuple[str, str]]:
    """Finds the metrics in a log. Blocks.

    Args:
        log: The file; only its first MAX_LOG_BYTES are looked at. A missing one has no metrics.
        metrics: The names that count.
        filters: See `parse_log`.
        timeout_seconds: Longest time.

    Returns:
        See `parse_log`.

    Raises:
        CollectionTimeout: It took longer.
    """
    if not log.is_file():
        return []
    if not filters and log.stat().st_size <= _INLINE_BYTES:
        return _parse(log, metrics, filters)
    request = {"log": str(log), "metrics": list(metrics), "filters": list(filters), "seconds": timeout_seconds}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "mlmesh_katib.collector"],
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            timeout=timeout_seconds,
            check=True,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        raise CollectionTimeout(f"the expressions took longer than {timeout_seconds:g} s on its log") from error
    return [(name, value) for name, value in json.loads(done.stdout)]


def _parse(log: Path, metrics: Sequence[str], filters: Sequence[str]) -> list[tuple[str, str]]:
    with log.open("rb") as stream:
        text = stream.read(MAX_LOG_BYTES).decode("utf-8", "replace")
    return parse_log(text.splitlines(), metrics, filters)


def _main() -> None:
    import resource

    request = json.load(sys.stdin)
    # Should the service be killed meanwhile, the system ends this process, whatever `re` is doing.
    seconds = int(request["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    json.dump(_parse(Path(request["log"]), request["metrics"], request["filters"]), sys.stdout)


if __name__ == "__main__":
    _main()
