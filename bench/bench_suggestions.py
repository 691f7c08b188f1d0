"""How long GetSuggestions takes, by gRPC: each algorithm at 0, 50 and 1,000 past trials, and 200 experiments at once.

The service is a process of its own; the client builds the requests beforehand. "At once" asks for the same experiment
again while a client of its own asks for 200 others (1,000 past trials each) one after another, as many controllers
that come and go do; "burst" is 200 experiments that ask in the same instant: the time until the last has its answer,
divided by 200.
"""

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc

FAST = ("random", "grid", "sobol", "tpe", "multivariate-tpe")
ALL = (*FAST, "cmaes", "bayesianoptimization")
PAST = (0, 50, 1000)
EXPERIMENTS = 200
_REPEATS = 30
_SECONDS = 5.0


def _parameter(name: str, kind: int, values: Sequence[str] = (), **feasible: object) -> api_pb2.ParameterSpec:
    space = api_pb2.FeasibleSpace(list=values, **feasible)
    return api_pb2.ParameterSpec(name=name, parameter_type=kind, feasible_space=space)


def _request(algorithm: str, past: int, seed: int = 0) -> api_pb2.GetSuggestionsRequest:
    """Five parameters of all kinds, and `past` trials that succeeded."""
    spread = {} if algorithm == "grid" else {"distribution": api_pb2.LOG_UNIFORM}
    step = {"step": "0.001"} if algorithm == "grid" else {}
    spec = api_pb2.ExperimentSpec(
        algorithm=api_pb2.AlgorithmSpec(algorithm_name=algorithm),
        objective=api_pb2.ObjectiveSpec(type=api_pb2.MINIMIZE, objective_metric_name="loss"),
        parameter_specs=api_pb2.ExperimentSpec.ParameterSpecs(
            parameters=[
                _parameter("rate", api_pb2.DOUBLE, min="0.001", max="1", **step, **spread),
                _parameter("momentum", api_pb2.DOUBLE, min="0", max="1", step="0.01"),
                _parameter("units", api_pb2.INT, min="1", max="64"),
                _parameter("batch", api_pb2.DISCRETE, ["16", "32", "64"]),
                _parameter("optimizer", api_pb2.CATEGORICAL, ["adam", "sgd", "ftrl"]),
            ]
        ),
    )
    spec.algorithm.algorithm_settings.add(name="random_state", value="1")
    request = api_pb2.GetSuggestionsRequest(
        experiment=api_pb2.Experiment(name=f"bench-{seed}", spec=spec), current_request_number=1
    )
    source = random.Random(seed)
    for number in range(past):
        trial = request.trials.add(name=f"bench-{seed}-{number}")
        values = {
            "rate": str(round(source.uniform(0.001, 1), 3)),
            "momentum": str(round(source.randrange(101) / 100, 2)),
            "units": str(source.randint(1, 64)),
            "batch": source.choice(["16", "32", "64"]),
            "optimizer": source.choice(["adam", "sgd", "ftrl"]),
        }
        for name, value in values.items():
            trial.spec.parameter_assignments.assignments.add(name=name, value=value)
        trial.status.condition = api_pb2.TrialStatus.SUCCEEDED
        trial.status.observation.metrics.add(name="loss", value=str(source.random()))
    return request


def _times(stub: api_pb2_grpc.SuggestionStub, requests: Sequence[api_pb2.GetSuggestionsRequest]) -> list[float]:
    """Gives milliseconds of each, one after another, sorted."""
    found = []
    for request in requests:
        started = time.perf_counter()
        stub.GetSuggestions(request, timeout=600)
        found.append((time.perf_counter() - started) * 1e3)
    return sorted(found)


def _alone(stub: api_pb2_grpc.SuggestionStub, algorithm: str) -> None:
    cells = []
    for past in PAST:
        request = _request(algorithm, past)
        if algorithm == "bayesianoptimization" and past > 50:
            cells.append(f"{'-':>8} {'-':>8}")
            continue
        repeats = 3 if algorithm == "bayesianoptimization" else _REPEATS
        stub.GetSuggestions(request, timeout=600)  # loads the algorithm's library
        times = _times(stub, [request] * repeats)
        cells.append(f"{statistics.median(times):8.2f} {times[-1]:8.2f}")
    print(f"{algorithm:22}" + " ".join(cells), flush=True)


def _at_once(address: str, stub: api_pb2_grpc.SuggestionStub, algorithm: str) -> None:
    many = [_request(algorithm, 1000, seed) for seed in range(EXPERIMENTS)]
    alone = _times(stub, [many[0]] * _REPEATS)
    each = _times(stub, many)
    with ThreadPoolExecutor(EXPERIMENTS) as pool:
        started = time.perf_counter()
        list(pool.map(lambda request: stub.GetSuggestions(request, timeout=600), many))
        burst = (time.perf_counter() - started) * 1e3 / EXPERIMENTS
    ends = threading.Event()

    def others() -> None:
        with grpc.insecure_channel(address) as channel:
            another = api_pb2_grpc.SuggestionStub(channel)
            while not ends.is_set():
                for request in many[1:]:
                    another.GetSuggestions(request, timeout=600)
                    if ends.wait(0.005):
                        return

    thread = threading.Thread(target=others)
    thread.start()
    during = _times(stub, [many[0]] * _REPEATS)
    ends.set()
    thread.join()
    medians = (statistics.median(times) for times in (alone, each, during))
    print(f"{algorithm:22}" + " ".join(f"{value:10.2f}" for value in (*medians, burst)), flush=True)


def main() -> None:
    """Prints two tables, in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"PRELOAD": ""}
        with ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", Path(folder), settings) as service:
            options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
            with grpc.insecure_channel(service.grpc, options=options) as channel:
                stub = api_pb2_grpc.SuggestionStub(channel)
                print("ms for GetSuggestions: median and longest at 0, 50 and 1,000 past trials")
                for algorithm in ALL:
                    _alone(stub, algorithm)
                print(f"\nms at 1,000 past trials: alone, each of {EXPERIMENTS}, with others at work, burst / count")
                for algorithm in FAST:
                    _at_once(service.grpc, stub, algorithm)


if __name__ == "__main__":
    main()
