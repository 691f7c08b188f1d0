"""What the serving router can be told of servers elsewhere."""

from pathlib import Path

from mlmesh_kit.config import ServiceSettings
from mlmesh_kit.interceptor import is_loopback
from pydantic import Field, field_validator

from mlmesh_serving.remote.connections import Connections, read_credentials
from mlmesh_serving.remote.headers import parse_patterns
from mlmesh_serving.remote.hosts import LOOPBACK, AllowedHosts, parse_hosts


class RemoteSettings(ServiceSettings):
    """The part of the settings that says which servers may be called, and how."""

    remote_hosts: str | None = Field(
        None,
        description="Hosts that manifests may name (remote stages, serviceUrl), separated by commas: names, "
        "*.example.com, IP addresses, networks; *: all but link-local ones. Not set: loopback, if the service "
        "listens there alone; else none",
    )
    propagate_headers: str = Field(
        "",
        description="Regular expressions, separated by commas: headers of requests that go on to remote stages and to "
        "the steps of graphs (KServe's PROPAGATE_HEADERS)",
    )
    remote_credentials_file: Path | None = Field(
        None, description='JSON, {"host:port": {"authorization": "Bearer ..."}}: headers for that server alone'
    )
    remote_ca_file: Path | None = Field(None, description="PEM of the authorities trusted for grpcs and https")

    @field_validator("remote_hosts")
    @classmethod
    def _check_hosts(cls, value: str | None) -> str | None:
        parse_hosts(value or "")
        return value

    @field_validator("propagate_headers")
    @classmethod
    def _check_patterns(cls, value: str) -> str:
        parse_patterns(value)
        return value

    @field_validator("remote_credentials_file")
    @classmethod
    def _check_credentials(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_credentials(value)
        return value

    @field_validator("remote_ca_file")
    @classmethod
    def _check_ca_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{value} is no file")
        return value

    @property
    def allowed_hosts(self) -> AllowedHosts:
        """`remote_hosts`, parsed."""
        if self.remote_hosts is None:
            return parse_hosts(LOOPBACK if is_loopback(self.host) else "")
        return parse_hosts(self.remote_hosts)

    def connections(self) -> Connections:
        """Makes what opens connections to servers elsewhere."""
        path = self.remote_credentials_file
        return Connections(
            self.allowed_hosts,
            self.max_message_bytes,
            parse_patterns(self.propagate_headers),
            read_credentials(path) if path is not None else None,
            self.remote_ca_file,
        )
