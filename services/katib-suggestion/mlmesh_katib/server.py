"""Wires the Katib service."""

from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.lease import LeaseStore
from mlmesh_kit.server import ServiceDefinition, Servicer
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc
from mlmesh_protos.mlmesh.katib.v1 import experiment_pb2, experiment_pb2_grpc

from mlmesh_katib.access import ACCESS
from mlmesh_katib.config import Settings
from mlmesh_katib.engine import ExperimentEngine
from mlmesh_katib.lineage import LineagePublisher
from mlmesh_katib.observation_source import ObservationSource
from mlmesh_katib.preloading import algorithms_loaded
from mlmesh_katib.routes import log_routes
from mlmesh_katib.servicers.db_manager import DBManagerServicer
from mlmesh_katib.servicers.early_stopping import EarlyStoppingServicer
from mlmesh_katib.servicers.experiment import ExperimentServicer
from mlmesh_katib.servicers.suggestion import SuggestionServicer
from mlmesh_katib.store import KatibStore
from mlmesh_katib.tables import LEASES
from mlmesh_katib.warm_start import EarlierTrials


def build(settings: Settings) -> ServiceDefinition:
    """Opens the database and makes the service."""
    database = create_engine(settings.resolved_database_url)
    migrate(database, "mlmesh_katib")
    store = KatibStore(database)
    leases = LeaseStore(database, LEASES)
    engine = ExperimentEngine(store, leases, settings)
    services = api_pb2.DESCRIPTOR.services_by_name
    return ServiceDefinition(
        name="katib-suggestion",
        servicers=[
            Servicer(services["Suggestion"], api_pb2_grpc.add_SuggestionServicer_to_server, SuggestionServicer()),
            Servicer(
                services["EarlyStopping"],
                api_pb2_grpc.add_EarlyStoppingServicer_to_server,
                EarlyStoppingServicer(ObservationSource(store, settings.allowed_db_managers), engine),
            ),
            Servicer(services["DBManager"], api_pb2_grpc.add_DBManagerServicer_to_server, DBManagerServicer(store)),
            Servicer(
                experiment_pb2.DESCRIPTOR.services_by_name["ExperimentService"],
                experiment_pb2_grpc.add_ExperimentServiceServicer_to_server,
                ExperimentServicer(store, engine, EarlierTrials(store, settings), settings.max_trials),
            ),
        ],
        access=ACCESS,
        http_routes=log_routes(store, engine),
        lifespans=[
            *([algorithms_loaded] if settings.preload_algorithms else []),
            engine.running,
            LineagePublisher(store, leases, settings).running,
        ],
    )
