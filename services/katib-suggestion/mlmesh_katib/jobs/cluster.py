"""What trials ask of Kubernetes, through its client. Every method blocks, and raises as `cluster_errors`."""

import threading
from collections.abc import Mapping
from typing import Any

from kubernetes import client
from kubernetes.client.rest import ApiException
from mlmesh_kit.errors import FailedPrecondition
from mlmesh_kit.kubernetes import Answer, cluster_errors, connect

Json = dict[str, Any]


class Cluster:
    """Resources of any kind, pods and their logs.

    Args:
        kubeconfig: File that says where it is; empty: of the pod that we run in, or else the user's.
        context: In that file; empty: its current one.
        timeout_seconds: Of a call.
    """

    def __init__(self, kubeconfig: str = "", context: str = "", timeout_seconds: float = 10) -> None:
        self._api = connect(kubeconfig, context)
        self._objects = client.CustomObjectsApi(self._api)
        self._core = client.CoreV1Api(self._api)
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        self._plurals: dict[tuple[str, str], str] = {}

    def close(self) -> None:
        """Closes the connections."""
        self._api.close()

    def create(self, manifest: Json) -> Json | None:
        """Makes a resource; None: there is one of its name."""
        metadata = manifest["metadata"]
        with cluster_errors(manifest["kind"], metadata["name"]):
            place = self._place(manifest["apiVersion"], manifest["kind"])
            group, version, plural = place
            try:
                made: Json = self._objects.create_namespaced_custom_object(
                    group, version, metadata["namespace"], plural, manifest, _request_timeout=self._timeout
                )
            except ApiException as error:
                if error.status == 409:
                    return None
                raise
        return made

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Json:
        """Gives a resource."""
        with cluster_errors(kind, name):
            group, version, plural = self._place(api_version, kind)
            found: Json = self._objects.get_namespaced_custom_object(
                group, version, namespace, plural, name, _request_timeout=self._timeout
            )
        return found

    def watch(self, api_version: str, kind: str, namespace: str, name: str, since: str, timeout_seconds: int) -> Answer:
        """Gives the changes of a resource since a version, until the time is over. Others may be among them.

        Args:
            since: The version.
            timeout_seconds: How long.
        """
        with cluster_errors(kind, name):
            group, version, plural = self._place(api_version, kind)
            answer = self._objects.list_namespaced_custom_object(
                group,
                version,
                namespace,
                plural,
                field_selector=f"metadata.name={name}",
                resource_version=since,
                watch="true",  # so written, and not as Python does
                timeout_seconds=timeout_seconds,
                _request_timeout=(self._timeout, timeout_seconds + self._timeout),
                _preload_content=False,
            )
        return Answer(answer, kind, name)

    def delete(self, api_version: str, kind: str, namespace: str, name: str, uid: str, propagation: str) -> bool:
        """Removes a resource, if it is the one of this uid; says whether there was one.

        Args:
            uid: Of the resource; empty: whichever has the name.
            propagation: Foreground: it goes after all that it owns; Background: before.
        """
        options: Json = {"propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        with cluster_errors(kind, name):
            group, version, plural = self._place(api_version, kind)
            try:
                self._objects.delete_namespaced_custom_object(
                    group, version, namespace, plural, name, body=options, _request_timeout=self._timeout
                )
            except ApiException as error:
                if error.status in {404, 409}:  # 409: another has its name
                    return False
                raise
        return True

    def config_map(self, namespace: str, name: str) -> dict[str, str]:
        """Gives the texts of a ConfigMap by their keys."""
        with cluster_errors("ConfigMap", name):
            found = self._core.read_namespaced_config_map(name, namespace, _request_timeout=self._timeout)
        return dict(found.data or {})

    def pods(self, namespace: str, labels: Mapping[str, str]) -> list[Json]:
        """Lists the pods that have labels, the oldest first."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        with cluster_errors("pods", namespace):
            made = self._core.list_namespaced_pod(namespace, label_selector=selector, _request_timeout=self._timeout)
        found: list[Json] = self._api.sanitize_for_serialization(made).get("items") or []
        found = [pod for pod in found if labels.items() <= (pod["metadata"].get("labels") or {}).items()]
        return sorted(found, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]))

    def log(self, namespace: str, pod: str, container: str) -> Answer:
        """Gives the log of a container as it comes, to its end.

        Raises:
            Refused: The container has not begun.
        """
        with cluster_errors("pod", pod):
            answer = self._core.read_namespaced_pod_log(
                pod,
                namespace,
                container=container,
                follow="true",
                _preload_content=False,
                _request_timeout=(self._timeout, None),
            )
        return Answer(answer, "pod", pod)

    def _place(self, api_version: str, kind: str) -> tuple[str, str, str]:
        """Gives group, version and plural of a kind, as the cluster names it."""
        group, _, version = api_version.rpartition("/")
        with self._lock:
            plural = self._plurals.get((api_version, kind))
        if plural is None:
            try:
                resources = self._objects.get_api_resources(group, version, _request_timeout=self._timeout).resources
            except ApiException as error:
                if error.status != 404:
                    raise
                resources = []
            names = [one.name for one in resources if one.kind == kind and one.namespaced and "/" not in one.name]
            if not names:
                raise FailedPrecondition(f"the cluster has no {kind} ({api_version}); is its operator installed?")
            plural = str(names[0])
            with self._lock:
                self._plurals[api_version, kind] = plural
        return group, version, plural
