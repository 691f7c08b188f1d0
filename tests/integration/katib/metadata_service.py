"""A real metadata service that the Katib service tells of its experiments."""

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
from integration.katib.client import wait_until
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlmd
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service_pb2
from mlmesh_protos.ml_metadata import metadata_store_service_pb2_grpc as service_grpc


class Metadata:
    """The metadata service on a port of its own, so that it can come back where it was; and what it was told."""

    def __init__(self, data_dir: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._is_up = False
        self.address = f"127.0.0.1:{port}"
        self.process = ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", data_dir, {"GRPC_PORT": str(port)})
        options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)]
        self.channel = grpc.insecure_channel(self.address, options=options)
        self.store: Any = service_grpc.MetadataStoreServiceStub(self.channel)

    def up(self) -> None:
        if not self._is_up:
            self.process.start()
            self._is_up = True

    def down(self) -> None:
        if self._is_up:
            self.process.kill()
            self._is_up = False

    def call(self, method: str, **fields: Any) -> Any:
        request = getattr(service_pb2, f"{method}Request")(**fields)
        return getattr(self.store, method)(request, timeout=10, wait_for_ready=True)

    def told(self, experiment: str, trials: int) -> SimpleNamespace | None:
        """All that is known of an experiment; None as long as the service has not been told the end of all of it."""
        name = f"default/{experiment}"
        answer = self.call("GetContextByTypeAndName", type_name="katib.Experiment", context_name=name)
        context = answer.context
        if context.custom_properties["state"].string_value not in {"Succeeded", "Failed"}:
            return None
        executions = self.call("GetExecutionsByContext", context_id=context.id).executions
        ended = [
            node for node in executions if node.last_known_state not in {mlmd.Execution.NEW, mlmd.Execution.RUNNING}
        ]
        if len(ended) < trials:
            return None
        artifacts = self.call("GetArtifactsByContext", context_id=context.id).artifacts
        ids = [execution.id for execution in executions]
        return SimpleNamespace(
            context=context,
            executions={node.name.rsplit("/", 1)[1]: node for node in executions},
            artifacts={node.name.rsplit("/", 1)[1]: node for node in artifacts},
            events=list(self.call("GetEventsByExecutionIDs", execution_ids=ids).events),
            count=(len(executions), len(artifacts)),
        )

    def wait(self, experiment: str, trials: int) -> SimpleNamespace:
        return wait_until(lambda: self.told(experiment, trials))
