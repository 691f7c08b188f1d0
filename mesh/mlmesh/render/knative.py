"""What Knative reads: a Service for each gRPC port, and one for each HTTP port that has routes.

A Knative Service has one port. State lives in the database, so that the two of one service may be apart.
"""

from typing import Any

from mlmesh.description import Mesh, Service
from mlmesh.render.istio import LABEL, NAMESPACE, host_of

Tree = dict[str, Any]


def render_knative(mesh: Mesh) -> dict[str, list[Tree]]:
    """Renders the objects, by the name of the file that they belong in."""
    files = {"namespace.yaml": [_namespace()]}
    for name, service in mesh.services.items():
        objects = [_account(name), _service(mesh, name, service, name, "h2c", service.ports.grpc)]
        if service.http:
            objects.append(_service(mesh, name, service, f"{name}-http", "http1", service.ports.http))
        files[f"{name}.yaml"] = objects
    return files


def _namespace() -> Tree:
    labels = {"istio-injection": "enabled"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _account(name: str) -> Tree:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": _labels(name)},
    }


def _labels(name: str) -> dict[str, str]:
    return {LABEL: name, "app.kubernetes.io/part-of": "mlmesh"}


def _service(mesh: Mesh, name: str, service: Service, knative_name: str, port_name: str, port: int) -> Tree:
    scale = service.scale or mesh.defaults.scale
    resources = service.resources or mesh.defaults.resources
    probe: Tree = {"grpc": {"port": port}} if port_name == "h2c" else {"httpGet": {"path": "/healthz", "port": port}}
    container = {
        "name": name,
        "image": f"mlmesh/{name}:0.1.0",
        "ports": [{"name": port_name, "containerPort": port}],
        "env": _environment(mesh, name, service),
        "readinessProbe": {**probe, "periodSeconds": 2},
        "resources": {
            "requests": {"cpu": resources.cpu, "memory": resources.memory},
            "limits": {"memory": resources.memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    annotations = {
        "autoscaling.knative.dev/min-scale": str(scale.min),
        "autoscaling.knative.dev/max-scale": str(scale.max),
        "autoscaling.knative.dev/metric": "concurrency",
        "autoscaling.knative.dev/target": str(scale.concurrency),
    }
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": knative_name,
            "namespace": NAMESPACE,
            # Reached through the gateway of the mesh alone.
            "labels": {**_labels(name), "networking.knative.dev/visibility": "cluster-local"},
        },
        "spec": {
            "template": {
                "metadata": {"labels": _labels(name), "annotations": annotations},
                "spec": {
                    "serviceAccountName": name,
                    "containerConcurrency": 0,
                    "timeoutSeconds": int(service.deadline_seconds or mesh.defaults.deadline_seconds),
                    "containers": [container],
                },
            }
        },
    }


def _environment(mesh: Mesh, name: str, service: Service) -> list[Tree]:
    prefix = f"MLMESH_{name.upper().replace('-', '_')}_"
    settings = {
        "HOST": "0.0.0.0",  # noqa: S104 - in a pod, behind Istio's sidecar
        "GRPC_PORT": str(service.ports.grpc),
        "HTTP_PORT": str(service.ports.http),
        "DATA_DIR": "/tmp/mlmesh",  # noqa: S108 - a pod's own; state lives in the database
        "ARTIFACT_ROOT": "s3://mlmesh",
    }
    for setting, peer in service.peers.items():
        settings[setting.upper()] = f"{host_of(peer)}:80"
    if service.ingress_setting:
        settings[service.ingress_setting.upper()] = "http://istio-ingressgateway.istio-system.svc.cluster.local"
    variables: list[Tree] = [{"name": prefix + key, "value": value} for key, value in settings.items()]
    variables += [{"name": key, "value": value} for key, value in service.env.items()]
    database = {"secretKeyRef": {"name": "mlmesh-database", "key": name}}
    return [*variables, {"name": prefix + "DATABASE_URL", "valueFrom": database}]
