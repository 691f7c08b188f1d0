"""What Kubernetes reads of one model: a Knative Service with its traffic block, or KServe's InferenceService."""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.documents import with_integers

Tree = dict[str, Any]

_SCALING = "autoscaling.knative.dev/"
_OURS = ("preprocessor", "postprocessor", "detectors")
"""Fields of a spec that change what a model answers, and that KServe has not."""
_POD = ("affinity", "imagePullSecrets", "nodeSelector", "serviceAccountName", "tolerations")
"""Fields of a predictor that Knative takes as they are (some need a feature flag of Knative's)."""
_GRPC_PORT, _HTTP_PORT = 8741, 8742
_MAX_NAME = 57  # a revision's name, NAME-00001, is a label of at most 63 characters


class RenderError(Exception):
    """A model cannot be said in these words; the message says why, and what else there is."""


@dataclass(frozen=True, slots=True)
class RenderedModel:
    """An object for Kubernetes.

    Attributes:
        tree: The object.
        left_out: What the model has on this machine, and the object cannot say.
    """

    tree: Tree
    left_out: Sequence[str]


def render_model_knative(service: Tree, namespace: str, image: str) -> RenderedModel:
    """Renders a Knative Service whose container is a serving router with this model alone.

    The template is the newest revision's, by its name; the other revisions of the traffic block have to be there
    already, as they are if each was applied in its time.

    Args:
        service: The InferenceService as the serving router gives it.
        namespace: For the object.
        image: Of the serving router.

    Raises:
        RenderError: The name is too long for Knative.
    """
    name, manifest, status = _name(service), with_integers(service.get("manifest", {})), service.get("status", {})
    predictor = manifest.get("spec", {}).get("predictor", {})
    spec: Tree = {key: predictor[key] for key in _POD if key in predictor}
    spec["containerConcurrency"] = predictor.get("containerConcurrency", 0)
    if predictor.get("timeout"):
        spec["timeoutSeconds"] = predictor["timeout"]
    spec["containers"] = [_container(manifest, image)]
    created = status.get("components", {}).get("predictor", {}).get("latest_created_revision")
    template = {
        "metadata": {
            **({"name": created} if created else {}),
            "labels": _labels(manifest, name),
            "annotations": _annotations(manifest),
        },
        "spec": spec,
    }
    return RenderedModel(
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "labels": _labels(manifest, name)},
            "spec": {"template": template, "traffic": _traffic(status)},
        },
        _unsaid(status),
    )


def render_model_kserve(service: Tree, namespace: str) -> RenderedModel:
    """Renders KServe's InferenceService, with canaryTrafficPercent as requests are spread now.

    Args:
        service: The InferenceService as the serving router gives it.
        namespace: For the object.

    Raises:
        RenderError: It has what KServe has not, or its traffic cannot be said by one percentage.
    """
    _name(service)
    manifest, status = with_integers(service.get("manifest", {})), service.get("status", {})
    spec = manifest.get("spec", {})
    predictor = spec.get("predictor", {})
    for field in _OURS:
        if spec.get(field):
            raise RenderError(f"KServe has no {field}; render the whole with: --render knative")
    for stage, where in (
        (predictor, "predictor"),
        (spec.get("transformer"), "transformer"),
        (spec.get("explainer"), "explainer"),
    ):
        _refuse_ours(stage or {}, where)
    for kind, model in predictor.items():
        if isinstance(model, dict) and "storageUri" in model:
            _as_kserve(model, kind)
    for key in ("inputs", "outputs"):
        spec.pop(key, None)
    predictor.pop("canaryTrafficPercent", None)
    percent = _canary(status)
    if percent is not None:
        predictor["canaryTrafficPercent"] = percent
    metadata = {**manifest.get("metadata", {}), "namespace": namespace}
    return RenderedModel(
        {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": metadata, "spec": spec},
        _unsaid(status),
    )


def _name(service: Tree) -> str:
    name = str(service.get("name", "")).rpartition("/")[2]
    if len(name) > _MAX_NAME or not name[:1].isalpha():
        raise RenderError(
            f"{name} is no name for it on Kubernetes: expected a letter first, and at most {_MAX_NAME} characters"
        )
    return name


def _labels(manifest: Tree, name: str) -> Tree:
    given = manifest.get("metadata", {}).get("labels", {})
    return {**given, "app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "mlmesh"}


def _annotations(manifest: Tree) -> Tree:
    """Knative's annotations: those given, and those that KServe makes of a predictor's fields."""
    metadata, predictor = manifest.get("metadata", {}), manifest.get("spec", {}).get("predictor", {})
    given = {**metadata.get("annotations", {}), **predictor.get("annotations", {})}
    made = {key: value for key, value in given.items() if key.startswith(_SCALING)}
    fields = {"minReplicas": "min-scale", "maxReplicas": "max-scale", "scaleTarget": "target", "scaleMetric": "metric"}
    for field, annotation in fields.items():
        if field in predictor:
            made[_SCALING + annotation] = str(predictor[field])
    # Without a word of it KServe keeps one; Knative would go to none.
    made.setdefault(_SCALING + "min-scale", "1")
    made.setdefault(_SCALING + "class", "kpa.autoscaling.knative.dev")
    return made


def _container(manifest: Tree, image: str) -> Tree:
    alone = copy.deepcopy(manifest)
    alone["spec"]["predictor"].pop("canaryTrafficPercent", None)
    model = next((m for m in alone["spec"]["predictor"].values() if isinstance(m, dict) and "storageUri" in m), {})
    settings = {
        "HOST": "0.0.0.0",  # noqa: S104 - in a pod
        "GRPC_PORT": str(_GRPC_PORT),
        "HTTP_PORT": str(_HTTP_PORT),
        "DATA_DIR": "/tmp/mlmesh",  # noqa: S108 - a pod's own
        "MANIFEST": json.dumps(alone, separators=(",", ":"), sort_keys=True),
    }
    return {
        "name": "serving",
        "image": image,
        "ports": [{"name": "h2c", "containerPort": _GRPC_PORT}],
        "env": [{"name": f"MLMESH_SERVING_{key}", "value": value} for key, value in settings.items()],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": _HTTP_PORT}},
        **({"resources": model["resources"]} if "resources" in model else {}),
    }


def _traffic(status: Tree) -> list[Tree]:
    """The traffic block. A revision that all requests follow, whichever is newest, stays `latestRevision`."""
    asked = status.get("traffic", {}).get("targets", [])
    found = status.get("components", {}).get("predictor", {}).get("traffic", [])
    pinned = bool(asked) and not any(target.get("latest_revision") for target in asked)
    made: list[Tree] = []
    for target in found:
        follows = bool(target.get("latest_revision")) and not pinned
        entry: Tree = {"latestRevision": follows, "percent": target.get("percent", 0)}
        if not follows:
            entry["revisionName"] = target["revision_name"]
        if target.get("tag") and target["tag"] != "latest":
            entry["tag"] = target["tag"]
        if entry["percent"] or "tag" in entry:
            made.append(entry)
    return made or [{"latestRevision": True, "percent": 100}]


def _canary(status: Tree) -> int | None:
    component = status.get("components", {}).get("predictor", {})
    shares = {t["revision_name"]: t.get("percent", 0) for t in component.get("traffic", []) if t.get("percent")}
    newest, rolled_out = component.get("latest_created_revision"), component.get("latest_rolledout_revision")
    previous = component.get("previous_rolledout_revision")
    if set(shares) <= {newest}:
        return None
    stable = rolled_out if rolled_out != newest else previous
    if set(shares) <= {newest, stable}:
        return int(shares.get(newest, 0))
    raise RenderError(
        f"requests go to {', '.join(sorted(shares))}; KServe splits between the newest revision and the one before "
        "alone; render a traffic block with: --render knative"
    )


def _refuse_ours(stage: Tree, where: str) -> None:
    for kind in ("python", "remote", "shap", "permutation"):
        if kind in stage:
            raise RenderError(f"KServe has no {where}.{kind}; render the whole with: --render knative")


def _as_kserve(model: Tree, kind: str) -> None:
    """Says a model in KServe's words; the check of its hash and formats of ours it has not."""
    for field in ("class", "codeUri", "config", "convertTo", "keepsRows", "sha256", "threads", "tolerance"):
        if model.get(field):
            raise RenderError(f"KServe has no predictor.{kind}.{field}; render the whole with: --render knative")
    method = model.pop("method", "predict")
    if method == "predict_proba":
        variables = [one for one in model.get("env", []) if one.get("name") != "PREDICT_PROBA"]
        model["env"] = [*variables, {"name": "PREDICT_PROBA", "value": "true"}]
    elif method != "predict":
        raise RenderError(f"KServe calls predict or predict_proba, not {method}; render with: --render knative")


def _unsaid(status: Tree) -> list[str]:
    asked = status.get("traffic", {})
    words = {
        "rules": "header rules (there they are an Istio VirtualService's)",
        "sticky": "what keeps requests together",
        "shadow": "copies to a shadow revision (there they are an Istio VirtualService's mirror)",
    }
    return [text for key, text in words.items() if asked.get(key)]
