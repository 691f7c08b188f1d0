"""Our tuning algorithms beside Optuna's, scikit-optimize's and random search: regret, and time for a suggestion.

`make bench-katib`. Every optimiser is a process of its own with one thread, has the same seeds and is asked for one
trial after another. Regret is how far the best of the trials is from the best value there is (its logarithm to base 10
where the table says so); the two real models tell their loss instead. p is of a two-sided Mann-Whitney test between
the default algorithm and the others. ms is the median time of the last ten suggestions, asking and telling together.
Functions marked with * were not looked at while our optimiser was built.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlmesh_katib.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from scipy.stats import mannwhitneyu

from bench.tuning_functions import FUNCTIONS, Function

ROOT = Path(__file__).parent.parent
PEERS = ("random", "optuna-tpe", "optuna-cmaes", "optuna-gp", "skopt-gp")
OURS = f"mlmesh-{DEFAULT_ALGORITHM}"
ENVIRONMENT = ROOT / ".venvs" / "tuning" / "bin" / "python"
SIGNIFICANT = 0.05
MANY = 500
Line = dict[str, Any]


def run(optimiser: str, function: str, told: int, trials: int, seeds: Iterable[int]) -> list[Line]:
    """Runs one optimiser on one function in a process of its own; gives a line for each seed."""
    python = sys.executable if optimiser.startswith("mlmesh-") else str(ENVIRONMENT)
    arguments = [optimiser, function, str(told), str(trials), *map(str, seeds)]
    done = subprocess.run(
        [python, "-m", "bench.tuning_optimisers", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


class Results:
    """Runs of optimisers; what peers did is kept in a file, if there is one, and not run again.

    Args:
        kept: The file.
        seeds: Of each function.
        trials: Of each seed.
    """

    def __init__(self, kept: Path | None, seeds: Sequence[int], trials: int) -> None:
        self._kept, self._seeds, self._trials = kept, seeds, trials
        self._known: dict[tuple[str, str, int], Line] = {}
        if kept and kept.exists():
            for text in kept.read_text().splitlines():
                line = json.loads(text)
                if len(line["losses"]) == trials:
                    self._known[line["optimiser"], line["function"], line["seed"]] = line

    def of(self, optimiser: str, function: str) -> list[Line]:
        """Gives a line for each seed."""
        missing = [seed for seed in self._seeds if (optimiser, function, seed) not in self._known]
        for line in run(optimiser, function, 0, self._trials, missing) if missing else ():
            self._known[optimiser, function, line["seed"]] = line
            if self._kept and optimiser in PEERS:
                with self._kept.open("a") as file:
                    file.write(json.dumps(line) + "\n")
        return [self._known[optimiser, function, seed] for seed in self._seeds]


def regret(function: Function, line: Line) -> float:
    """Gives how far the best of a run's trials is from the best value there is."""
    distance = float(min(line["losses"])) - function.best
    return math.log10(max(distance, 1e-12)) if function.log else distance


def milliseconds(lines: Iterable[Line]) -> float:
    """Gives the median time of the last ten suggestions."""
    return statistics.median(took * 1e3 for line in lines for took in line["seconds"][-10:])


def compare(function: Function, optimisers: Sequence[str], results: Results) -> str:
    """Prints the table of a function; gives how the default algorithm compares with the best of the others."""
    marks = ("*" if function.unseen else "") + (" (log10)" if function.log else "")
    print(f"\n{function.name}{marks}")
    regrets: dict[str, list[float]] = {}
    for optimiser in optimisers:
        lines = results.of(optimiser, function.name)
        regrets[optimiser] = [regret(function, line) for line in lines]
        low, middle, high = statistics.quantiles(regrets[optimiser], n=4, method="inclusive")
        row = f"  {optimiser:26} {middle:10.4f}  [{low:9.4f} {high:9.4f}] {milliseconds(lines):8.1f} ms"
        if OURS in regrets and optimiser != OURS:
            row += f"   p {mannwhitneyu(regrets[OURS], regrets[optimiser]).pvalue:.3f}"
        print(row, flush=True)
    others = {name: statistics.median(found) for name, found in regrets.items() if name in PEERS}
    if OURS not in regrets or not others:
        return ""
    best = min(others, key=others.__getitem__)
    ours = statistics.median(regrets[OURS])
    if mannwhitneyu(regrets[OURS], regrets[best]).pvalue >= SIGNIFICANT:
        return f"{function.name}: as good as {best} within the noise ({ours:.4f}, {others[best]:.4f})"
    verdict = "better" if ours < others[best] else "WORSE"
    return f"{function.name}: {verdict} than {best} ({ours:.4f}, {others[best]:.4f})"


def main() -> None:
    """Prints a table for each function, how we compare, and times with many observations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--functions", nargs="+", choices=FUNCTIONS, default=list(FUNCTIONS), metavar="NAME")
    ours = [f"mlmesh-{name}" for name in ALGORITHMS]
    parser.add_argument(
        "--optimisers",
        nargs="+",
        choices=[*ours, *PEERS],
        default=[OURS, "mlmesh-multivariate-tpe", *PEERS],
        metavar="NAME",
    )
    parser.add_argument("--seeds", type=int, default=8, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--keep", type=Path, help="file of the peers' runs: those in it are not run again")
    options = parser.parse_args()
    if any(name in PEERS for name in options.optimisers) and not ENVIRONMENT.exists():
        raise SystemExit("the peers are not installed: make .venvs/tuning/.installed")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    results = Results(options.keep, seeds, options.trials)
    print(f"regret after {options.trials} trials, {options.seeds} seeds: median [quartiles], ms for a suggestion")
    verdicts = [compare(FUNCTIONS[name], options.optimisers, results) for name in options.functions]
    print("\n" + "\n".join(filter(None, verdicts)))
    if OURS in options.optimisers:
        print(f"\n{OURS} with {MANY} observations: ms for a suggestion")
        for name in options.functions:
            if not name.startswith(("svm", "boosting")):  # what is timed is the suggestion; their trials take long
                print(f"  {name:26} {milliseconds(run(OURS, name, MANY, 3, seeds[:1])):8.1f}", flush=True)


if __name__ == "__main__":
    main()
