"""What each RPC asks for. ML Metadata knows no namespaces: who may read the store may read all of it."""

from mlmesh_kit.access import Access, AccessTable
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service
from mlmesh_protos.mlmesh.metadata.v1 import lineage_pb2, retention_pb2


def _rule(method: str) -> Access:
    return Access("update" if method.startswith("Put") else "get", "metadata")


def _retention_verb(method: str) -> str:
    if method.startswith(("Get", "List")):
        return "get"
    return "delete" if method.startswith(("Delete", "Apply")) else "update"


_READING = ("Query", "List", "Get", "Compare", "Render", "Find", "Search")
_LINEAGE = lineage_pb2.DESCRIPTOR.services_by_name["LineageService"]
_RETENTION = retention_pb2.DESCRIPTOR.services_by_name["RetentionService"]
_STORE = service.DESCRIPTOR.services_by_name["MetadataStoreService"]

ACCESS: AccessTable = {
    _STORE.full_name: {method.name: _rule(method.name) for method in _STORE.methods},
    _LINEAGE.full_name: {
        method.name: Access("get" if method.name.startswith(_READING) else "update", "metadata")
        for method in _LINEAGE.methods
    },
    _RETENTION.full_name: {
        method.name: Access(_retention_verb(method.name), "metadata") for method in _RETENTION.methods
    },
}
