"""One service for the tests that only make experiments: to start one takes longer than most of these tests."""

from collections.abc import Iterator

import pytest
from integration.katib.client import Client
from integration.katib.metadata_service import Metadata
from mlmesh_kit.testing import ServiceProcess


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """Without what tests of crashes change: they start services of their own."""
    folder = tmp_path_factory.mktemp("katib")
    settings = {
        "PRELOAD": "",
        "MAX_RUNNING_TRIALS": "4",
        "MAX_TRIALS": "200",
        "KUBERNETES_KUBECONFIG": str(folder / "none"),
    }
    with ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", folder, settings) as process:
        yield process


@pytest.fixture(scope="session")
def client(service: ServiceProcess) -> Client:
    return Client(service)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """Runs the pipelines of trials."""
    with ServiceProcess("mlmesh_pipeline", "MLMESH_PIPELINE_", tmp_path_factory.mktemp("pipeline")) as process:
        yield process


@pytest.fixture(scope="session")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metadata]:
    """Not started: a test says `up`."""
    made = Metadata(tmp_path_factory.mktemp("metadata"))
    yield made
    made.channel.close()
    made.process.stop()


@pytest.fixture(scope="session")
def katib(tmp_path_factory: pytest.TempPathFactory, metadata: Metadata) -> Iterator[ServiceProcess]:
    """One that tells the metadata service what it does, for tests that kill it."""
    settings = {"PRELOAD": "", "METADATA_ADDRESS": metadata.address, "LEASE_SECONDS": "2", "MAX_RUNNING_TRIALS": "4"}
    with ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", tmp_path_factory.mktemp("told"), settings) as process:
        yield process
