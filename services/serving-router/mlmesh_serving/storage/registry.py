"""Models by what the metadata service knows of them: `mlmd://artifacts/ID`, `mlmd://models/NAME[/versions/VERSION]`.

A name is that of an artifact of type `system.Model`, as pipelines and trials leave them, or that of a model in
Kubeflow's Model Registry: a context `kf.RegisteredModel`, whose versions are its child contexts `kf.ModelVersion`,
named `<id of the model>:<version>`, with artifacts `kf.ModelArtifact`.
"""

from typing import Any

import grpc
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, Unavailable
from mlmesh_kit.identity import USER_HEADER
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlmd
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service
from mlmesh_protos.ml_metadata import metadata_store_service_pb2_grpc

from mlmesh_serving.storage.location import Location

MODEL_TYPES = ("system.Model", "kf.ModelArtifact")
_REGISTERED = "kf.RegisteredModel"
_VERSION = "kf.ModelVersion"
_CALL_SECONDS = 10.0
_MAX_ID = (1 << 63) - 1


class MetadataRegistry:
    """Asks the metadata service.

    Args:
        address: Of its gRPC port; empty: there is none.
        user: As whom.
    """

    def __init__(self, address: str, user: str) -> None:
        self._address = address
        self._caller = ((USER_HEADER, user),)

    def check(self, location: Location) -> None:
        """Checks a URI without asking.

        Raises:
            InvalidArgument: It is none of the forms.
            FailedPrecondition: There is no metadata service.
        """
        _parsed(location)
        if not self._address:
            raise FailedPrecondition(
                f"{location.field}: mlmd:// needs the metadata service (MLMESH_SERVING_METADATA_ADDRESS)"
            )

    def resolve(self, location: Location) -> str:
        """Gives the URI of the model's content. Blocks.

        Raises:
            InvalidArgument: There is no such model.
            FailedPrecondition: It has no URI, or is marked as deleted; or there is no metadata service.
            Unavailable: The metadata service does not answer.
        """
        self.check(location)
        kind, name, version = _parsed(location)
        with grpc.insecure_channel(self._address) as channel:
            asked = _Asked(metadata_store_service_pb2_grpc.MetadataStoreServiceStub(channel), self._caller)
            try:
                found = asked.by_id(int(name)) if kind == "artifacts" else asked.by_name(name, version)
            except grpc.RpcError as error:
                raise _translated(error) from error
        if found is None:
            raise InvalidArgument("the metadata service knows no such model", field=location.field)
        if found.state in {mlmd.Artifact.DELETED, mlmd.Artifact.MARKED_FOR_DELETION}:
            raise FailedPrecondition(f"{location.field}: artifact {found.id} was deleted")
        if not found.uri:
            raise FailedPrecondition(f"{location.field}: artifact {found.id} has no URI")
        return found.uri


class _Asked:
    """The questions.

    Args:
        stub: Of the metadata service.
        caller: Metadata of the calls.
    """

    def __init__(self, stub: Any, caller: tuple[tuple[str, str], ...]) -> None:
        self._stub = stub
        self._caller = caller

    def by_id(self, artifact: int) -> mlmd.Artifact | None:
        """Gives an artifact."""
        return _last(self._call("GetArtifactsByID", service.GetArtifactsByIDRequest(artifact_ids=[artifact])).artifacts)

    def by_name(self, name: str, version: str) -> mlmd.Artifact | None:
        """Gives the model of a name."""
        if not version:
            request = service.GetArtifactByTypeAndNameRequest(type_name=MODEL_TYPES[0], artifact_name=name)
            answer = self._call("GetArtifactByTypeAndName", request)
            if answer.HasField("artifact"):
                return answer.artifact  # type: ignore[no-any-return]  # the stub has no types
        context = service.GetContextByTypeAndNameRequest(type_name=_REGISTERED, context_name=name)
        answer = self._call("GetContextByTypeAndName", context)
        if not answer.HasField("context"):
            return None
        return self._registered(answer.context.id, version)

    def _registered(self, model: int, version: str) -> mlmd.Artifact | None:
        children = self._call(
            "GetChildrenContextsByContext", service.GetChildrenContextsByContextRequest(context_id=model)
        )
        wanted = f"{model}:{version}"
        versions = [
            child for child in children.contexts if child.type == _VERSION and (not version or child.name == wanted)
        ]
        newest = max(versions, key=lambda child: (child.create_time_since_epoch, child.id), default=None)
        if newest is None:
            return None
        held = self._call("GetArtifactsByContext", service.GetArtifactsByContextRequest(context_id=newest.id))
        return _last([artifact for artifact in held.artifacts if artifact.type in MODEL_TYPES])

    def _call(self, method: str, request: Any) -> Any:
        return getattr(self._stub, method)(request, timeout=_CALL_SECONDS, metadata=self._caller)


def _last(artifacts: Any) -> mlmd.Artifact | None:
    return max(artifacts, key=lambda one: (one.create_time_since_epoch, one.id), default=None)


def _parsed(location: Location) -> tuple[str, str, str]:
    """Gives the collection, the id or name, and the version."""
    kind, _, rest = location.place.partition("/")
    if kind == "artifacts" and rest.isascii() and rest.isdigit() and len(rest) < 20 and 0 < int(rest) <= _MAX_ID:
        return kind, rest, ""
    name, _, version = rest.partition("/versions/")
    if kind == "models" and name and rest.count("/versions/") <= 1 and bool(version) == ("/versions/" in rest):
        return kind, name, version
    raise InvalidArgument(
        "must be mlmd://artifacts/ID, mlmd://models/NAME or mlmd://models/NAME/versions/VERSION", field=location.field
    )


def _translated(error: grpc.RpcError) -> Exception:
    code = error.code()
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
        return Unavailable("the metadata service does not answer", retry_after_seconds=1)
    return FailedPrecondition(f"the metadata service refused it: {code.name}: {str(error.details())[:200]}")
