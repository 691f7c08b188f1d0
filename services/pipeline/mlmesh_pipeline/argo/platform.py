"""What kfp-kubernetes asks of Kubernetes for a task, as parts of a pod.

What names something may be a value of the task's inputs; each is looked at again before it goes into the pod.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlmesh_pipeline.argo.names import DNS_LABEL, DNS_NAME
from mlmesh_pipeline.argo.text import has_variable
from mlmesh_pipeline.ir.cluster_names import KINDS as _NAMED_IN_VARIABLES
from mlmesh_pipeline.ir.values import whole

Json = dict[str, Any]
_FIELD_PATHS = ("metadata.", "spec.nodeName", "spec.serviceAccountName", "status.")


class BadPlatform(ValueError):
    """What is asked of Kubernetes makes no sense; the message says what."""


@dataclass(slots=True)
class PodParts:
    """What becomes of it: of the pod (`pod`), of its `main` container, and of both in step (volumes, variables)."""

    pod: Json = field(default_factory=dict)
    main: Json = field(default_factory=dict)
    volumes: list[Json] = field(default_factory=list)
    mounts: list[Json] = field(default_factory=list)
    variables: list[Json] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)


class Values:
    """Gives the values that a configuration names.

    Args:
        around: Inputs of the DAG that the task is in, which is what `componentInputParameter` means here.
        output_of: Gives an output parameter of a task beside it, by the task's name and the output's.
    """

    def __init__(self, around: Mapping[str, Any], output_of: Callable[[str, str], Any]) -> None:
        self._around = around
        self._output_of = output_of

    def get(self, entry: Mapping[str, Any], plain: str, given: str) -> Any:
        """Gives the value of a field that may be written plainly (`plain`) or as an input (`given`); None: none."""
        source = entry.get(given) or {}
        if not source:
            return entry.get(plain) if plain else None
        if "runtimeValue" in source:
            return whole(source["runtimeValue"].get("constant"))
        return self.named(source)

    def named(self, source: Mapping[str, Any]) -> Any:
        """Gives the value of an input of the DAG around the task, or of an output of a task beside it."""
        if "componentInputParameter" in source:
            return self._around.get(source["componentInputParameter"])
        output = source.get("taskOutputParameter")
        if output:
            return self._output_of(output.get("producerTask", ""), output.get("outputParameterKey", ""))
        return source.get("constant")


def pod_parts(config: Mapping[str, Any], values: Values) -> PodParts:
    """Gives the parts of a pod that a platform configuration asks for.

    Raises:
        BadPlatform: A name is none, or something is missing.
    """
    parts = PodParts()
    _variables(parts, config, values)
    _volumes(parts, config, values)
    _scheduling(parts, config, values)
    for entry in config.get("imagePullSecret", []):
        name = values.get(entry, "secretName", "secretNameParameter")
        if name:
            parts.pod.setdefault("imagePullSecrets", []).append({"name": _name(name, "secret")})
    if policy := config.get("imagePullPolicy"):
        if policy not in {"Always", "IfNotPresent", "Never"}:
            raise BadPlatform(f"imagePullPolicy must be Always, IfNotPresent or Never, got {policy!r}")
        parts.main["imagePullPolicy"] = policy
    context = config.get("securityContext", {})
    found = {key: int(context[key]) for key in ("runAsUser", "runAsGroup") if key in context}
    if "runAsNonRoot" in context:
        found["runAsNonRoot"] = bool(context["runAsNonRoot"])
    if found:
        parts.main["securityContext"] = found
    return parts


def _variables(parts: PodParts, config: Mapping[str, Any], values: Values) -> None:
    references = {"secretAsEnv": "secretKeyRef", "configMapAsEnv": "configMapKeyRef"}
    for key, plain, given, key_name, kind in _NAMED_IN_VARIABLES:
        for entry in config.get(key, []):
            name = values.get(entry, plain, given)
            if not name and entry.get("optional"):
                continue
            reference = {"name": _name(name, kind), **_optional(entry)}
            for pair in entry.get("keyToEnv", []):
                source = {references[key]: {**reference, "key": _plain(pair.get(key_name), "key")}}
                parts.variables.append({"name": _plain(pair.get("envVar"), "envVar"), "valueFrom": source})
    for entry in config.get("fieldPathAsEnv", []):
        path = _plain(entry.get("fieldPath"), "fieldPath")
        if not path.startswith(_FIELD_PATHS):
            raise BadPlatform(f"fieldPath {path!r} is none of a pod's")
        source = {"fieldRef": {"fieldPath": path}}
        parts.variables.append({"name": _plain(entry.get("name"), "name"), "valueFrom": source})


def _volumes(parts: PodParts, config: Mapping[str, Any], values: Values) -> None:
    def mount(name: str, entry: Mapping[str, Any], source: Json, **more: Any) -> None:
        if name not in {volume["name"] for volume in parts.volumes}:
            parts.volumes.append({"name": name, **source})
        parts.mounts.append({"name": name, "mountPath": _path(entry.get("mountPath")), **more})

    for number, entry in enumerate(config.get("secretAsVolume", [])):
        name = values.get(entry, "secretName", "secretNameParameter")
        if name or not entry.get("optional"):
            secret = {"secretName": _name(name, "secret"), **_optional(entry)}
            mount(f"secret-{number}", entry, {"secret": secret})
    for number, entry in enumerate(config.get("configMapAsVolume", [])):
        name = values.get(entry, "configMapName", "configMapNameParameter")
        if name or not entry.get("optional"):
            mount(f"config-{number}", entry, {"configMap": {"name": _name(name, "config map"), **_optional(entry)}})
    for number, entry in enumerate(config.get("pvcMount", [])):
        name = values.get(entry, "", "pvcNameParameter")
        name = values.named(entry) if name is None else name
        more = {"subPath": _plain(entry["subPath"], "subPath")} if entry.get("subPath") else {}
        if ".." in str(entry.get("subPath", "")).split("/"):
            raise BadPlatform("subPath must not hold '..'")
        mount(f"claim-{number}", entry, {"persistentVolumeClaim": {"claimName": _name(name, "claim")}}, **more)
    for entry in config.get("emptyDirMounts", []):
        folder = {key: _plain(entry[key], key) for key in ("medium", "sizeLimit") if entry.get(key)}
        mount(_volume(entry), entry, {"emptyDir": folder})
    if shared := config.get("enabledSharedMemory"):
        size = {"sizeLimit": _plain(shared["size"], "size")} if shared.get("size") else {}
        name = _volume({"volumeName": shared.get("volumeName") or "shm"})
        mount(name, {"mountPath": "/dev/shm"}, {"emptyDir": {"medium": "Memory", **size}})  # noqa: S108
    for entry in config.get("genericEphemeralVolume", []):
        spec = claim_spec(entry)
        metadata = {
            key: entry["metadata"][key] for key in ("labels", "annotations") if entry.get("metadata", {}).get(key)
        }
        _refuse_variables(metadata, "metadata")
        template = {"spec": spec, **({"metadata": metadata} if metadata else {})}
        mount(_volume(entry), entry, {"ephemeral": {"volumeClaimTemplate": template}})


def claim_spec(entry: Mapping[str, Any]) -> Json:
    """Gives the specification of a claim, of how kfp-kubernetes describes one."""
    modes = entry.get("accessModes") or []
    if not isinstance(modes, list) or not modes:
        raise BadPlatform("accessModes are required")
    size = _plain(entry.get("size"), "size")
    spec: Json = {"accessModes": [_plain(mode, "access mode") for mode in modes]}
    spec["resources"] = {"requests": {"storage": size}}
    if not entry.get("defaultStorageClass") and entry.get("storageClassName") is not None:
        spec["storageClassName"] = str(entry["storageClassName"])
        _refuse_variables(spec["storageClassName"], "storageClassName")
    return spec


def _scheduling(parts: PodParts, config: Mapping[str, Any], values: Values) -> None:
    if selector := config.get("nodeSelector"):
        labels = values.get(selector, "", "nodeSelectorJson")
        labels = selector.get("labels", {}) if labels is None else _json(labels, dict, "nodeSelectorJson")
        if labels:
            _refuse_variables(labels, "nodeSelector")
            parts.pod["nodeSelector"] = {str(key): str(value) for key, value in labels.items()}
    tolerations: list[Json] = []
    for entry in config.get("tolerations", []):
        if "tolerationJson" in entry:
            found = values.get(entry, "", "tolerationJson")
            if found is not None:
                found = _json(found, (dict, list), "tolerationJson")
                tolerations += found if isinstance(found, list) else [found] if found else []
            continue
        one = {key: value for key, value in entry.items() if value not in ("", None)}
        if "tolerationSeconds" in one:
            one["tolerationSeconds"] = int(one["tolerationSeconds"])
        tolerations.append(one)
    if tolerations:
        _refuse_variables(tolerations, "tolerations")
        parts.pod["tolerations"] = tolerations
    affinity: Json = {}
    _node_affinity(affinity, config, values)
    _pod_affinity(affinity, config)
    if affinity:
        _refuse_variables(affinity, "affinity")
        parts.pod["affinity"] = affinity
    for entry in config.get("podResourceClaims", []):
        given = values.get(entry, "", "resourceClaimJson") if "resourceClaimJson" in entry else entry
        if given is not None:
            given = _json(given, (dict, list), "resourceClaimJson")
            for one in given if isinstance(given, list) else [given]:
                _resource_claim(parts, one)


def _resource_claim(parts: PodParts, entry: Mapping[str, Any]) -> None:
    template = entry.get("resourceClaimTemplateName")
    existing = entry.get("resourceClaimName") or entry.get("existingClaimName")
    source = {"resourceClaimTemplateName": template} if template else {"resourceClaimName": existing}
    name = entry.get("name") or entry.get("localName") or next(iter(source.values()))
    if not isinstance(name, str) or not DNS_LABEL.fullmatch(name):
        raise BadPlatform(f"{name!r} is no name of a resource claim")
    _name(next(iter(source.values())), "resource claim")
    if name in parts.claims:
        raise BadPlatform(f"two resource claims are called {name!r}")
    parts.claims.append(name)
    parts.pod.setdefault("resourceClaims", []).append({"name": name, **source})


def _node_affinity(affinity: Json, config: Mapping[str, Any], values: Values) -> None:
    found: Json = {}
    for entry in config.get("nodeAffinity", []):
        if "nodeAffinityJson" in entry:
            given = values.get(entry, "", "nodeAffinityJson")
            if given is not None:
                found |= _json(given, dict, "nodeAffinityJson")
            continue
        term = {key: entry[key] for key in ("matchExpressions", "matchFields") if entry.get(key)}
        if not term:
            continue
        if "weight" in entry:
            preferred = found.setdefault("preferredDuringSchedulingIgnoredDuringExecution", [])
            preferred.append({"weight": int(entry["weight"]), "preference": term})
        else:
            required = found.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {"nodeSelectorTerms": []})
            required["nodeSelectorTerms"].append(term)
    if found:
        affinity["nodeAffinity"] = found


def _pod_affinity(affinity: Json, config: Mapping[str, Any]) -> None:
    for entry in config.get("podAffinity", []):
        term: Json = {"topologyKey": entry.get("topologyKey", "")}
        pods = _selector(entry.get("matchPodExpressions"), entry.get("matchPodLabels"))
        namespaces = _selector(entry.get("matchNamespaceExpressions"), entry.get("matchNamespaceLabels"))
        if pods:
            term["labelSelector"] = pods
        if namespaces:
            term["namespaceSelector"] = namespaces
        if entry.get("namespaces"):
            term["namespaces"] = entry["namespaces"]
        kind = affinity.setdefault("podAntiAffinity" if entry.get("anti") else "podAffinity", {})
        if "weight" in entry:
            preferred = kind.setdefault("preferredDuringSchedulingIgnoredDuringExecution", [])
            preferred.append({"weight": int(entry["weight"]), "podAffinityTerm": term})
        else:
            kind.setdefault("requiredDuringSchedulingIgnoredDuringExecution", []).append(term)


def _selector(expressions: Any, labels: Any) -> Json:
    return {
        **({"matchExpressions": expressions} if expressions else {}),
        **({"matchLabels": labels} if labels else {}),
    }


def _json(value: Any, kind: Any, name: str) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else {}
        except (ValueError, RecursionError) as error:
            raise BadPlatform(f"{name} must be JSON") from error
    if not isinstance(value, kind):
        raise BadPlatform(f"{name} must be an object" + (" or a list" if kind is not dict else ""))
    return whole(value)


def _optional(entry: Mapping[str, Any]) -> Json:
    return {"optional": bool(entry["optional"])} if "optional" in entry else {}


def _name(value: Any, kind: str) -> str:
    if not isinstance(value, str) or not DNS_NAME.fullmatch(value):
        raise BadPlatform(f"{value!r} is no name of a {kind}")
    return value


def _volume(entry: Mapping[str, Any]) -> str:
    name = entry.get("volumeName")
    if not isinstance(name, str) or not DNS_LABEL.fullmatch(name) or name.startswith("mlmesh-"):
        raise BadPlatform(f"{name!r} is no name of a volume of yours")
    return name


def _path(value: Any) -> str:
    path = _plain(value, "mountPath")
    if not path.startswith("/") or ":" in path or ".." in path.split("/"):
        raise BadPlatform(f"mountPath {path!r} is no absolute path")
    return path


def _plain(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadPlatform(f"{name} is required")
    _refuse_variables(value, name)
    return value


def _refuse_variables(value: Any, name: str) -> None:
    if has_variable(json.dumps(value)):
        raise BadPlatform(f"{name} must not hold '{{{{', which is Argo's")
