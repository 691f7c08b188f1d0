"""What the metadata service is told: against one in memory, which can go away and come back."""

import time
from concurrent import futures

import grpc
import pytest
from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlmd
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service_pb2
from mlmesh_protos.ml_metadata import metadata_store_service_pb2_grpc as service_pb2_grpc


class FakeMetadata(service_pb2_grpc.MetadataStoreServiceServicer):
    """As much of ML Metadata as the publisher uses, with its rules about names and external ids."""

    def __init__(self):
        self.types, self.contexts, self.executions, self.artifacts = {}, {}, {}, {}
        self.events, self.parents, self.associations = [], set(), set()
        self.refusals = 0
        self.users = set()

    def _type(self, kind, context):
        self.users |= {value for key, value in context.invocation_metadata() if key == "kubeflow-userid"}
        if self.refusals:
            self.refusals -= 1
            context.abort(grpc.StatusCode.INTERNAL, "refused for the test")
        return self.types.setdefault(kind, len(self.types) + 1)

    def PutContextType(self, request, context):
        return service_pb2.PutContextTypeResponse(type_id=self._type(("c", request.context_type.name), context))

    def PutExecutionType(self, request, context):
        return service_pb2.PutExecutionTypeResponse(type_id=self._type(("e", request.execution_type.name), context))

    def PutArtifactType(self, request, context):
        return service_pb2.PutArtifactTypeResponse(type_id=self._type(("a", request.artifact_type.name), context))

    def GetContextByTypeAndName(self, request, context):
        type_id = self.types.get(("c", request.type_name))
        found = [c for c in self.contexts.values() if (c.type_id, c.name) == (type_id, request.context_name)]
        return service_pb2.GetContextByTypeAndNameResponse(context=found[0] if found else None)

    def GetContextsByID(self, request, context):
        return service_pb2.GetContextsByIDResponse(contexts=[self.contexts[key] for key in request.context_ids])

    def PutContexts(self, request, context):
        ids = []
        for item in request.contexts:
            if any((c.type_id, c.name) == (item.type_id, item.name) for c in self.contexts.values()):
                context.abort(grpc.StatusCode.ALREADY_EXISTS, item.name)
            item.id = len(self.contexts) + 1
            self.contexts[item.id] = item
            ids.append(item.id)
        return service_pb2.PutContextsResponse(context_ids=ids)

    def PutParentContexts(self, request, context):
        for item in request.parent_contexts:
            pair = (item.child_id, item.parent_id)
            if pair in self.parents:
                context.abort(grpc.StatusCode.ALREADY_EXISTS, "link")
            self.parents.add(pair)
        return service_pb2.PutParentContextsResponse()

    def GetExecutionByTypeAndName(self, request, context):
        type_id = self.types.get(("e", request.type_name))
        found = [e for e in self.executions.values() if (e.type_id, e.name) == (type_id, request.execution_name)]
        return service_pb2.GetExecutionByTypeAndNameResponse(execution=found[0] if found else None)

    def GetEventsByExecutionIDs(self, request, context):
        return service_pb2.GetEventsByExecutionIDsResponse(
            events=[event for event in self.events if event.execution_id in request.execution_ids]
        )

    def GetArtifactsByExternalIds(self, request, context):
        return service_pb2.GetArtifactsByExternalIdsResponse(
            artifacts=[a for a in self.artifacts.values() if a.external_id in request.external_ids]
        )

    def PutExecution(self, request, context):
        execution = request.execution
        if not execution.id:
            if any((e.type_id, e.name) == (execution.type_id, execution.name) for e in self.executions.values()):
                context.abort(grpc.StatusCode.ALREADY_EXISTS, execution.name)
            execution.id = len(self.executions) + 1
        self.executions[execution.id] = execution
        ids = []
        for pair in request.artifact_event_pairs:
            artifact_id = pair.event.artifact_id
            if not artifact_id:
                if any(a.external_id == pair.artifact.external_id for a in self.artifacts.values()):
                    context.abort(grpc.StatusCode.ALREADY_EXISTS, pair.artifact.external_id)
                artifact_id = pair.artifact.id = len(self.artifacts) + 1
                self.artifacts[artifact_id] = pair.artifact
            pair.event.artifact_id, pair.event.execution_id = artifact_id, execution.id
            key = (artifact_id, execution.id, pair.event.type)
            if any((e.artifact_id, e.execution_id, e.type) == key for e in self.events):
                context.abort(grpc.StatusCode.ALREADY_EXISTS, "event")
            self.events.append(pair.event)
            ids.append(artifact_id)
        for item in request.contexts:
            self.associations.add((item.id, execution.id))
        return service_pb2.PutExecutionResponse(
            execution_id=execution.id, artifact_ids=ids, context_ids=[item.id for item in request.contexts]
        )


class FakeServer:
    def __init__(self):
        self.store = FakeMetadata()
        self.server, self.port = None, 0

    def start(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        service_pb2_grpc.add_MetadataStoreServiceServicer_to_server(self.store, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    def stop(self):
        self.server.stop(0).wait()


@pytest.fixture
def metadata():
    server = FakeServer()
    server.start()
    yield server
    server.stop()


@dsl.component
def make(rows: int, data: Output[Dataset], scores: Output[Metrics]):
    with open(data.path, "w") as file:
        file.write("r" * rows)
    scores.log_metric("accuracy", 0.5)


@dsl.component
def fit(data: Input[Dataset], model: Output[Model]):
    with open(model.path, "w") as file:
        file.write("model")


@dsl.pipeline
def inner(data: Input[Dataset]):
    fit(data=data)


@dsl.pipeline(name="lineage")
def lineage(rows: int):
    inner(data=make(rows=rows).outputs["data"])


def _published(client, run_id, count):
    def done(run):
        details = run.run_details.task_details
        return len(details) == count and all(task.execution_id for task in details)

    return client.wait_until(run_id, done)


def _settled(store, run_id, names):
    """Waits until the run's executions have ended, since their last states are sent after the run has."""
    deadline = time.monotonic() + 15
    while True:
        found = {
            e.custom_properties["task_name"].string_value: e
            for e in list(store.executions.values())
            if e.name.startswith(f"run/{run_id}")
        }
        ended = {mlmd.Execution.COMPLETE, mlmd.Execution.CACHED}
        if set(found) == names and all(e.last_known_state in ended for e in found.values()):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


_NAMES = {"", "make", "inner", "fit"}


def test_lineage_is_written_as_kfp_writes_it(make_service, connect, compile_pipeline, by_name, metadata):
    client = connect(make_service(METADATA_ADDRESS=f"127.0.0.1:{metadata.port}"))
    spec = compile_pipeline(lineage)
    run = client.run(spec, {"rows": 3})
    run = _published(client, run.run_id, 3)
    store = metadata.store
    contexts = {c.name: c for c in store.contexts.values()}
    assert contexts["lineage"].type_id == store.types[("c", "system.Pipeline")]
    run_context = contexts[run.run_id]
    assert run_context.type_id == store.types[("c", "system.PipelineRun")]
    assert (run_context.id, contexts["lineage"].id) in store.parents
    assert run.run_details.pipeline_run_context_id == run_context.id
    executions = _settled(store, run.run_id, _NAMES)
    assert executions["make"].type_id == store.types[("e", "system.ContainerExecution")]
    assert executions["inner"].type_id == store.types[("e", "system.DAGExecution")]
    assert executions["make"].custom_properties["inputs"].struct_value["rows"] == 3
    assert executions["fit"].custom_properties["parent_dag_id"].int_value == executions["inner"].id
    assert executions["make"].custom_properties["parent_dag_id"].int_value == executions[""].id
    assert {(run_context.id, execution.id) for execution in executions.values()} <= store.associations
    artifacts = {a.custom_properties["display_name"].string_value: a for a in store.artifacts.values()}
    assert artifacts["data"].type_id == store.types[("a", "system.Dataset")]
    assert artifacts["model"].type_id == store.types[("a", "system.Model")]
    assert artifacts["scores"].custom_properties["accuracy"].double_value == 0.5
    assert artifacts["data"].custom_properties["content_digest"].string_value.startswith("sha256:")
    links = {(e.execution_id, e.artifact_id, mlmd.Event.Type.Name(e.type), e.path.steps[0].key) for e in store.events}
    assert (executions["make"].id, artifacts["data"].id, "OUTPUT", "data") in links
    assert (executions["fit"].id, artifacts["data"].id, "INPUT", "data") in links
    assert (executions["fit"].id, artifacts["model"].id, "OUTPUT", "model") in links
    assert list(by_name(run)["fit"].outputs["model"].artifact_ids) == [artifacts["model"].id]
    assert list(by_name(run)["fit"].inputs["data"].artifact_ids) == [artifacts["data"].id]
    assert store.users == {"user@mlmesh.local"}

    count = len(store.artifacts)
    again = client.run(spec, {"rows": 3})
    again = _published(client, again.run_id, 3)
    cached = _settled(store, again.run_id, _NAMES)
    assert cached["make"].last_known_state == mlmd.Execution.CACHED
    assert cached["make"].custom_properties["cached_execution_id"].string_value == str(executions["make"].id)
    assert len(store.artifacts) == count
    assert list(by_name(again)["fit"].outputs["model"].artifact_ids) == [artifacts["model"].id]


def test_an_outage_delays_lineage_and_loses_none(make_service, connect, compile_pipeline, metadata):
    service = make_service(METADATA_ADDRESS=f"127.0.0.1:{metadata.port}", OUTBOX_RETRY_SECONDS="0.2")
    client = connect(service)
    metadata.stop()
    spec = compile_pipeline(lineage)
    runs = [client.run(spec, {"rows": rows}) for rows in (5, 6)]
    assert all(run.state == run_pb2.SUCCEEDED for run in runs)
    service.kill()  # the outbox outlives the service as well
    metadata.store.refusals = 3
    metadata.start()
    service.start()
    client.connect()
    for run in runs:
        _published(client, run.run_id, 3)
        _settled(metadata.store, run.run_id, _NAMES)
    names = [execution.name for execution in metadata.store.executions.values()]
    assert len(names) == len(set(names)) == 8
    assert len(metadata.store.artifacts) == 6
    assert len(metadata.store.events) == 10  # two outputs of make, input of inner, input and output of fit; twice
