"""Every RPC of every service declares what it asks for: a verb and a resource, or that it is for everybody.

The services and their RPCs are enumerated from what is built and from the descriptors, never by hand. A new RPC without
a rule fails here, and its service does not start.
"""

import asyncio
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlmesh_protos
import pytest
from google.protobuf import descriptor_pb2
from mlmesh_kit.access import IN_DOMAIN, PUBLIC, Access
from mlmesh_kit.config import ServiceSettings
from mlmesh_kit.server import ServiceDefinition, access_rules

PACKAGES = ["mlmesh_metadata", "mlmesh_pipeline", "mlmesh_katib", "mlmesh_serving", "mlmesh_profile"]

PUBLIC_RPCS = {
    # An answer that is the same for everybody, or that the RPC itself guards (see docs/profile.md).
    "/envoy.service.auth.v3.Authorization/Check",
    "/mlmesh.profile.v1.AccessService/ReviewAccess",
    "/kubeflow.kfam.v1.AccessManagementService/Index",
    "/kubeflow.pipelines.backend.api.v2beta1.HealthzService/GetHealthz",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ServerMetadata",
}
"""What may be PUBLIC. Adding to it is a decision, made in review."""


def _settings_type(package: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"{package}.config")
    found: type[ServiceSettings] = module.Settings
    return found


@pytest.fixture(scope="module", params=PACKAGES)
def definition(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ServiceDefinition:
    package: str = request.param
    settings = _settings_type(package)(data_dir=tmp_path_factory.mktemp(package))

    async def build() -> ServiceDefinition:
        made: ServiceDefinition = importlib.import_module(f"{package}.server").build(settings)
        return made

    return asyncio.run(build())


def _rpcs(definition: ServiceDefinition) -> Iterator[tuple[str, Any]]:
    for servicer in definition.servicers:
        for method in servicer.descriptor.methods:
            yield f"/{servicer.descriptor.full_name}/{method.name}", method


def test_every_rpc_declares_a_rule_and_no_rule_is_idle(definition: ServiceDefinition) -> None:
    rules = access_rules(definition)
    assert set(rules) == {name for name, _ in _rpcs(definition)}
    served = {servicer.descriptor.full_name for servicer in definition.servicers}
    assert set(definition.access) <= served, "rules for services that are not served"


def test_verbs_and_resources_are_words(definition: ServiceDefinition) -> None:
    for rpc, rule in access_rules(definition).items():
        if isinstance(rule, Access):
            assert re.fullmatch(r"[a-z][a-zA-Z]*", rule.verb), f"{rpc}: verb {rule.verb!r}"
            assert re.fullmatch(r"[a-z][a-z/]*s|metadata", rule.resource), f"{rpc}: resource {rule.resource!r}"


def test_a_namespace_that_is_a_path_is_one_of_the_request(definition: ServiceDefinition) -> None:
    rules = access_rules(definition)
    for rpc, method in _rpcs(definition):
        rule = rules[rpc]
        if not isinstance(rule, Access) or not isinstance(rule.namespace, str):
            continue
        message = method.input_type
        for part in rule.namespace.split("."):
            assert message is not None and part in message.fields_by_name, f"{rpc}: no field {rule.namespace!r}"
            message = message.fields_by_name[part].message_type


def test_public_is_the_exception(definition: ServiceDefinition) -> None:
    public = {rpc for rpc, rule in access_rules(definition).items() if rule is PUBLIC}
    assert public <= PUBLIC_RPCS, f"PUBLIC without a reason: {sorted(public - PUBLIC_RPCS)}"


def test_what_changes_something_does_not_ask_for_reading(definition: ServiceDefinition) -> None:
    """An RPC called Create... that a viewer may call would be a hole."""
    reading = {"get", "list", "watch"}
    for rpc, rule in access_rules(definition).items():
        name = rpc.rsplit("/", 1)[1]
        if isinstance(rule, Access) and re.match(r"(Create|Update|Delete|Put|Terminate|Archive|Unarchive|Retry)", name):
            assert rule.verb not in reading, f"{rpc} asks for {rule.verb}"


def test_streams_leave_the_namespace_to_the_domain(definition: ServiceDefinition) -> None:
    """Before a stream's first message there is no request to read a namespace from."""
    rules = access_rules(definition)
    for rpc, method in _rpcs(definition):
        rule = rules[rpc]
        if method.client_streaming and isinstance(rule, Access):
            assert rule.namespace is None or rule.namespace is IN_DOMAIN, rpc


def test_http_routes_are_guarded(definition: ServiceDefinition) -> None:
    """A route not made with `mlmesh_kit.http.route` would pass no check."""
    for route in definition.http_routes:
        assert getattr(route.endpoint, "__module__", "") == "mlmesh_kit.http", route.path


def _described_services() -> set[str]:
    described = descriptor_pb2.FileDescriptorSet()
    described.ParseFromString(Path(mlmesh_protos.__file__).with_name("descriptor_set.pb").read_bytes())
    ours = [file for file in described.file if not file.name.startswith("google/")]
    return {f"{file.package}.{service.name}" for file in ours for service in file.service}


def test_every_service_that_we_describe_is_served_by_one(tmp_path: Path) -> None:
    served: dict[str, str] = {}
    for package in PACKAGES:
        settings = _settings_type(package)(data_dir=tmp_path / package)

        async def build(package: str = package, settings: ServiceSettings = settings) -> ServiceDefinition:
            made: ServiceDefinition = importlib.import_module(f"{package}.server").build(settings)
            return made

        for servicer in asyncio.run(build()).servicers:
            name = servicer.descriptor.full_name
            assert name not in served, f"{name} is served by {served.get(name)} and {package}"
            served[name] = package
    assert _described_services() <= set(served), f"nobody serves {sorted(_described_services() - set(served))}"
