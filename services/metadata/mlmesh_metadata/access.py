"""What each RPC asks for. ML Metadata knows no namespaces: who may read the store may read all of it."""

from mlmesh_kit.access import Access, AccessTable
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service


def _rule(method: str) -> Access:
    return Access("update" if method.startswith("Put") else "get", "metadata")


_STORE = service.DESCRIPTOR.services_by_name["MetadataStoreService"]

ACCESS: AccessTable = {
    _STORE.full_name: {method.name: _rule(method.name) for method in _STORE.methods},
    "mlmesh.metadata.v1.LineageService": {"QueryLineage": Access("get", "metadata")},
}
