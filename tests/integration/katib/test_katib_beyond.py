"""What Katib has not, through the service with real trials: asha, several objectives, constraints, conditions."""

import grpc
import pytest
from integration.katib.client import Client, assignments, held, manifest

X = {"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}


def algorithm(name: str, **settings: object) -> dict:
    given = [{"name": key, "value": str(value)} for key, value in {"random_state": 1, **settings}.items()]
    return {"algorithmName": name, "algorithmSettings": given}


STEPS = """
import sys, time
for step in range(9):
    print("loss =", float(sys.argv[1]), flush=True)
    time.sleep(0.07)
time.sleep(60 if float(sys.argv[1]) > 0.9 else 0)
"""


def test_trials_that_are_not_worth_more_are_stopped(client: Client) -> None:
    made = manifest("steps", STEPS, parameters=[X], algorithm=algorithm("bohb"), maxTrialCount=8, parallelTrialCount=4)
    client.create(made)
    found = client.wait("steps")
    assert "Succeeded" in held(found.status.conditions)
    assert found.status.trials_early_stopped + found.status.trials_succeeded == 8
    assert 2 <= found.status.trials_early_stopped <= 7
    best = min(client.trials("steps"), key=lambda trial: float(assignments(trial)["x"]))
    assert "Succeeded" in held(best.conditions)
    assert found.status.current_optimal_trial.best_trial_name == best.name.rsplit("/", 1)[1]


def test_a_resource_that_is_a_parameter_grows_for_the_best(client: Client) -> None:
    epochs = {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "4"}}
    rule = algorithm("asha", resource_name="epochs", eta=2)
    client.create(manifest("grows", parameters=[X, epochs], algorithm=rule, maxTrialCount=10, parallelTrialCount=2))
    found = client.wait("grows")
    assert (found.status.trials_succeeded, found.status.trials_early_stopped) == (10, 0)
    used = [assignments(trial)["epochs"] for trial in client.trials("grows")]
    assert set(used) == {"1", "2", "4"} and used.count("1") > used.count("2") >= used.count("4")


TWO = """
import sys
x, y = map(float, sys.argv[1:])
print("one =", x + y); print("two =", 1 - x + y); print("size =", 10 * x)
"""


def test_the_front_of_two_objectives_keeps_the_constraints(client: Client) -> None:
    made = manifest("front", TWO, parameters=[X, {**X, "name": "y"}], maxTrialCount=60, parallelTrialCount=4)
    made["spec"]["algorithm"] = algorithm("nsga2", population_size=10)
    made["spec"]["objective"] = {
        "type": "minimize",
        "objectiveMetricName": "one",
        "additionalObjectives": [{"type": "minimize", "objectiveMetricName": "two"}],
        "constraints": [{"metricName": "size", "min": 5}],
    }
    template = made["spec"]["trialTemplate"]
    template["trialParameters"].append({"name": "y", "reference": "y"})
    template["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"].append("${trialParameters.y}")
    client.create(made)
    status = client.wait("front").status
    metrics = {
        trial.name.rsplit("/", 1)[1]: {metric.name: float(metric.latest) for metric in trial.observation.metrics}
        for trial in client.trials("front")
    }
    kept = {name: (m["one"], m["two"]) for name, m in metrics.items() if m["size"] >= 5}
    front = {
        name
        for name, mine in kept.items()
        if not any(a <= mine[0] and b <= mine[1] and (a, b) != mine for a, b in kept.values())
    }
    assert {trial.best_trial_name for trial in status.pareto_front} == front
    assert len(metrics) == 60 and len(front) > 2
    assert status.current_optimal_trial.best_trial_name == min(kept, key=lambda name: kept[name])
    late = list(metrics.values())[-20:]
    assert sum(m["size"] >= 5 for m in late) >= 15  # it has learnt where the bound is


def test_no_trial_that_breaks_a_constraint_reaches_the_goal(client: Client) -> None:
    made = manifest("bounded", "print('loss = 0'); print('memory = 9')", maxTrialCount=3, parallelTrialCount=1)
    made["spec"]["objective"].update(goal=1, constraints=[{"metricName": "memory", "max": 8}])
    client.create(made)
    found = client.wait("bounded")
    assert "Failed" in held(found.status.conditions) and found.status.trials_succeeded == 3
    assert not found.status.HasField("current_optimal_trial")


def test_an_objective_that_is_missing_makes_the_metrics_unavailable(client: Client) -> None:
    made = manifest("missing", maxTrialCount=2, maxFailedTrialCount=2)
    made["spec"]["objective"]["additionalObjectives"] = [{"type": "maximize", "objectiveMetricName": "speed"}]
    client.create(made)
    assert client.wait("missing").status.trial_metrics_unavailable == 2
    assert "speed" in client.trials("missing")[0].conditions[-1].message


@pytest.mark.parametrize("name", ["random", "tpe", "grid"])
def test_a_parameter_that_is_not_active_reaches_no_trial(client: Client, name: str) -> None:
    parameters = [
        {"name": "model", "parameterType": "categorical", "feasibleSpace": {"list": ["linear", "tree"]}},
        {
            "name": "x",
            "parameterType": "int",
            "feasibleSpace": {"min": "1", "max": "3"},
            "activeWhen": {"parameter": "model", "values": ["tree"]},
        },
    ]
    code = "import sys; print('loss =', len(sys.argv[1]))"
    made = manifest(f"active-{name}", code, parameters=parameters, algorithm=algorithm(name), maxTrialCount=4)
    client.create(made)
    assert client.wait(f"active-{name}").status.trials_succeeded == 4
    found = {tuple(assignments(trial).items()): trial for trial in client.trials(f"active-{name}")}
    trees = {(("model", "tree"), ("x", x)) for x in "123"}
    assert set(found) == {(("model", "linear"),), *trees}
    assert {key: trial.observation.metrics[0].latest for key, trial in found.items()} == {
        (("model", "linear"),): "0",
        **dict.fromkeys(trees, "1"),
    }


def test_without_a_metadata_service_there_is_no_warm_start(client: Client) -> None:
    made = manifest("cold", algorithm=algorithm("tpe"), warmStart={"experiments": ["earlier"]})
    with pytest.raises(grpc.RpcError) as caught:
        client.create(made)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "manifest.spec.warmStart.experiments" in caught.value.details()
