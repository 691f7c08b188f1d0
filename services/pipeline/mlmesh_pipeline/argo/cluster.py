"""What we ask of Kubernetes, through its client."""

from collections.abc import Iterator
from typing import Any

from kubernetes import client
from kubernetes.client.rest import ApiException
from mlmesh_kit.kubernetes import Answer, connect
from mlmesh_kit.kubernetes import cluster_errors as _errors

from mlmesh_pipeline.argo.workflow import API_VERSION

Json = dict[str, Any]
_GROUP, _VERSION = API_VERSION.split("/")
_PLURAL = "workflows"


class Cluster:
    """Workflows, pods' logs and claims of a cluster.

    Every method raises Unavailable where the cluster cannot be reached or cannot answer, PermissionDenied where it
    does not let us, and NotFound for what is not there.

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

    def close(self) -> None:
        """Closes the connections."""
        self._api.close()

    # -- workflows -----------------------------------------------------------------------------------------------

    def create_workflow(self, manifest: Json) -> Json | None:
        """Makes a Workflow; None: there is one of its name."""
        namespace = manifest["metadata"]["namespace"]
        with _errors("workflow", manifest["metadata"]["name"]):
            try:
                made: Json = self._objects.create_namespaced_custom_object(
                    _GROUP, _VERSION, namespace, _PLURAL, manifest, _request_timeout=self._timeout
                )
            except ApiException as error:
                if error.status == 409:
                    return None
                raise
        return made

    def workflow(self, namespace: str, name: str) -> Json:
        """Gives a Workflow."""
        with _errors("workflow", name):
            found: Json = self._objects.get_namespaced_custom_object(
                _GROUP, _VERSION, namespace, _PLURAL, name, _request_timeout=self._timeout
            )
        return found

    def workflows(self, namespace: str, selector: str) -> tuple[list[Json], str]:
        """Lists Workflows by label; gives them and the version of the list."""
        with _errors("workflows", namespace):
            found: Json = self._objects.list_namespaced_custom_object(
                _GROUP, _VERSION, namespace, _PLURAL, label_selector=selector, _request_timeout=self._timeout
            )
        return found.get("items", []), found.get("metadata", {}).get("resourceVersion", "")

    def watch_workflows(
        self, namespace: str, selector: str, version: str, timeout_seconds: int
    ) -> Iterator[tuple[str, Json]]:
        """Gives the changes of Workflows since a version, until the time is over: pairs of kind and object.

        Raises:
            Gone: The version is too old.
        """
        with _errors("workflows", namespace):
            answer = self._objects.list_namespaced_custom_object(
                _GROUP,
                _VERSION,
                namespace,
                _PLURAL,
                label_selector=selector,
                resource_version=version,
                watch="true",  # so written, and not as Python does
                allow_watch_bookmarks="true",
                timeout_seconds=timeout_seconds,
                _request_timeout=(self._timeout, timeout_seconds + self._timeout),
                _preload_content=False,
            )
        yield from Answer(answer, "workflows", namespace).events()

    def terminate(self, namespace: str, name: str) -> None:
        """Ends a Workflow with all its pods."""
        with _errors("workflow", name):
            self._objects.patch_namespaced_custom_object(
                _GROUP,
                _VERSION,
                namespace,
                _PLURAL,
                name,
                [{"op": "add", "path": "/spec/shutdown", "value": "Terminate"}],
                _request_timeout=self._timeout,
            )

    def delete_workflow(self, namespace: str, name: str) -> None:
        """Removes a Workflow with its pods; none there is fine."""
        with _errors("workflow", name):
            try:
                self._objects.delete_namespaced_custom_object(
                    _GROUP,
                    _VERSION,
                    namespace,
                    _PLURAL,
                    name,
                    propagation_policy="Background",
                    _request_timeout=self._timeout,
                )
            except ApiException as error:
                if error.status != 404:
                    raise

    # -- pods ----------------------------------------------------------------------------------------------------

    def log(self, namespace: str, pod: str, *, follow: bool = False, tail: int | None = None) -> Answer:
        """Gives the log of a pod's `main` container; with `follow` until it ends.

        Raises:
            Refused: The container has not begun.
        """
        more = {"tail_lines": tail} if tail else {}
        with _errors("pod", pod):
            answer = self._core.read_namespaced_pod_log(
                pod,
                namespace,
                container="main",
                follow=str(follow).lower(),
                _preload_content=False,
                _request_timeout=(self._timeout, None if follow else self._timeout),
                **more,
            )
        return Answer(answer, "pod", pod)

    # -- claims --------------------------------------------------------------------------------------------------

    def create_claim(self, namespace: str, manifest: Json) -> Json | None:
        """Makes a persistent volume claim; None: there is one of its name."""
        with _errors("claim", manifest["metadata"]["name"]):
            try:
                made = self._core.create_namespaced_persistent_volume_claim(
                    namespace, manifest, _request_timeout=self._timeout
                )
            except ApiException as error:
                if error.status == 409:
                    return None
                raise
        found: Json = self._api.sanitize_for_serialization(made)
        return found

    def claim(self, namespace: str, name: str) -> Json:
        """Gives a persistent volume claim."""
        with _errors("claim", name):
            made = self._core.read_namespaced_persistent_volume_claim(name, namespace, _request_timeout=self._timeout)
        found: Json = self._api.sanitize_for_serialization(made)
        return found

    def delete_claim(self, namespace: str, name: str) -> None:
        """Removes a persistent volume claim; none there is fine."""
        with _errors("claim", name):
            try:
                self._core.delete_namespaced_persistent_volume_claim(name, namespace, _request_timeout=self._timeout)
            except ApiException as error:
                if error.status != 404:
                    raise
