"""What each RPC asks of its caller."""

from typing import Any

from mlmesh_kit.access import IN_DOMAIN, PUBLIC, Access, AccessTable

from mlmesh_serving.dataplane import split_model_name

RESOURCE = "inferenceservices"
GRAPHS = "inferencegraphs"


def _of_model(request: Any) -> str:
    return split_model_name(request.model_name)[0]


def _of_named_model(request: Any) -> str:
    return split_model_name(request.name)[0]


_GET_MODEL = Access("get", RESOURCE, _of_named_model)
_INFER = Access("infer", RESOURCE, _of_model)
_OPERATE = Access("update", RESOURCE)

ACCESS: AccessTable = {
    "inference.GRPCInferenceService": {
        "ServerLive": PUBLIC,
        "ServerReady": PUBLIC,
        "ServerMetadata": PUBLIC,
        "ModelReady": _GET_MODEL,
        "ModelMetadata": _GET_MODEL,
        "ModelConfig": _GET_MODEL,
        "ModelStatistics": _GET_MODEL,
        "ModelInfer": _INFER,
        # The models are named within the stream; each is checked as it comes.
        "ModelStreamInfer": Access("infer", RESOURCE, IN_DOMAIN),
        "RepositoryIndex": Access("list", RESOURCE),
        "RepositoryModelLoad": Access("update", RESOURCE, _of_model),
        "RepositoryModelUnload": Access("update", RESOURCE, _of_model),
        "SystemSharedMemoryStatus": _OPERATE,
        "SystemSharedMemoryRegister": _OPERATE,
        "SystemSharedMemoryUnregister": _OPERATE,
        "CudaSharedMemoryStatus": _OPERATE,
        "CudaSharedMemoryRegister": _OPERATE,
        "CudaSharedMemoryUnregister": _OPERATE,
        "TraceSetting": _OPERATE,
        "LogSettings": _OPERATE,
    },
    "mlmesh.serving.v1.ServingService": {
        "CreateInferenceService": Access("create", RESOURCE, "parent"),
        "GetInferenceService": Access("get", RESOURCE, "name"),
        "ListInferenceServices": Access("list", RESOURCE, "parent"),
        "UpdateInferenceService": Access("update", RESOURCE, "name"),
        "DeleteInferenceService": Access("delete", RESOURCE, "name"),
        "ListRevisions": Access("get", RESOURCE, "parent"),
        "GetRevision": Access("get", RESOURCE, "name"),
        "SetTraffic": Access("update", RESOURCE, "name"),
        "Promote": Access("update", RESOURCE, "name"),
        "Rollback": Access("update", RESOURCE, "name"),
    },
    "mlmesh.serving.v1.InferenceGraphService": {
        "CreateInferenceGraph": Access("create", GRAPHS, "parent"),
        "GetInferenceGraph": Access("get", GRAPHS, "name"),
        "ListInferenceGraphs": Access("list", GRAPHS, "parent"),
        "UpdateInferenceGraph": Access("update", GRAPHS, "name"),
        "DeleteInferenceGraph": Access("delete", GRAPHS, "name"),
    },
}
