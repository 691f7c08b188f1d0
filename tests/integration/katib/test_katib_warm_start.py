"""Warm starts: what a real metadata service knows of earlier experiments is known from the first suggestion on."""

import grpc
import pytest
from integration.katib.client import PARABOLA, Client, assignments, manifest, wait_until
from integration.katib.metadata_service import Metadata
from mlmesh_kit.testing import ServiceProcess

X = {"name": "x", "parameterType": "double", "feasibleSpace": {"min": "-100", "max": "100"}}
SLOW = "import sys, time; time.sleep(0.1); print('loss =', (float(sys.argv[1]) - 3) ** 2)"
CHOSEN = {"random_state": "1", "population_size": "5", "mutation_prob": "0"}
NSGA2 = {
    "algorithmName": "nsga2",
    "algorithmSettings": [{"name": name, "value": value} for name, value in CHOSEN.items()],
}


@pytest.fixture(scope="module", autouse=True)
def earlier(metadata: Metadata, katib: ServiceProcess) -> None:
    metadata.up()
    client = Client(katib)
    client.create(manifest("earlier", parameters=[X], algorithm=NSGA2, maxTrialCount=20, parallelTrialCount=1))
    client.wait("earlier")


def warm(name: str, code: str = PARABOLA, **changed: object) -> dict:
    spec = {"parameters": [X], "algorithm": NSGA2, "maxTrialCount": 5, "parallelTrialCount": 1, **changed}
    return manifest(name, code, **{"warmStart": {"experiments": ["earlier"]}, **spec})


def refused(client: Client, made: dict) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        client.create(made)
    return caught.value.code(), caught.value.details()


def test_it_looks_where_earlier_trials_were_good_and_a_crash_changes_nothing(
    metadata: Metadata, katib: ServiceProcess
) -> None:
    client = Client(katib)
    client.create(warm("first"))
    client.wait("first")
    points = [float(assignments(trial)["x"]) for trial in client.trials("first")]
    cold = manifest("cold", parameters=[X], algorithm=NSGA2, maxTrialCount=5, parallelTrialCount=1)
    client.create(cold)
    client.wait("cold")
    without = [float(assignments(trial)["x"]) for trial in client.trials("cold")]
    assert max(abs(x - 3) for x in points) < 20 < max(abs(x - 3) for x in without)
    client.create(warm("again", SLOW))
    wait_until(lambda: (client.get("again").status.trials_succeeded >= 2) or None)
    katib.kill()
    metadata.down()  # what was read is kept
    katib.start()
    client = Client(katib)
    client.wait("again")
    assert [float(assignments(trial)["x"]) for trial in client.trials("again")] == points
    metadata.up()


def test_what_cannot_be_read_is_said_when_the_experiment_is_made(metadata: Metadata, katib: ServiceProcess) -> None:
    client = Client(katib)
    where = "manifest.spec.warmStart.experiments"
    unknown = warm("a", warmStart={"experiments": ["earlier", "default/nobody"]})
    code, text = refused(client, unknown)
    assert code is grpc.StatusCode.FAILED_PRECONDITION and f"{where}[1]" in text and "default/nobody" in text
    code, text = refused(client, warm("b", warmStart={"experiments": ["other/earlier"]}))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "namespace" in text
    elsewhere = [{**X, "feasibleSpace": {"min": "1000", "max": "2000"}}]
    code, text = refused(client, warm("c", parameters=elsewhere))
    assert code is grpc.StatusCode.FAILED_PRECONDITION and "none of their 20 trials" in text
    code, text = refused(client, warm("d", algorithm={"algorithmName": "random"}))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "learns nothing" in text
    metadata.down()
    code, text = refused(client, warm("e"))
    assert code is grpc.StatusCode.UNAVAILABLE and "metadata service" in text
    metadata.up()
