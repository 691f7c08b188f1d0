"""Experiments with the combinations of fields that Katib's users write: all are made, and what is wrong is named."""

import grpc
import pytest
from google.protobuf import json_format
from integration.katib.client import manifest
from mlmesh_protos.mlmesh.katib.v1 import experiment_pb2 as pb

TEAM = "namespaces/team"


def number(name: str, low: str, high: str, kind: str = "double", **space: str) -> dict:
    return {"name": name, "parameterType": kind, "feasibleSpace": {"min": low, "max": high, **space}}


def listed(name: str, *values: str, kind: str = "categorical") -> dict:
    return {"name": name, "parameterType": kind, "feasibleSpace": {"list": list(values)}}


def setting(**values: str) -> list[dict]:
    return [{"name": name, "value": value} for name, value in values.items()]


def uses(*names: str) -> list[str]:
    return ["trainer", *(f"--{name}=${{trialParameters.{name}}}" for name in names)]


def job(*names: str, container: dict | None = None, template: dict | None = None, **pod: object) -> dict:
    main = {"name": "train", "image": "registry/train:1", "command": uses(*names), **(container or {})}
    spec = {"containers": [main], "restartPolicy": "Never", **pod}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": spec, **(template or {})}}}


def replicas(kind: str, field: str, *roles: str, command: str = "command", **more: object) -> dict:
    container = {"name": "train", "image": "registry/train:1", command: uses("rate")}
    replica = {"replicas": 1, "restartPolicy": "OnFailure", "template": {"spec": {"containers": [container]}}}
    return {"apiVersion": "kubeflow.org/v1", "kind": kind, "spec": {field: dict.fromkeys(roles, replica), **more}}


def experiment(name: str, trial: dict, template: dict | None = None, *, rename: dict | None = None, **spec) -> dict:
    """Paused by nobody: what its trials do is of no interest here."""
    parameters = spec.pop("parameters", [number("rate", "0.01", "0.05")])
    references = rename or {item["name"]: item["name"] for item in parameters}
    made = manifest(name, parameters=parameters, maxTrialCount=2, parallelTrialCount=2, maxFailedTrialCount=0, **spec)
    made["metadata"]["namespace"] = "team"
    made["spec"]["trialTemplate"] = {
        "primaryContainerName": "train",
        "trialParameters": [{"name": key, "description": "words", "reference": of} for key, of in references.items()],
        "trialSpec": trial,
        **(template or {}),
    }
    return {**made, "spec": {key: value for key, value in made["spec"].items() if value is not None}}


CUSTOM = {
    "collector": {
        "kind": "Custom",
        "customCollector": {
            "name": "collector",
            "image": "registry/collector:1",
            "imagePullPolicy": "Always",
            "args": ["-m", "accuracy"],
            "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        },
    },
    "source": {"fileSystemPath": {"kind": "File", "path": "/logs/train.log"}},
}
JSON_FILE = {
    "collector": {"kind": "File"},
    "source": {"fileSystemPath": {"kind": "File", "path": "/logs/train.json", "format": "JSON"}},
}
EVENTS = {
    "collector": {"kind": "TensorFlowEvent"},
    "source": {"fileSystemPath": {"kind": "Directory", "path": "/events"}},
}
FILTER = {"source": {"filter": {"metricsFormat": [r"(\w+\s\w+)\s:\s((-?\d+)(\.\d+)?)"]}}}
GENOTYPE = {"collector": {"kind": "StdOut"}, "source": {"filter": {"metricsFormat": [r"([\w-]+)=(Genotype.*)"]}}}
MEDIAN = {"algorithmName": "medianstop", "algorithmSettings": setting(min_trials_required="1", start_step="2")}
SPREAD = [
    number("a", "0.01", "0.05", step="0.01", distribution="normal"),
    number("b", "0.001", "1", step="0.1", distribution="uniform"),
    number("c", "1", "3", "int", distribution="logUniform"),
    number("d", "32", "64", "int", distribution="logNormal"),
]
MIXED = [number("rate", "0.01", "0.03"), number("layers", "2", "5", "int"), listed("optimizer", "sgd", "adam")]
POPULATION = setting(suggestion_trial_dir="/checkpoints/", n_population="40", truncation_threshold="0.2")
BANDS = setting(resource_name="epochs", eta="2", r_l="2")
PHASES = {
    "successCondition": 'status.[@this].#(phase=="Succeeded")#',
    "failureCondition": 'status.[@this].#(phase=="Failed")#',
}
TEKTON = {
    "successCondition": 'status.conditions.#(type=="Succeeded")#|#(status=="True")#',
    "failureCondition": 'status.conditions.#(type=="Succeeded")#|#(status=="False")#',
}
WORKFLOW = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Workflow",
    "metadata": {"generateName": "steps-", "annotations": {"spec": '{"default": "${trialParameters.rate}"}'}},
    "spec": {"entrypoint": "steps", "templates": [{"name": "steps", "steps": [[{"name": "a", "template": "b"}]]}]},
}
META = {
    "rate": "rate",
    "name": "${trialSpec.Name}",
    "place": "${trialSpec.Namespace}",
    "kind": "${trialSpec.Kind}",
    "version": "${trialSpec.APIVersion}",
    "label": "${trialSpec.Labels[color]}",
    "note": "${trialSpec.Annotations[color]}",
}
MARKED = {**job(*META), "metadata": {"labels": {"color": "blue"}, "annotations": {"color": "red"}}}
SIZES = [listed("size", "3", "5"), listed("stride", "1", "2"), number("pool", "2", "3", "int", step="1")]


def architecture(name: str, algorithm: str, operations: list[dict], rename: dict, graph: dict, **spec) -> dict:
    return experiment(
        name,
        job(*rename, container={"resources": {"limits": {"nvidia.com/gpu": 1}}}),
        parameters=None,
        rename=rename,
        algorithm={"algorithmName": algorithm},
        nasConfig={"graphConfig": graph, "operations": operations},
        **spec,
    )


DARTS = architecture(
    "genotypes",
    "darts",
    [{"operationType": "max_pooling", "parameters": SIZES[:1]}, {"operationType": "skip_connection"}],
    {"settings": "algorithm-settings", "space": "search-space", "layers": "num-layers"},
    {"numLayers": 3},
    metricsCollectorSpec=GENOTYPE,
    objective={"type": "maximize", "objectiveMetricName": "Best-Genotype"},
)
ENAS = architecture(
    "networks",
    "enas",
    [{"operationType": "reduction", "parameters": SIZES}],
    {"network": "architecture", "config": "nn_config"},
    {"numLayers": 2, "inputSizes": [32, 32, 3], "outputSizes": [10]},
)
MADE = [
    experiment("spreads", job("a", "b", "c", "d"), parameters=SPREAD),
    experiment("spreads-tpe", job("a", "b", "c", "d"), parameters=SPREAD, algorithm={"algorithmName": "tpe"}),
    experiment(
        "mixed-cmaes", job("rate", "layers", "optimizer"), parameters=MIXED, algorithm={"algorithmName": "cmaes"}
    ),
    experiment(
        "limited", job("rate", container={"resources": {"limits": {"memory": "1Gi", "cpu": "0.5"}}}), {"retain": True}
    ),
    experiment(
        "devices",
        job(
            "rate",
            container={
                "resources": {"limits": {"vendor/board": 1}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            },
            template={"metadata": {"labels": {"vendor/board": "on"}, "annotations": {"vendor/cli": "load\n"}}},
            nodeSelector={"disk": "ssd"},
            volumes=[{"name": "v", "emptyDir": {"medium": "Memory"}}],
            initContainers=[{"name": "first", "image": "registry/first:1"}],
        ),
    ),
    experiment("stopped", job("rate"), earlyStopping=MEDIAN, metricsCollectorSpec=JSON_FILE),
    experiment("collected", job("rate"), metricsCollectorSpec=CUSTOM),
    experiment("events", job("rate"), metricsCollectorSpec=EVENTS),
    experiment(
        "strategies",
        job("rate"),
        objective={
            "type": "maximize",
            "goal": 0.99,
            "objectiveMetricName": "valid_1 auc",
            "additionalMetricNames": ["training auc"],
            "metricStrategies": [{"name": "valid_1 auc", "value": "latest"}, {"name": "training auc", "value": "min"}],
        },
        metricsCollectorSpec=FILTER,
    ),
    experiment(
        "population",
        job("rate"),
        parameters=[number("rate", "0.0001", "0.02", step="0.0001")],
        algorithm={"algorithmName": "pbt", "algorithmSettings": POPULATION},
        resumePolicy="FromVolume",
    ),
    experiment(
        "bands",
        job("rate", "epochs"),
        parameters=[number("rate", "0.01", "0.03"), number("epochs", "1", "1", "int")],
        algorithm={"algorithmName": "hyperband", "algorithmSettings": BANDS},
    ),
    experiment("lasting", job("rate"), resumePolicy="LongRunning"),
    experiment("metadata", MARKED, rename=META),
    experiment("torch", replicas("PyTorchJob", "pytorchReplicaSpecs", "Master", "Worker")),
    experiment(
        "tensorflow",
        replicas("TFJob", "tfReplicaSpecs", "Worker"),
        {"primaryPodLabels": {"training.kubeflow.org/replica-type": "worker"}},
        metricsCollectorSpec=EVENTS,
    ),
    experiment("boosting", replicas("XGBoostJob", "xgbReplicaSpecs", "Master", "Worker", command="args")),
    experiment("mxnet", replicas("MXJob", "mxReplicaSpecs", "Scheduler", "Server", "Worker", jobMode="MXTrain")),
    experiment("mpi", replicas("MPIJob", "mpiReplicaSpecs", "Launcher", "Worker", slotsPerWorker=1)),
    experiment(
        "trainer",
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "spec": {"runtimeRef": {"name": "torch-distributed"}, "trainer": {"numNodes": 2, "command": uses("rate")}},
        },
    ),
    experiment(
        "workflow",
        WORKFLOW,
        {"retain": True, "primaryPodLabels": {"role": "train"}, **PHASES},
        metricsCollectorSpec=CUSTOM,
    ),
    experiment(
        "tekton",
        {
            "apiVersion": "tekton.dev/v1beta1",
            "kind": "PipelineRun",
            "spec": {"params": [{"name": "rate", "value": "${trialParameters.rate}"}], "pipelineSpec": {"tasks": []}},
        },
        {"retain": True, "primaryPodLabels": {"tekton.dev/pipelineTask": "train"}, **TEKTON},
    ),
    DARTS,
    ENAS,
]


def create(client, made: dict) -> pb.Experiment:
    request = pb.CreateExperimentRequest(parent=TEAM)
    json_format.ParseDict(made, request.manifest)
    return client.experiments.CreateExperiment(request)


@pytest.mark.parametrize("made", MADE, ids=[made["metadata"]["name"] for made in MADE])
def test_what_katibs_users_write_is_made(client, made):
    name = f"{TEAM}/experiments/{made['metadata']['name']}"
    try:
        assert create(client, made).name == name
        kept = json_format.MessageToDict(client.experiments.GetExperiment(pb.GetExperimentRequest(name=name)).manifest)
        assert kept["spec"]["trialTemplate"]["trialSpec"]["kind"] == made["spec"]["trialTemplate"]["trialSpec"]["kind"]
    finally:
        client.experiments.DeleteExperiment(pb.DeleteExperimentRequest(name=name))


TEMPLATE = "manifest.spec.trialTemplate"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"trialParameters": None}, f"{TEMPLATE}.trialParameters"),
        ({"trialParameters": [{"name": "rate", "reference": ""}]}, f"{TEMPLATE}.trialParameters[0].reference"),
        ({"trialParameters": [{"name": "rate", "reference": "other"}]}, f"{TEMPLATE}.trialParameters[0].reference"),
        (
            {
                "trialParameters": [
                    {"name": "rate", "reference": "rate"},
                    {"name": "{a", "reference": "${trialSpec.Kind}"},
                ]
            },
            f"{TEMPLATE}.trialParameters[1].name",
        ),
        (
            {"trialParameters": [{"name": "rate", "reference": "rate"}, {"name": "again", "reference": "rate"}]},
            f"{TEMPLATE}.trialParameters[1].reference",
        ),
        (
            {
                "trialParameters": [
                    {"name": "rate", "reference": "rate"},
                    {"name": "k", "reference": "${trialSpec.Kind}"},
                ]
            },
            f"{TEMPLATE}.trialParameters[1].name",
        ),
        ({"trialSpec": job("rate", "more")}, f"{TEMPLATE}.trialParameters"),
        ({"trialSpec": None}, f"{TEMPLATE}.trialSpec"),
        ({"trialSpec": {**job("rate"), "kind": ""}}, f"{TEMPLATE}.trialSpec.kind"),
        ({"trialSpec": {**job("rate"), "metadata": {"name": "mine"}}}, f"{TEMPLATE}.trialSpec.metadata.name"),
        ({"trialSpec": {**job("rate"), "apiVersion": ""}}, f"{TEMPLATE}.trialSpec.apiVersion"),
    ],
)
def test_templates_are_checked_as_katib_does(client, change, field):
    made = experiment("wrong", job("rate"), change)
    with pytest.raises(grpc.RpcError) as caught:
        create(client, made)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith(f"{field}:")


def test_names_begin_with_a_letter_as_in_katib(client):
    with pytest.raises(grpc.RpcError) as caught:
        create(client, experiment("1234-wrong", job("rate")))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith("manifest.metadata.name:")
