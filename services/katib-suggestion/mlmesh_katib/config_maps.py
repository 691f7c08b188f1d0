"""Trial templates that lie in a ConfigMap: read once, when an experiment is made."""

import json
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlmesh_kit.documents import load_yaml
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound

if TYPE_CHECKING:
    from mlmesh_katib.jobs.cluster import Cluster

_WHERE = "manifest.spec.trialTemplate"
MAX_TEMPLATE_BYTES = 1 << 20
"""As large as Kubernetes lets a ConfigMap be."""


class ConfigMapTemplates:
    """Puts the template that a manifest names into the manifest.

    Args:
        enabled: Whether there is a cluster to read from.
        kubeconfig: File that says where it is; empty: of the pod that we run in, or else the user's.
        context: In that file; empty: its current one.
        namespace: Kubernetes' namespace of all trials; empty: that of the experiment.
        shared: Namespaces whose templates everyone may use.
    """

    def __init__(
        self, enabled: bool, kubeconfig: str = "", context: str = "", namespace: str = "", shared: Sequence[str] = ()
    ) -> None:
        self._enabled = enabled
        self._kubeconfig = kubeconfig
        self._context = context
        self._namespace = namespace
        self._shared = shared
        self._lock = threading.Lock()
        self._cluster: Cluster | None = None

    def resolve(self, namespace: str, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """Gives the manifest with a `trialSpec` in place of `configMap`; as it is where it has none. Blocks.

        Args:
            namespace: Of the experiment.
            manifest: Of the experiment, not checked yet.

        Raises:
            InvalidArgument: The reference or the template is wrong.
            FailedPrecondition: There is no cluster, or the ConfigMap is another namespace's, or not there.
            Unavailable, PermissionDenied: See `mlmesh_kit.kubernetes.cluster_errors`.
        """
        spec = manifest.get("spec")
        template = spec.get("trialTemplate") if isinstance(spec, Mapping) else None
        if not isinstance(spec, Mapping) or not isinstance(template, Mapping) or template.get("configMap") is None:
            return manifest
        where = f"{_WHERE}.configMap"
        reference = template["configMap"]
        if not isinstance(reference, Mapping):
            raise InvalidArgument("must be an object", field=where)
        if template.get("trialSpec") is not None:
            raise InvalidArgument("must not be given beside trialSpec", field=where)
        name, path = (_text(reference, key, where) for key in ("configMapName", "templatePath"))
        own = self._namespace or namespace
        place = reference.get("configMapNamespace") or own
        if place != own and place not in self._shared:
            raise FailedPrecondition(
                f"{where}.configMapNamespace: templates of {own}"
                f"{''.join(f', {one}' for one in self._shared)} can be used, not of {str(place)[:100]!r}"
            )
        if not self._enabled:
            raise FailedPrecondition(
                f"{where}: this service has no cluster to read it from (BACKEND is local); give trialSpec"
            )
        text = self._read(str(place), name, path, where)
        found = load_yaml(text, field=f"{where} ({path})", max_bytes=MAX_TEMPLATE_BYTES)
        try:  # YAML has dates, numbers as keys and NaN; a resource of Kubernetes has not
            found = json.loads(json.dumps(found, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InvalidArgument("must hold nothing that JSON has not", field=f"{where} ({path})") from error
        rest = {key: value for key, value in template.items() if key != "configMap"}
        return {**manifest, "spec": {**spec, "trialTemplate": {**rest, "trialSpec": found}}}

    def _read(self, namespace: str, name: str, path: str, where: str) -> str:
        with self._lock:
            if self._cluster is None:
                from mlmesh_katib.jobs.cluster import Cluster  # slow to import, and only for those who have a cluster

                self._cluster = Cluster(self._kubeconfig, self._context)
        try:
            data = self._cluster.config_map(namespace, name)
        except NotFound as error:
            raise FailedPrecondition(f"{where}: there is no ConfigMap {namespace}/{name}") from error
        if path not in data:
            raise FailedPrecondition(f"{where}.templatePath: ConfigMap {namespace}/{name} has no {path!r}")
        return data[path]


def _text(reference: Mapping[str, Any], key: str, where: str) -> str:
    value = reference.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 253:
        raise InvalidArgument("must be 1 to 253 characters", field=f"{where}.{key}")
    return value
