"""Trials of one name in two namespaces: each has its own reports, also through requests that say no namespace."""

import grpc
import pytest
from google.protobuf import json_format
from integration.katib.client import Client, manifest, wait_until
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc
from mlmesh_protos.mlmesh.katib.v1 import experiment_pb2 as pb

OTHER = "namespaces/other/experiments/twin"
PUSH = {"collector": {"kind": "Push"}}


def create_in_other(client: Client, made: dict) -> None:
    request = pb.CreateExperimentRequest(parent="namespaces/other")
    json_format.ParseDict(made, request.manifest)
    client.experiments.CreateExperiment(request)


def report(client: Client, trial: str, value: str) -> None:
    log = api_pb2.ObservationLog()
    log.metric_logs.add(time_stamp="2026-01-01T00:00:00Z", metric=api_pb2.Metric(name="loss", value=value))
    client.db.ReportObservationLog(api_pb2.ReportObservationLogRequest(trial_name=trial, observation_log=log))


def values(client: Client, trial: str) -> list[str]:
    reply = client.db.GetObservationLog(api_pb2.GetObservationLogRequest(trial_name=trial))
    return [log.metric.value for log in reply.observation_log.metric_logs]


def test_trials_of_one_name_have_their_own_reports(client):
    one = {"maxTrialCount": 1, "parallelTrialCount": 1}
    client.create(manifest("twin", "print('loss = 1')", **one))
    client.wait("twin")
    create_in_other(client, manifest("twin", "import time; time.sleep(600)", metricsCollectorSpec=PUSH, **one))

    def other() -> pb.ExperimentStatus:
        return client.experiments.GetExperiment(pb.GetExperimentRequest(name=OTHER)).status

    wait_until(lambda: other().trials_running or None)
    report(client, "twin-1", "5")  # of the one that runs: the other one has nothing more to report
    assert (values(client, "other/twin-1"), values(client, "default/twin-1")) == (["5"], ["1"])
    status = api_pb2.SetTrialStatusRequest(trial_name="other/twin-1")
    api_pb2_grpc.EarlyStoppingStub(client.channel).SetTrialStatus(status)
    wait_until(lambda: other().trials_early_stopped or None)
    with pytest.raises(grpc.RpcError) as caught:
        values(client, "twin-1")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "default, other" in caught.value.details() and "NAMESPACE/twin-1" in caught.value.details()
    found = client.experiments.ListObservations(pb.ListObservationsRequest(parent=f"{OTHER}/trials/twin-1"))
    assert [log.value for log in found.reports] == ["5"]
    client.experiments.DeleteExperiment(pb.DeleteExperimentRequest(name=OTHER))
    assert (values(client, "twin-1"), values(client, "other/twin-1")) == (["1"], [])


def test_trials_of_controllers_elsewhere_need_no_namespace(client):
    report(client, "elsewhere-x7k2", "3")
    assert values(client, "elsewhere-x7k2") == ["3"]
    client.db.DeleteObservationLog(api_pb2.DeleteObservationLogRequest(trial_name="elsewhere-x7k2"))
    assert values(client, "elsewhere-x7k2") == []


@pytest.mark.parametrize("name", ["/twin-1", "other/", "x" * 64 + "/twin-1"])
def test_names_that_name_no_trial_are_refused(client, name):
    with pytest.raises(grpc.RpcError) as caught:
        values(client, name)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and "trial_name" in caught.value.details()
