"""What Katib's messages share: enumerations as words, nasConfig as plain values, errors as Katib says them."""

from collections.abc import Iterable, Mapping
from typing import Any

from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.api.v1.beta1 import api_pb2

KINDS: Mapping[int, str] = {
    api_pb2.DOUBLE: "double",
    api_pb2.INT: "int",
    api_pb2.DISCRETE: "discrete",
    api_pb2.CATEGORICAL: "categorical",
}
_SETTINGS = ("algorithmSettings", "algorithm_name", "maxTrialCount", "parallelTrialCount", "parameters", "nasConfig")


def setting_error(error: InvalidArgument) -> InvalidArgument:
    """Gives an error about an algorithm's settings with the message alone, as Katib's services do.

    Such messages name what they are about; the path of the field is in the error's details.
    """
    if not all(field.startswith(_SETTINGS) for field, _ in error.violations):
        return error
    told = InvalidArgument("; ".join(text for _, text in error.violations) or error.message)
    told.violations, told.details = error.violations, error.details
    return told


def nas_config(config: api_pb2.NasConfig) -> Mapping[str, Any]:
    """Gives a nasConfig as an Experiment's manifest has it."""
    graph = config.graph_config
    return {
        "graphConfig": {
            "numLayers": graph.num_layers,
            "inputSizes": list(graph.input_sizes),
            "outputSizes": list(graph.output_sizes),
        },
        "operations": [
            {"operationType": operation.operation_type, "parameters": _parameters(operation.parameter_specs.parameters)}
            for operation in config.operations.operation
        ],
    }


def _parameters(specs: Iterable[api_pb2.ParameterSpec]) -> list[Mapping[str, Any]]:
    return [
        {
            "name": spec.name,
            "parameterType": KINDS.get(spec.parameter_type, ""),
            "feasibleSpace": {
                "min": spec.feasible_space.min,
                "max": spec.feasible_space.max,
                "step": spec.feasible_space.step,
                "list": list(spec.feasible_space.list),
            },
        }
        for spec in specs
    ]
