"""`resources.limits` of a container whose trial is a process of this machine."""

import os

import grpc
import pytest
from integration.katib.client import Client, manifest


def limited(name: str, code: str, **limits: object) -> dict:
    made = manifest(name, code, maxTrialCount=1, parallelTrialCount=1, maxFailedTrialCount=1)
    pod = made["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    pod["containers"][0]["resources"] = {"limits": limits}
    return made


def test_a_trial_that_takes_more_memory_than_its_limit_fails_and_says_so(client: Client):
    code = "import time; kept = bytearray(400 << 20); print('loss = 1', flush=True); time.sleep(60)"
    client.create(limited("greedy", code, memory="200Mi"))
    client.wait("greedy")
    last = client.trials("greedy")[0].conditions[-1]
    assert (last.type, "memory" in last.message, "200" in last.message) == ("Failed", True, True), last.message


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="there is one processor: nothing is to be seen")
def test_a_trial_within_its_limits_succeeds_on_the_processors_that_it_may_have(client: Client):
    code = "import os; kept = bytearray(50 << 20); print('loss =', len(os.sched_getaffinity(0)))"
    client.create(limited("modest", code, memory="1.5Gi", cpu="500m", **{"nvidia.com/gpu": 1}))
    client.wait("modest")
    assert client.trials("modest")[0].observation.metrics[0].latest == "1"


def test_a_limit_may_be_a_trials_parameter(client: Client):
    code = "import os; print('loss =', len(os.sched_getaffinity(0)))"
    made = limited("chosen", code, cpu="${trialParameters.x}")
    made["spec"]["parameters"] = [{"name": "x", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "1"}}]
    client.create(made)
    client.wait("chosen")
    assert client.trials("chosen")[0].observation.metrics[0].latest == "1"


@pytest.mark.parametrize(
    ("limits", "field"),
    [({"memory": "much"}, "limits.memory"), ({"cpu": -1}, "limits.cpu"), ({"cpu": 0}, "limits.cpu")],
)
def test_what_is_no_quantity_is_named(client: Client, limits, field):
    with pytest.raises(grpc.RpcError) as caught:
        client.create(limited("wrong", "print('loss = 1')", **limits))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"containers[0].resources.{field}" in caught.value.details()
