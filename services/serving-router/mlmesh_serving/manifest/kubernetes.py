"""Fields of KServe's that have a meaning on Kubernetes alone: kept in the manifest, and rendered for it.

Those that would change what a model answers are not among them: they are refused.
"""

POD = frozenset({
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks",
    "hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostname", "imagePullSecrets", "nodeName", "nodeSelector",
    "os", "overhead", "preemptionPolicy", "priority", "priorityClassName", "readinessGates", "restartPolicy",
    "runtimeClassName", "schedulerName", "securityContext", "serviceAccount", "serviceAccountName",
    "setHostnameAsFQDN", "shareProcessNamespace", "subdomain", "terminationGracePeriodSeconds", "tolerations",
    "topologySpreadConstraints",
})  # fmt: skip
"""Of a pod."""

COMPONENT = POD | {"autoScaling", "deploymentStrategy", "labels", "scaleMetricType"}
"""Of a component (predictor, transformer, explainer)."""

CONTAINER = frozenset({
    "imagePullPolicy", "lifecycle", "livenessProbe", "name", "ports", "readinessProbe", "resources", "runtimeVersion",
    "securityContext", "startupProbe", "stdin", "stdinOnce", "terminationMessagePath", "terminationMessagePolicy",
    "tty",
})  # fmt: skip
"""Of a container."""

_NO_CONTAINER = "no container is started; a model comes from storageUri, a server of your own from remote"

REFUSED_COMPONENT = {
    "containers": _NO_CONTAINER,
    "ephemeralContainers": _NO_CONTAINER,
    "initContainers": _NO_CONTAINER,
    "storageUris": "name one storageUri",
    "volumes": _NO_CONTAINER,
    "workerSpec": "a model runs on one machine",
}
"""Of a component; each with what to do instead."""

REFUSED_CONTAINER = {
    "args": f"{_NO_CONTAINER}; what a format can be told are options",
    "command": _NO_CONTAINER,
    "confidential": "models are not decrypted",
    "envFrom": "name variables in env",
    "image": _NO_CONTAINER,
    "storage": "write the whole storageUri",
    "volumeDevices": _NO_CONTAINER,
    "volumeMounts": _NO_CONTAINER,
    "workingDir": _NO_CONTAINER,
}
"""Of a container; each with what to do instead."""
