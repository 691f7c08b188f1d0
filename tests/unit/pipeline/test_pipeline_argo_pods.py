"""Pods of tasks, each held against the models of Kubernetes' own client."""

import re

import pytest
from kubernetes import client
from mlmesh_pipeline.argo.options import Options
from mlmesh_pipeline.argo.pod import BadPod, local_path, pod_patch
from mlmesh_pipeline.ir.document import parse
from mlmesh_pipeline.resources import Artifact, Values

NEWER = {  # than the client, which kfp pins: Kubernetes 1.31
    ("V1Volume", "image"),
    ("V1PodResourceClaim", "resourceClaimName"),
    ("V1PodResourceClaim", "resourceClaimTemplateName"),
}
PLAIN = {"image": "busybox", "command": ["true"]}
CONTEXT = {
    "pipeline_job_name": "my run",
    "pipeline_job_uuid": "r1",
    "pipeline_task_name": "t",
    "pipeline_task_uuid": "t1",
    "pipeline_root": "s3://b/root",
}


def document_of(container=None, config=None, component=None):
    return parse(
        {
            "pipeline_spec": {
                "pipelineInfo": {"name": "p"},
                "schemaVersion": "2.1.0",
                "root": {"dag": {"tasks": {}}},
                "components": {"comp-t": {"executorLabel": "exec-t", **(component or {})}},
                "deploymentSpec": {
                    "executors": {
                        "exec-t": {"container": {"image": "busybox", "command": ["true"], **(container or {})}}
                    }
                },
            },
            "platform_spec": {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-t": config or {}}}}}},
        }
    )


def patch_of(container=None, config=None, component=None, *, parameters=None, artifacts=None, outputs=None):
    document = document_of(container, config, component)
    given = {("make", "name"): "made", **(outputs or {})}
    patch = pod_patch(
        document,
        document.component("comp-t"),
        Values(parameters or {}, artifacts or {}),
        context=CONTEXT,
        options=Options(),
        output_uri="s3://b/root/t",
        around=parameters or {},
        output_of=lambda task, key: given.get((task, key)),
        names=("r1", "t"),
    )
    assert list(unknown(patch, "V1PodSpec")) == []
    return patch


def unknown(value, kind, path=""):
    """Gives the fields that Kubernetes does not have, or has of another type."""
    if (inner := re.fullmatch(r"list\[(.*)\]", kind)) and isinstance(value, list):
        for number, item in enumerate(value):
            yield from unknown(item, inner[1], f"{path}[{number}]")
    elif (inner := re.fullmatch(r"dict\(str, (.*)\)", kind)) and isinstance(value, dict):
        for key, item in value.items():
            yield from unknown(item, inner[1], f"{path}.{key}")
    elif kind.startswith("V1"):
        model = getattr(client, kind)
        names = {json: name for name, json in model.attribute_map.items()}
        for key, item in value.items():
            if key in names:
                yield from unknown(item, model.openapi_types[names[key]], f"{path}.{key}")
            elif (kind, key) not in NEWER:
                yield f"{path}.{key}"
    elif not isinstance(value, {"str": str, "int": int, "bool": bool, "object": object}[kind]):
        yield path


def main_of(patch):
    (main,) = patch["containers"]
    assert main["name"] == "main"
    return main


def constant(value):
    return {"runtimeValue": {"constant": value}}


def of_input(name):
    return {"componentInputParameter": name}


OF_TASK = {"taskOutputParameter": {"producerTask": "make", "outputParameterKey": "name"}}


def test_placeholders_are_filled_in():
    main = main_of(
        patch_of(
            {
                "image": "registry/{{$.inputs.parameters['image']}}:1",
                "command": ["sh", "-c", "cat {{$.inputs.artifacts['data'].path}}"],
                "args": [
                    "{{$.inputs.artifacts['data'].uri}}",
                    "{{$.outputs.artifacts['model'].path}}",
                    "{{$.outputs.parameters['n'].output_file}}",
                    '{"IfPresent": {"InputName": "image", "Then": ["--image", "{{$.inputs.parameters[\'image\']}}"]}}',
                ],
                "env": [{"name": "WHO", "value": "{{$.pipeline_job_name}} $(x)"}],
                "resources": {
                    "resourceCpuLimit": "{{$.inputs.parameters['cpu']}}",
                    "resourceMemoryRequest": "2Gi",
                    "accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "1"},
                },
            },
            component={
                "inputDefinitions": {
                    "parameters": {"image": {"parameterType": "STRING"}, "cpu": {"parameterType": "STRING"}},
                    "artifacts": {"data": {"artifactType": {"schemaTitle": "system.Dataset"}}},
                },
                "outputDefinitions": {
                    "parameters": {"n": {"parameterType": "STRING"}},
                    "artifacts": {"model": {"artifactType": {"schemaTitle": "system.Model"}}},
                },
            },
            parameters={"image": "mine", "cpu": "1.5"},
            artifacts={"data": [Artifact("a", "data", "system.Dataset", "0.0.1", "s3://b/data.csv")]},
        )
    )
    assert main["image"] == "registry/mine:1"
    assert main["command"] == ["sh", "-c", "cat /s3/b/data.csv"]
    assert main["args"] == [
        "s3://b/data.csv",
        "/s3/b/root/t/model",
        "/mlmesh/work/t1/parameters/n",
        "--image",
        "mine",
    ]
    assert {"name": "WHO", "value": "my run $$(x)"} in main["env"]
    assert main["resources"] == {
        "limits": {"cpu": "1.5", "nvidia.com/gpu": "1"},
        "requests": {"memory": "2Gi"},
    }


def test_resources_of_old_sdks():
    resources = {"cpuLimit": 1.5, "memoryRequest": 2.0, "accelerator": {"type": "nvidia.com/gpu", "count": "2"}}
    assert main_of(patch_of({"resources": resources}))["resources"] == {
        "limits": {"cpu": "1.5", "nvidia.com/gpu": "2"},
        "requests": {"memory": "2G"},
    }


def test_secrets_and_config_maps():
    patch = patch_of(
        config={
            "secretAsEnv": [
                {
                    "secretNameParameter": of_input("s"),
                    "keyToEnv": [{"secretKey": "password", "envVar": "PASSWORD"}],
                    "optional": True,
                },
                {"secretNameParameter": of_input("absent"), "keyToEnv": [], "optional": True},
            ],
            "configMapAsEnv": [
                {"configMapName": "c", "keyToEnv": [{"configMapKey": "host", "envVar": "HOST"}], "optional": False}
            ],
            "fieldPathAsEnv": [{"name": "NODE", "fieldPath": "spec.nodeName"}],
            "secretAsVolume": [{"secretNameParameter": constant("s"), "mountPath": "/secrets"}],
            "configMapAsVolume": [{"configMapNameParameter": OF_TASK, "mountPath": "/config", "optional": True}],
            "imagePullSecret": [{"secretNameParameter": constant("pull")}, {"secretName": "old"}],
            "imagePullPolicy": "Always",
        },
        parameters={"s": "mine"},
    )
    main = main_of(patch)
    references = {one["name"]: one["valueFrom"] for one in main["env"] if "valueFrom" in one}
    assert references == {
        "PASSWORD": {"secretKeyRef": {"name": "mine", "key": "password", "optional": True}},
        "HOST": {"configMapKeyRef": {"name": "c", "key": "host", "optional": False}},
        "NODE": {"fieldRef": {"fieldPath": "spec.nodeName"}},
    }
    assert patch["volumes"] == [
        {"name": "secret-0", "secret": {"secretName": "s"}},
        {"name": "config-0", "configMap": {"name": "made", "optional": True}},
    ]
    assert main["volumeMounts"] == [
        {"name": "secret-0", "mountPath": "/secrets"},
        {"name": "config-0", "mountPath": "/config"},
    ]
    assert patch["imagePullSecrets"] == [{"name": "pull"}, {"name": "old"}]
    assert main["imagePullPolicy"] == "Always"


def test_volumes():
    patch = patch_of(
        config={
            "pvcMount": [
                {"pvcNameParameter": OF_TASK, "mountPath": "/data", "subPath": "a/b"},
                {"constant": "old", "mountPath": "/old"},
            ],
            "emptyDirMounts": [{"volumeName": "scratch", "mountPath": "/scratch", "sizeLimit": "1Gi"}],
            "enabledSharedMemory": {"volumeName": "shm", "size": "2Gi"},
            "genericEphemeralVolume": [
                {
                    "volumeName": "big",
                    "mountPath": "/big",
                    "accessModes": ["ReadWriteOnce"],
                    "size": "5Gi",
                    "storageClassName": "fast",
                    "metadata": {"labels": {"a": "b"}},
                }
            ],
        }
    )
    assert patch["volumes"] == [
        {"name": "claim-0", "persistentVolumeClaim": {"claimName": "made"}},
        {"name": "claim-1", "persistentVolumeClaim": {"claimName": "old"}},
        {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
        {
            "name": "big",
            "ephemeral": {
                "volumeClaimTemplate": {
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "5Gi"}},
                        "storageClassName": "fast",
                    },
                }
            },
        },
    ]
    mounts = {one["mountPath"]: one for one in main_of(patch)["volumeMounts"]}
    assert mounts["/data"]["subPath"] == "a/b"
    assert set(mounts) == {"/data", "/old", "/scratch", "/dev/shm", "/big"}


def test_scheduling():
    terms = [{"key": "zone", "operator": "In", "values": ["a"]}]
    patch = patch_of(
        config={
            "nodeSelector": {"nodeSelectorJson": of_input("selector")},
            "tolerations": [
                {"key": "gpu", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": "60"},
                {"tolerationJson": of_input("tolerations")},
                {"tolerationJson": of_input("absent")},
            ],
            "nodeAffinity": [{"matchExpressions": terms}, {"matchExpressions": terms, "weight": 5}],
            "podAffinity": [
                {"matchPodLabels": {"app": "a"}, "topologyKey": "host", "namespaces": ["n"]},
                {"matchPodExpressions": terms, "topologyKey": "zone", "anti": True, "weight": 3},
            ],
            "securityContext": {"runAsUser": "1000", "runAsGroup": 0, "runAsNonRoot": True},
            "podResourceClaims": [
                {"resourceClaimTemplateName": "gpus"},
                {"resourceClaimJson": of_input("claim")},
            ],
        },
        parameters={
            "selector": {"disk": "ssd"},
            "tolerations": [{"key": "x", "operator": "Exists"}],
            "claim": {"name": "net", "resourceClaimName": "shared"},
        },
    )
    assert patch["nodeSelector"] == {"disk": "ssd"}
    assert patch["tolerations"] == [
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 60},
        {"key": "x", "operator": "Exists"},
    ]
    node = patch["affinity"]["nodeAffinity"]
    assert node["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] == [{"matchExpressions": terms}]
    assert node["preferredDuringSchedulingIgnoredDuringExecution"][0]["weight"] == 5
    (required,) = patch["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required == {"topologyKey": "host", "labelSelector": {"matchLabels": {"app": "a"}}, "namespaces": ["n"]}
    anti = patch["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert anti[0]["weight"] == 3
    assert main_of(patch)["securityContext"] == {"runAsUser": 1000, "runAsGroup": 0, "runAsNonRoot": True}
    assert patch["resourceClaims"] == [
        {"name": "gpus", "resourceClaimTemplateName": "gpus"},
        {"name": "net", "resourceClaimName": "shared"},
    ]
    assert main_of(patch)["resources"]["claims"] == [{"name": "gpus"}, {"name": "net"}]


def test_an_image_is_mounted_where_the_sdk_looks_for_it():
    image = Artifact("a", "model", "system.Model", "0.0.1", "oci://registry.io/team/model:1")
    component = {"inputDefinitions": {"artifacts": {"model": {"artifactType": {"schemaTitle": "system.Model"}}}}}
    patch = patch_of(component=component, artifacts={"model": [image]})
    assert patch["volumes"] == [{"name": "oci-0", "image": {"reference": "registry.io/team/model:1"}}]
    (mount,) = main_of(patch)["volumeMounts"]
    assert mount == {"name": "oci-0", "mountPath": "/oci/registry.io_team_model:1", "readOnly": True}


def test_what_a_component_wants_to_be_told_is_taken_out_of_its_pod():
    patch = patch_of(
        {
            "command": ["run"],
            "args": ["{{$.inputs.parameters['config']}}"],
            "resources": {"resourceCpuLimit": "1"},
            "env": [{"name": "A", "value": "b"}],
        },
        {"nodeSelector": {"labels": {"disk": "ssd"}}, "tolerations": [{"key": "gpu"}]},
        {
            "inputDefinitions": {"parameters": {"config": {"parameterType": "TASK_CONFIG", "isOptional": True}}},
            "taskConfigPassthroughs": [
                {"field": "RESOURCES"},
                {"field": "ENV", "applyToTask": True},
                {"field": "KUBERNETES_NODE_SELECTOR"},
            ],
        },
    )
    main = main_of(patch)
    assert "resources" not in main
    assert "nodeSelector" not in patch
    assert patch["tolerations"] == [{"key": "gpu"}]
    assert {"name": "A", "value": "b"} in main["env"]
    assert '"resources": {"limits": {"cpu": "1"}}' in main["args"][0]
    assert '"nodeSelector": {"disk": "ssd"}' in main["args"][0]


@pytest.mark.parametrize(
    ("container", "config", "words"),
    [
        ({"image": "{{$.inputs.parameters['x']}}"}, {}, "is no name of an image"),
        ({"resources": {"resourceCpuLimit": "{{$.inputs.parameters['x']}}"}}, {}, "is no quantity"),
        ({"args": ["{{$.inputs.parameters['big']}}"]}, {}, "Linux takes 131071"),
        ({}, {"secretAsVolume": [{"secretNameParameter": of_input("x"), "mountPath": "/a"}]}, "no name of a secret"),
        ({}, {"secretAsVolume": [{"secretName": "s", "mountPath": "a"}]}, "no absolute path"),
        ({}, {"secretAsVolume": [{"secretName": "s", "mountPath": "/{{item}}"}]}, "which is Argo's"),
        ({}, {"pvcMount": [{"constant": "c", "mountPath": "/c", "subPath": "../x"}]}, "'..'"),
        ({}, {"pvcMount": [{"mountPath": "/c"}]}, "no name of a claim"),
        ({}, {"emptyDirMounts": [{"volumeName": "mlmesh-work", "mountPath": "/c"}]}, "no name of a volume of yours"),
        ({}, {"nodeSelector": {"nodeSelectorJson": of_input("x")}}, "must be JSON"),
        ({}, {"nodeSelector": {"labels": {"a": "{{item}}"}}}, "which is Argo's"),
        ({}, {"tolerations": [{"tolerationJson": of_input("n")}]}, "must be an object or a list"),
        ({}, {"imagePullPolicy": "Sometimes"}, "imagePullPolicy"),
        ({}, {"fieldPathAsEnv": [{"name": "A", "fieldPath": "status.x{{y}}"}]}, "which is Argo's"),
        ({}, {"podResourceClaims": [{"resourceClaimTemplateName": "a"}, {"resourceClaimTemplateName": "a"}]}, "two"),
    ],
)
def test_a_pod_that_makes_no_sense_is_refused_in_words(container, config, words):
    parameters = {"x": "No Name!{{", "big": "x" * 200_000, "n": 3}
    with pytest.raises(BadPod, match=re.escape(words)):
        patch_of(container, config, parameters=parameters)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://b/k/x", "/s3/b/k/x"),
        ("minio://b/k", "/minio/b/k"),
        ("gs://b/k", "/gcs/b/k"),
        ("https://x/y", None),
        ("s3://b/../../etc/passwd", None),
        ("s3://b/\0", None),
    ],
)
def test_artifacts_have_the_paths_that_the_sdk_knows(uri, path):
    assert local_path(uri) == path
