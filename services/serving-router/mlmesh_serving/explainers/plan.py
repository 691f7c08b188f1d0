"""What an explainer does, of what the manifest says of it.

explainer:
  shap:                                   # or permutation, occlusion
    storageUri: file:///.../background.npy
    config: {algorithm: auto}
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlmesh_kit.errors import InvalidArgument, Unimplemented

from mlmesh_serving.manifest import InferenceServiceSpec
from mlmesh_serving.manifest.fields import as_choice, as_integer, as_optional_text, as_texts, only

ALGORITHMS = ("auto", "tree", "linear", "kernel", "permutation")
LOSSES = ("squared", "absolute", "zero-one")
_SHARED = ("output", "featureNames", "maxInstances", "maxPredictions", "batchSize", "timeoutSeconds")
_CONFIG = {
    "shap": ("algorithm", "samples"),
    "occlusion": (),
    "permutation": ("repeats", "loss"),
}


@dataclass(frozen=True, slots=True)
class ExplainerPlan:
    """What a worker needs to know.

    Attributes:
        method: shap, permutation, occlusion or python.
        algorithm: Of shap.
        target: `module:Class` or `module:function` of python.
        background: URI of background data; empty: none.
        model: URI of the model, for those algorithms of shap that look into it; empty: they may not.
        code: URI of the folder of `target`.
        background_path: Where it lies on this machine, as do the next two.
        input_name: Name of the tensor that the model takes; empty: as the request calls it.
        input_datatype: Of that tensor; empty: FP64.
        output: Name of the output that is explained; empty: the first.
        feature_names: For the answer.
        samples: Of kernel: coalitions; of permutation: orders of the features. 0: as the library has it.
        repeats: How often a feature is permuted (method permutation).
        loss: What the permuted predictions are measured by.
        max_instances: Of a request.
        max_predictions: Rows that a request may have predicted.
        batch_rows: Rows of one call of the predictor.
        timeout_seconds: Of a request that has no deadline.
        field: Where the manifest says so, for messages.
    """

    method: str
    algorithm: str = "auto"
    target: str = ""
    background: str = ""
    model: str = ""
    code: str = ""
    background_path: str = ""
    model_path: str = ""
    code_path: str = ""
    input_name: str = ""
    input_datatype: str = ""
    output: str = ""
    feature_names: tuple[str, ...] = ()
    samples: int = 0
    repeats: int = 5
    loss: str = "squared"
    max_instances: int = 64
    max_predictions: int = 1_000_000
    batch_rows: int = 512
    timeout_seconds: int = 60
    field: str = "explainer"

    def message(self) -> dict[str, Any]:
        """Gives it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> "ExplainerPlan":
        """Reads what `message` made."""
        return cls(**{**message, "feature_names": tuple(message["feature_names"])})


def plan_explainer(spec: InferenceServiceSpec) -> ExplainerPlan | None:
    """Reads the explainer of a manifest; None: it has none.

    Raises:
        InvalidArgument: Its config is wrong, or it lacks what it needs.
        Unimplemented: It is a server elsewhere: that is no worker's.
    """
    given = spec.explainer
    if given is None:
        return None
    declared: dict[str, Any] = {}
    if len(spec.inputs) == 1:
        declared = {"input_name": spec.inputs[0].name, "input_datatype": spec.inputs[0].datatype}
    if given.type == "python":
        assert given.stage is not None
        stage = given.stage
        return ExplainerPlan("python", target=stage.target, code=stage.storage_uri, field=given.field, **declared)
    if given.type not in _CONFIG:
        raise Unimplemented(f"{given.field}: an explainer elsewhere is asked there")
    where, config = f"{given.field}.config", given.parameters
    only(config, (*_SHARED, *_CONFIG[given.type]), where)
    algorithm = as_choice(config, "algorithm", where, ALGORITHMS, "auto")
    bare = spec.preprocessor is None and spec.postprocessor is None and spec.transformer is None
    looks_in = given.type == "shap" and spec.predictor.format == "sklearn"
    if algorithm in {"tree", "linear"} and not (bare and looks_in):
        raise InvalidArgument(
            f"{algorithm} looks into a scikit-learn model and knows nothing of stages around it: use kernel or "
            "permutation",
            field=f"{where}.algorithm",
        )
    needs_background = given.type == "occlusion" or (given.type == "shap" and algorithm != "tree")
    if needs_background and not given.storage_uri:
        raise InvalidArgument("must be there: background data", field=f"{given.field}.storageUri")
    return ExplainerPlan(
        method=given.type,
        algorithm=algorithm,
        background=given.storage_uri,
        model=spec.predictor.storage_uri if looks_in and bare and algorithm in {"auto", "tree", "linear"} else "",
        output=as_optional_text(config, "output", where),
        feature_names=as_texts(config, "featureNames", where, most=4096),
        samples=_count(config, "samples", where, 0, 0, 100_000),
        repeats=_count(config, "repeats", where, 5, 1, 100),
        loss=as_choice(config, "loss", where, LOSSES, "squared"),
        max_instances=_count(config, "maxInstances", where, 64, 1, 10_000),
        max_predictions=_count(config, "maxPredictions", where, 1_000_000, 1, 1_000_000_000),
        batch_rows=_count(config, "batchSize", where, 512, 1, 100_000),
        timeout_seconds=_count(config, "timeoutSeconds", where, 60, 1, 3600),
        field=given.field,
        **declared,
    )


def _count(config: Mapping[str, Any], key: str, where: str, default: int, smallest: int, largest: int) -> int:
    value = as_integer(config, key, where, default=default, smallest=smallest, largest=largest)
    return default if value is None else value
