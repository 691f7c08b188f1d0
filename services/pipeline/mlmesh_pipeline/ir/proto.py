"""The one place that imports kfp's generated messages.

Importing `kfp` pulls in its compiler and client (1 s, 100 MB) unless it is told that this is a runtime.
"""

import os
import sys

_MARK = "_KFP_RUNTIME"

if "kfp" in sys.modules:
    from kfp.pipeline_spec import pipeline_spec_pb2
else:
    _before = os.environ.get(_MARK)
    os.environ[_MARK] = "true"
    try:
        from kfp.pipeline_spec import pipeline_spec_pb2
    finally:
        if _before is None:
            del os.environ[_MARK]
        else:
            os.environ[_MARK] = _before

PipelineSpec = pipeline_spec_pb2.PipelineSpec
PlatformSpec = pipeline_spec_pb2.PlatformSpec
DeploymentConfig = pipeline_spec_pb2.PipelineDeploymentConfig
ComponentSpec = pipeline_spec_pb2.ComponentSpec
TaskSpec = pipeline_spec_pb2.PipelineTaskSpec
TriggerStrategy = pipeline_spec_pb2.PipelineTaskSpec.TriggerPolicy.TriggerStrategy
ParameterType = pipeline_spec_pb2.ParameterType.ParameterTypeEnum
PrimitiveType = pipeline_spec_pb2.PrimitiveType.PrimitiveTypeEnum
