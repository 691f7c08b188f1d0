"""What the compiled protos say of each gRPC service."""

import importlib.resources
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC.

    Attributes:
        name: Without the service's.
        streaming: Whether either side streams.
        rest: Whether it has a REST path (google.api.http).
    """

    name: str
    streaming: bool
    rest: bool


def descriptor_set_path() -> Path:
    """Gives the descriptor set of all protos, as the transcoder reads it."""
    return Path(str(importlib.resources.files("mlmesh_protos") / "descriptor_set.pb"))


def read_methods(path: Path | None = None) -> dict[str, tuple[Method, ...]]:
    """Reads the RPCs of every service in a descriptor set, by the service's full name."""
    files = descriptor_pb2.FileDescriptorSet.FromString((path or descriptor_set_path()).read_bytes())
    # google.api.http is the only option that our RPCs have: any option means a REST path.
    return {
        f"{file.package}.{service.name}": tuple(
            Method(m.name, m.client_streaming or m.server_streaming, m.options.ByteSize() > 0) for m in service.method
        )
        for file in files.file
        for service in file.service
    }
