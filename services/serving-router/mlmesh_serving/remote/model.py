"""A model on a server elsewhere, as it is asked."""

from dataclasses import dataclass

from mlmesh_serving.manifest.spec import Protocol, RemoteSpec
from mlmesh_serving.remote.address import SCHEMES, RemoteAddress, parse_address
from mlmesh_serving.remote.hosts import AllowedHosts

DEFAULT_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """Where it is, and how it is asked.

    Attributes:
        address: Of the server.
        protocol: It speaks.
        name: Of the model there; empty: as our client calls it.
        version: Of the model there; empty: that server chooses.
        timeout_seconds: For an answer, if the client does not want it sooner.
        openai_path: Below which its OpenAI routes lie, below the address; empty: it has none.
    """

    address: RemoteAddress
    protocol: Protocol
    name: str = ""
    version: str = ""
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    openai_path: str = ""


def remote_model(spec: RemoteSpec, hosts: AllowedHosts) -> RemoteModel:
    """Reads what a manifest says of a server elsewhere.

    Args:
        spec: Of the manifest.
        hosts: That may be called.

    Raises:
        InvalidArgument: The address is none, or may not be called.
    """
    address = parse_address(spec.url, spec.field, tuple(s for s in SCHEMES if s.startswith("grpc") is spec.is_grpc))
    hosts.check(address.host, spec.field)
    return RemoteModel(
        address,
        spec.protocol,
        spec.model,
        spec.version,
        spec.timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
        spec.openai,
    )
