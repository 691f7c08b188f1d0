"""Reports of a Katib controller's trials: whose database manager is asked."""

from concurrent import futures

import grpc
import pytest
from mlmesh_katib.observation_source import ObservationSource
from mlmesh_katib.store import KatibStore, MetricLog
from mlmesh_katib.tables import METADATA
from mlmesh_kit.database import create_engine
from mlmesh_kit.errors import Unavailable
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc


class Manager(api_pb2_grpc.DBManagerServicer):
    def GetObservationLog(self, request, context):
        reply = api_pb2.GetObservationLogReply()
        for number in range(3):
            metric = api_pb2.Metric(name=request.metric_name, value=f"{request.trial_name}-{number}")
            reply.observation_log.metric_logs.add(metric=metric)
        return reply


@pytest.fixture
def store(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/db.sqlite")
    METADATA.create_all(engine)
    made = KatibStore(engine)
    made.report_logs("", "a", [MetricLog("2026-01-01T00:00:00.000000Z", "loss", "ours")])
    return made


@pytest.fixture
def manager():
    server = grpc.server(futures.ThreadPoolExecutor(1))
    api_pb2_grpc.add_DBManagerServicer_to_server(Manager(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_a_manager_that_is_allowed_is_asked(store, manager):
    found = ObservationSource(store, [manager]).first(manager, ["a", "b"], "loss", 2)
    assert found == {"a": ["a-0", "a-1"], "b": ["b-0", "b-1"]}


def test_any_other_is_not_connected_to(store, manager):
    for allowed in ([], ["127.0.0.1:1"]):
        assert ObservationSource(store, allowed).first(manager, ["a", "b"], "loss", 2) == {"a": ["ours"], "b": []}


def test_one_that_does_not_answer_is_named(store):
    source = ObservationSource(store, ["127.0.0.1:1"], seconds=0.2)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        source.first("127.0.0.1:1", ["a"], "loss", 2)
