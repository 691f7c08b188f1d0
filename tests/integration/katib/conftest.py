"""One service for the tests that only make experiments: to start one takes longer than most of these tests."""

from collections.abc import Iterator

import pytest
from integration.katib.client import Client
from mlmesh_kit.testing import ServiceProcess


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """Without what tests of crashes change: they start services of their own."""
    settings = {"PRELOAD": "", "MAX_RUNNING_TRIALS": "4", "MAX_TRIALS": "200"}
    with ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", tmp_path_factory.mktemp("katib"), settings) as process:
        yield process


@pytest.fixture(scope="session")
def client(service: ServiceProcess) -> Client:
    return Client(service)
