"""The fields of kfp-kubernetes' configuration of an executor, and whether a configuration has them as it should."""

from collections.abc import Iterator
from typing import Any

TEXT, WHOLE, TRUTH, TEXTS, MAP, INPUT = "text", "whole", "truth", "texts", "map", "input"
_KEYS = [{"secretKey": TEXT, "configMapKey": TEXT, "envVar": TEXT}]
_TERMS = [{"key": TEXT, "operator": TEXT, "values": TEXTS}]
_PRODUCER = {"producerTask": TEXT, "outputParameterKey": TEXT}
_METADATA = {"labels": MAP, "annotations": MAP}
_STORAGE = {"accessModes": TEXTS, "size": TEXT, "defaultStorageClass": TRUTH, "storageClassName": TEXT}

FIELDS: dict[str, Any] = {
    "secretAsVolume": [{"secretName": TEXT, "secretNameParameter": INPUT, "mountPath": TEXT, "optional": TRUTH}],
    "secretAsEnv": [{"secretName": TEXT, "secretNameParameter": INPUT, "keyToEnv": _KEYS, "optional": TRUTH}],
    "configMapAsVolume": [
        {"configMapName": TEXT, "configMapNameParameter": INPUT, "mountPath": TEXT, "optional": TRUTH}
    ],
    "configMapAsEnv": [{"configMapName": TEXT, "configMapNameParameter": INPUT, "keyToEnv": _KEYS, "optional": TRUTH}],
    "fieldPathAsEnv": [{"name": TEXT, "fieldPath": TEXT}],
    "pvcMount": [
        {
            "taskOutputParameter": _PRODUCER,
            "constant": TEXT,
            "componentInputParameter": TEXT,
            "mountPath": TEXT,
            "pvcNameParameter": INPUT,
            "subPath": TEXT,
        }
    ],
    "emptyDirMounts": [{"volumeName": TEXT, "mountPath": TEXT, "medium": TEXT, "sizeLimit": TEXT}],
    "genericEphemeralVolume": [{"volumeName": TEXT, "mountPath": TEXT, "metadata": _METADATA, **_STORAGE}],
    "enabledSharedMemory": {"volumeName": TEXT, "size": TEXT},
    "nodeSelector": {"labels": MAP, "nodeSelectorJson": INPUT},
    "tolerations": [
        {
            "key": TEXT,
            "operator": TEXT,
            "value": TEXT,
            "effect": TEXT,
            "tolerationSeconds": WHOLE,
            "tolerationJson": INPUT,
        }
    ],
    "nodeAffinity": [{"matchExpressions": _TERMS, "matchFields": _TERMS, "weight": WHOLE, "nodeAffinityJson": INPUT}],
    "podAffinity": [
        {
            "matchPodExpressions": _TERMS,
            "matchPodLabels": MAP,
            "topologyKey": TEXT,
            "namespaces": TEXTS,
            "matchNamespaceExpressions": _TERMS,
            "matchNamespaceLabels": MAP,
            "weight": WHOLE,
            "anti": TRUTH,
        }
    ],
    "podMetadata": _METADATA,
    "podResourceClaims": [
        {
            "name": TEXT,
            "localName": TEXT,
            "resourceClaimTemplateName": TEXT,
            "resourceClaimName": TEXT,
            "existingClaimName": TEXT,
            "resourceClaimJson": INPUT,
        }
    ],
    "imagePullSecret": [{"secretName": TEXT, "secretNameParameter": INPUT}],
    "imagePullPolicy": TEXT,
    "activeDeadlineSeconds": WHOLE,
    "securityContext": {"runAsUser": WHOLE, "runAsGroup": WHOLE, "runAsNonRoot": TRUTH},
}


def faults_of(value: Any, path: str, wanted: Any = None) -> Iterator[tuple[str, str]]:
    """Gives what is wrong in a configuration: pairs of the field's path and what was expected.

    Args:
        value: The configuration, or a part of it.
        path: Of it.
        wanted: What it should be; None: a whole configuration.
    """
    wanted = FIELDS if wanted is None else wanted
    if isinstance(wanted, list):
        if not isinstance(value, list):
            yield path, "must be a list"
        else:
            for number, item in enumerate(value):
                yield from faults_of(item, f"{path}[{number}]", wanted[0])
    elif isinstance(wanted, dict):
        if not isinstance(value, dict):
            yield path, "must be a mapping"
        else:
            for key, item in value.items():
                if key in wanted:
                    yield from faults_of(item, f"{path}.{key}", wanted[key])
                else:
                    yield f"{path}.{key}", f"is not known; there are {', '.join(sorted(wanted))}"
    elif not _fits(value, wanted):
        yield path, f"must be {_WORDS[wanted]}"


_WORDS = {
    TEXT: "text",
    WHOLE: "a whole number, not negative",
    TRUTH: "true or false",
    TEXTS: "a list of text",
    MAP: "a mapping of text to text",
    INPUT: "a mapping that names an input",
}


def _fits(value: Any, wanted: str) -> bool:
    if wanted == TEXT:
        return isinstance(value, str)
    if wanted == WHOLE:
        return _is_whole(value)
    if wanted == TRUTH:
        return isinstance(value, bool)
    if wanted == TEXTS:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if wanted == INPUT:
        return isinstance(value, dict) and _is_input(value)
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _is_whole(value: Any) -> bool:
    """Tells whether it is a whole number; JSON of protobuf writes large ones as text."""
    if isinstance(value, str):
        return value.isascii() and value.isdecimal() and len(value) < 19
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53 and value % 1 == 0


def _is_input(value: dict[str, Any]) -> bool:
    if set(value) == {"runtimeValue"}:
        return isinstance(value["runtimeValue"], dict)
    if set(value) == {"componentInputParameter"}:
        return isinstance(value["componentInputParameter"], str)
    return set(value) == {"taskOutputParameter"} and not list(faults_of(value["taskOutputParameter"], "", _PRODUCER))
