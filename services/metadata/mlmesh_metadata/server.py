"""Wires the metadata service."""

from mlmesh_kit.database import create_engine
from mlmesh_kit.lease import LeaseStore
from mlmesh_kit.server import ServiceDefinition, Servicer
from mlmesh_protos.ml_metadata import metadata_store_service_pb2, metadata_store_service_pb2_grpc
from mlmesh_protos.mlmesh.metadata.v1 import lineage_pb2, lineage_pb2_grpc, retention_pb2, retention_pb2_grpc

from mlmesh_metadata.access import ACCESS
from mlmesh_metadata.config import Settings
from mlmesh_metadata.indexer import Indexer
from mlmesh_metadata.own_tables import search_leases
from mlmesh_metadata.routes import ExchangeRoutes
from mlmesh_metadata.searching import Search
from mlmesh_metadata.servicers.lineage import LineageServicer
from mlmesh_metadata.servicers.metadata_store import MetadataStoreServicer
from mlmesh_metadata.servicers.retention import RetentionServicer
from mlmesh_metadata.store import Store


def build(settings: Settings) -> ServiceDefinition:
    """Opens the database and makes the service."""
    engine = create_engine(settings.resolved_database_url)
    store = Store(engine, node_cache_bytes=settings.node_cache_mib << 20)
    indexer = Indexer(Search(store), LeaseStore(engine, search_leases))
    return ServiceDefinition(
        name="metadata",
        servicers=[
            Servicer(
                metadata_store_service_pb2.DESCRIPTOR.services_by_name["MetadataStoreService"],
                metadata_store_service_pb2_grpc.add_MetadataStoreServiceServicer_to_server,
                # Most of its methods are bound by name (servicers/kind.py), which mypy does not see; a test calls each.
                MetadataStoreServicer(store, settings.max_request_items),  # type: ignore[abstract]
            ),
            Servicer(
                lineage_pb2.DESCRIPTOR.services_by_name["LineageService"],
                lineage_pb2_grpc.add_LineageServiceServicer_to_server,
                LineageServicer(store, indexer),
            ),
            Servicer(
                retention_pb2.DESCRIPTOR.services_by_name["RetentionService"],
                retention_pb2_grpc.add_RetentionServiceServicer_to_server,
                RetentionServicer(store),
            ),
        ],
        access=ACCESS,
        http_routes=ExchangeRoutes(store).routes(),
        lifespans=[indexer.running],
    )
