"""Runs the benchmarks that are named, or all of them."""

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Runs each benchmark module in turn; its output is its table."""
    known = sorted(p.stem.removeprefix("bench_") for p in HERE.glob("bench_*.py"))
    wanted = sys.argv[1:] or known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    for name in wanted:
        print(f"\n== {name} ==")
        sys.argv = [f"bench_{name}"]
        runpy.run_module(f"bench.bench_{name}", run_name="__main__")
    return 0


raise SystemExit(main())
