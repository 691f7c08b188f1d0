"""The objective of `mlmesh.tune`: what can be taken by its source, and what a trial makes of it."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlmesh
import numpy as np
import pytest
from mlmesh import report as tell
from mlmesh import search
from mlmesh.tuning import runner
from mlmesh.tuning.objective import read_objective
from mlmesh.tuning.runner import read_values

OUTSIDE = 3


def self_contained(parameters: "np.ndarray") -> np.float64:  # annotations are not looked up
    import math

    class Model:
        def loss(self, x: float) -> float:
            return math.sqrt(x)

    def inner(x: float) -> float:
        return Model().loss(x) + sum(each for each in [1, 2])

    mlmesh.report(loss=inner(parameters["x"]))
    tell({"val-loss": 2})
    return self_contained.__name__ and 0.5


def uses_a_global(parameters):
    return OUTSIDE


def uses_a_module_of_its_file(parameters):
    def inner():
        return np.zeros(3)

    return inner()


@partial
def decorated_by_partial(parameters):
    return 1


def decorator(function):
    return function


@decorator
def decorated(parameters):
    return 1


def two_arguments(x, y):
    return x


async def waits(parameters):
    return 1


def generates(parameters):
    yield 1


def closure() -> Callable[[dict], float]:
    rate = 3

    def inner(parameters):
        return rate

    return inner


class Trainer:
    def train(self, parameters):
        return 1


def test_what_an_objective_needs_is_found() -> None:
    found = read_objective(self_contained)
    assert found.names == {"mlmesh": "mlmesh", "tell": "report"}
    assert found.source.startswith("def self_contained(")
    assert found.file == Path(__file__).name
    assert Path(__file__).read_text().splitlines()[found.line - 1].startswith("def self_contained(")

    def indented(parameters):
        return 1

    assert read_objective(indented).source == "def indented(parameters):\n    return 1\n"


@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        (lambda parameters: 1, TypeError, "lambda"),
        (Trainer().train, TypeError, r"Trainer\.train\(\) is a method"),
        (decorated_by_partial, TypeError, "must be a function, got partial"),
        (len, TypeError, "must be a function"),
        (Trainer, TypeError, "must be a function, got type"),
        (two_arguments, TypeError, r"one argument.*\(x, y\)"),
        (waits, TypeError, "async"),
        (generates, TypeError, "generator"),
        (closure(), ValueError, "uses rate of the function"),
        (uses_a_global, ValueError, r"uses_a_global\(\) uses OUTSIDE, which"),
        (uses_a_module_of_its_file, ValueError, "uses np, which"),
        (decorated, ValueError, "no decorators"),
    ],
)
def test_what_cannot_run_elsewhere_is_refused(function: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        read_objective(function)


def test_a_function_without_source_is_refused() -> None:
    names: dict[str, Any] = {}
    exec("def typed(parameters):\n    return 1", names)
    with pytest.raises(ValueError, match=r"source of typed\(\) cannot be had"):
        read_objective(names["typed"])


def trial(source: str, *texts: str, without_mlmesh: bool = False, **fields: Any) -> subprocess.CompletedProcess[str]:
    """Runs the program of a trial as a container would."""
    task = {
        "source": textwrap.dedent(source),
        "function": "f",
        "file": "my_objective.py",
        "line": 7,
        "names": {},
        "parameters": [],
        "fixed": {},
        "metric": "loss",
        **fields,
    }
    # Isolated and without site-packages: what an image with nothing but Python has.
    options = ["-I", "-S"] if without_mlmesh else []
    program = Path(runner.__file__).read_text()
    command = [sys.executable, *options, "-c", program, json.dumps(task), *texts]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_values_have_the_types_of_their_parameters() -> None:
    space = {
        "rate": search.double(0.1, 1),
        "layers": search.int(1, 5),
        "width": search.discrete([0.5, 16]),
        "flag": search.categorical([True, None, "None", 3, 0.5, "${trialParameters.rate}", ""]),
    }
    readers = [{"name": name, "kind": one.kind, "choices": one.choices} for name, one in space.items()]
    texts = ("0.25", "3", "16", "${trialParameters.rate}")
    code = """
        def f(parameters):
            print(repr(parameters))
            return {"loss": parameters["layers"], "other": 1}
    """
    done = trial(code, *texts, parameters=readers, fixed={"epochs": 2})
    assert done.returncode == 0, done.stderr
    shown, *told = done.stdout.splitlines()
    assert eval(shown) == {
        "epochs": 2,
        "rate": 0.25,
        "layers": 3,
        "width": 16,
        "flag": "${trialParameters.rate}",
    }
    assert told == [" loss=3.0", " other=1.0"]
    assert [read_values(readers, {"flag": text})["flag"] for text in ("true", "null", "None", "3", "0.5", "")] == [
        True,
        None,
        "None",
        3,
        0.5,
        "",
    ]
    assert read_values(readers[:3], {"rate": "", "layers": "1"}) == {"layers": 1}, "not active: not there"


def test_a_trial_reports_without_mlmesh_installed() -> None:
    code = """
        def f(parameters):
            import mlmesh as inside
            m.report(loss=0.5)
            told(loss=1)
            inside.report({"a|b-c": 2})
    """
    for bare in (True, False):
        done = trial(code, names={"m": "mlmesh", "told": "report"}, without_mlmesh=bare)
        assert (done.returncode, done.stdout) == (0, " loss=0.5\n loss=1.0\n a|b-c=2.0\n"), done.stderr


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [1]", "TypeError: the objective must return a number or a dict of metrics, got list"),
        ("return {'loss': 'good'}", "TypeError: metric 'loss' must be a number, got str"),
        ("return {'train loss': 1}", "ValueError: 'train loss' is no name of a metric"),
        ("raise KeyError('mine')", "KeyError: 'mine'"),
    ],
)
def test_what_goes_wrong_in_a_trial_is_said(body: str, said: str) -> None:
    done = trial(f"def f(parameters):\n    {body}\n")
    assert done.returncode == 1 and said in done.stderr.splitlines()[-1]
    if "mine" in said:  # the traceback shows the user's own file and line, and nothing else
        assert done.stderr.splitlines()[1:3] == ['  File "my_objective.py", line 8, in f', "    raise KeyError('mine')"]


def test_the_search_space_is_katibs() -> None:
    assert search.double(min=0.001, max=1, step=0.5, distribution="logUniform").manifest("x") == {
        "name": "x",
        "parameterType": "double",
        "feasibleSpace": {"min": "0.001", "max": "1", "step": "0.5", "distribution": "logUniform"},
    }
    assert search.int(np.int64(1), 4, active_when={"kind": ["a", True]}).manifest("n") == {
        "name": "n",
        "parameterType": "int",
        "feasibleSpace": {"min": "1", "max": "4"},
        "activeWhen": {"parameter": "kind", "values": ["a", "true"]},
    }
    assert search.categorical(["a", False, None, 2]).manifest("c")["feasibleSpace"] == {
        "list": ["a", "false", "null", "2"]
    }
    with pytest.raises(ValueError, match="differ as texts"):
        search.categorical([1, "1"])
    with pytest.raises(ValueError, match=r"expected text, a number.*\[3\]"):
        search.categorical([[3], [4]])
    with pytest.raises(ValueError, match="one other parameter"):
        search.int(1, 2, active_when={"a": [1], "b": [2]}).manifest("n")


def test_importing_mlmesh_loads_nothing() -> None:
    code = "import sys; import mlmesh; mlmesh.report(x=1); print(sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = eval(done.stdout.splitlines()[-1])
    assert not {"httpx", "typer", "rich", "grpc", "pydantic", "yaml", "numpy"} & set(loaded)
    with pytest.raises(AttributeError, match="no attribute 'tun'"):
        mlmesh.tun  # noqa: B018
