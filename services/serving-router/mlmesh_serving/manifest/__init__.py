"""InferenceService manifests (serving.kserve.io/v1beta1), checked, as plain values (docs/serving.md).

Beside KServe's fields, a spec may have `preprocessor` and `postprocessor`, code that runs around the model or is asked
elsewhere, `detectors`, and `inputs` and `outputs`, the tensors that the whole takes and gives.
"""

from mlmesh_serving.manifest.parsing import API_VERSION, parse_manifest
from mlmesh_serving.manifest.spec import (
    BatcherSpec,
    DetectorSpec,
    ExplainerSpec,
    Feature,
    InferenceServiceSpec,
    LoggerMode,
    LoggerSpec,
    PredictorSpec,
    Protocol,
    RemoteSpec,
    ScaleMetric,
    ScalingSpec,
    StageSpec,
)

__all__ = [
    "API_VERSION",
    "BatcherSpec",
    "DetectorSpec",
    "ExplainerSpec",
    "Feature",
    "InferenceServiceSpec",
    "LoggerMode",
    "LoggerSpec",
    "PredictorSpec",
    "Protocol",
    "RemoteSpec",
    "ScaleMetric",
    "ScalingSpec",
    "StageSpec",
    "parse_manifest",
]
