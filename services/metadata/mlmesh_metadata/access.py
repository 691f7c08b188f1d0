"""What each RPC asks for. ML Metadata knows no namespaces: who may read the store may read all of it."""

from mlmesh_kit.access import Access, AccessTable
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service
from mlmesh_protos.mlmesh.metadata.v1 import lineage_pb2


def _rule(method: str) -> Access:
    return Access("update" if method.startswith("Put") else "get", "metadata")


_READING = ("Query", "List", "Get", "Compare", "Render", "Find", "Search")
_LINEAGE = lineage_pb2.DESCRIPTOR.services_by_name["LineageService"]
_STORE = service.DESCRIPTOR.services_by_name["MetadataStoreService"]

ACCESS: AccessTable = {
    _STORE.full_name: {method.name: _rule(method.name) for method in _STORE.methods},
    _LINEAGE.full_name: {
        method.name: Access("get" if method.name.startswith(_READING) else "update", "metadata")
        for method in _LINEAGE.methods
    },
}
