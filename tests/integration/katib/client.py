"""Experiments to run, and a client of the Katib service; what its tests share."""

import time

import grpc
from google.protobuf import json_format
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.api.v1.beta1 import api_pb2_grpc
from mlmesh_protos.mlmesh.katib.v1 import experiment_pb2 as pb
from mlmesh_protos.mlmesh.katib.v1 import experiment_pb2_grpc

PARABOLA = "import sys; x = float(sys.argv[1]); print('loss =', (x - 3) ** 2)"


def manifest(name: str, code: str = PARABOLA, **spec) -> dict:
    command = ["python", "-c", code, "${trialParameters.x}"]
    container = {"name": "main", "image": "python", "command": command}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random", "algorithmSettings": [{"name": "random_state", "value": "1"}]},
            "maxTrialCount": 6,
            "parallelTrialCount": 2,
            "maxFailedTrialCount": 1,
            "parameters": [
                {"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "5", "step": "0.5"}}
            ],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "x", "reference": "x"}],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"template": {"spec": {"containers": [container]}}},
                },
            },
            **spec,
        },
    }


class Client:
    def __init__(self, process: ServiceProcess) -> None:
        self.channel = grpc.insecure_channel(process.grpc)
        self.experiments = experiment_pb2_grpc.ExperimentServiceStub(self.channel)
        self.suggestion = api_pb2_grpc.SuggestionStub(self.channel)
        self.db = api_pb2_grpc.DBManagerStub(self.channel)

    def create(self, made: dict) -> pb.Experiment:
        request = pb.CreateExperimentRequest(parent="namespaces/default")
        json_format.ParseDict(made, request.manifest)
        return self.experiments.CreateExperiment(request)

    def get(self, name: str) -> pb.Experiment:
        return self.experiments.GetExperiment(pb.GetExperimentRequest(name=f"namespaces/default/experiments/{name}"))

    def trials(self, name: str) -> list[pb.Trial]:
        parent = f"namespaces/default/experiments/{name}"
        return list(self.experiments.ListTrials(pb.ListTrialsRequest(parent=parent)).trials)

    def wait(self, name: str, seconds: float = 60) -> pb.Experiment:
        deadline = time.monotonic() + seconds
        while True:
            found = self.get(name)
            if {"Succeeded", "Failed"} & held(found.status.conditions):
                return found
            assert time.monotonic() < deadline, found.status
            time.sleep(0.05)


def held(conditions) -> set[str]:
    return {condition.type for condition in conditions if condition.status == "True"}


def assignments(trial: pb.Trial) -> dict[str, str]:
    return {item.name: item.value for item in trial.parameter_assignments}


def wait_until(condition, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while (value := condition()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value
