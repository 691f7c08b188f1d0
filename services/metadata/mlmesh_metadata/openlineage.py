"""OpenLineage's RunEvents (spec 2-0-2, https://openlineage.io/spec/2-0-2/OpenLineage.json) of executions, and the
other way round.

What is imported is of the types `openlineage.Job` and `openlineage.Dataset`, and goes out again as it came in. What is
ours carries its type, name and properties in facets of our own.
"""

import json
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from google.protobuf import json_format, struct_pb2
from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.values import plain

PRODUCER = "urn:mlmesh:metadata"
SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
JOB_TYPE = "openlineage.Job"
DATASET_TYPE = "openlineage.Dataset"
JOB_NAMESPACE = "mlmesh"
EVENT_TIME, EVENT_TYPE, START_TIME = "event_time", "event_type", "start_time"
RUN_FACET, JOB_FACET, DATASET_FACET = "run.", "job.", "dataset."
"""Before the names of custom properties that hold facets."""

_State = mlpb.Execution.State
_EVENT_TYPES: dict[int, str] = {
    mlpb.Execution.COMPLETE: "COMPLETE",
    mlpb.Execution.CACHED: "COMPLETE",
    mlpb.Execution.FAILED: "FAIL",
    mlpb.Execution.CANCELED: "ABORT",
    mlpb.Execution.RUNNING: "RUNNING",
    mlpb.Execution.NEW: "START",
}
STATES: dict[str, int] = {
    "START": mlpb.Execution.RUNNING,
    "RUNNING": mlpb.Execution.RUNNING,
    "COMPLETE": mlpb.Execution.COMPLETE,
    "FAIL": mlpb.Execution.FAILED,
    "ABORT": mlpb.Execution.CANCELED,
}
ORDER = ("OTHER", "START", "RUNNING", "ABORT", "FAIL", "COMPLETE")
"""Of events with one time the one that counts is the last of these."""
_OBJECT_STORES = {"s3", "s3a", "s3n", "gs", "minio", "abfs", "abfss", "wasb", "wasbs"}
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


class Crossed(NamedTuple):
    """An artifact that an execution used (`is_input`) or made."""

    is_input: bool
    artifact: mlpb.Artifact


class Dataset(NamedTuple):
    """A dataset of an event."""

    namespace: str
    name: str
    facets: dict[str, Any]

    @property
    def uri(self) -> str:
        """Where it lies, as far as its name says it."""
        if self.namespace == "file":
            return f"file://{self.name}" if self.name.startswith("/") else ""
        return f"{self.namespace}/{self.name.removeprefix('/')}" if "://" in self.namespace else ""


class RunEvent(NamedTuple):
    """What an event says that is kept."""

    event_type: str
    event_time: str
    run_id: str
    run_facets: dict[str, Any]
    job: tuple[str, str]
    job_facets: dict[str, Any]
    inputs: list[Dataset]
    outputs: list[Dataset]

    @property
    def milliseconds(self) -> int:
        """When, since the epoch."""
        return int(moment(self.event_time).timestamp() * 1000)


def dataset_name(uri: str) -> tuple[str, str] | None:
    """Gives namespace and name of what lies at a URI by OpenLineage's convention; None: it is no such URI.

    https://openlineage.io/docs/spec/naming
    """
    if not _URI.match(uri):
        return None
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    path = uri.split("://", 1)[1].removeprefix(parts.netloc) if "://" in uri else uri.split(":", 1)[1]
    if scheme == "file":
        return (f"file://{parts.netloc}" if parts.netloc else "file", path)
    if not parts.netloc or not path.strip("/"):
        return None
    if scheme in _OBJECT_STORES or scheme in {"postgres", "mysql", "trino"}:
        path = path.removeprefix("/")
    return f"{scheme}://{parts.netloc}", path


def run_event(
    store_id: str, execution: mlpb.Execution, crossed: Sequence[Crossed], contexts: Sequence[mlpb.Context]
) -> dict[str, Any]:
    """Gives an execution as an event.

    Args:
        store_id: Where it is from; runs of other stores get other ids.
        execution: What ran.
        crossed: What it used and made.
        contexts: What it belongs to.
    """
    custom = execution.custom_properties
    if execution.type == JOB_TYPE:
        job = _job(execution)
        run_id, run_facets, job_facets = execution.name, _facets(custom, RUN_FACET), _facets(custom, JOB_FACET)
        event_time, event_type = custom[EVENT_TIME].string_value, custom[EVENT_TYPE].string_value
    else:
        job = {"namespace": JOB_NAMESPACE, "name": execution.type}
        run_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PRODUCER}:{store_id}:execution:{execution.id}"))
        facet = {
            "type": execution.type,
            "name": execution.name,
            "properties": _properties(execution),
            "contexts": [{"type": context.type, "name": context.name} for context in contexts],
        }
        run_facets, job_facets = {"mlmesh_execution": _facet("execution", facet)}, {}
        event_time = _iso(execution.last_update_time_since_epoch)
        event_type = _EVENT_TYPES.get(execution.last_known_state, "OTHER")
    if job_facets:
        job["facets"] = job_facets
    event: dict[str, Any] = {
        "eventType": event_type,
        "eventTime": event_time,
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
        "run": {"runId": run_id, "facets": run_facets},
        "job": job,
    }
    for name, is_input in (("inputs", True), ("outputs", False)):
        found = [_dataset(store_id, one.artifact) for one in crossed if one.is_input is is_input]
        event[name] = list({(one["namespace"], one["name"]): one for one in found}.values())
    return event


def _job(execution: mlpb.Execution) -> dict[str, Any]:
    values = execution.properties
    return {"namespace": values["job_namespace"].string_value, "name": values["job_name"].string_value}


def _dataset(store_id: str, artifact: mlpb.Artifact) -> dict[str, Any]:
    if artifact.type == DATASET_TYPE:
        values = artifact.properties
        return {
            "namespace": values["namespace"].string_value,
            "name": values["name"].string_value,
            "facets": _facets(artifact.custom_properties, DATASET_FACET),
        }
    named = dataset_name(artifact.uri)
    if named is None:
        named = f"{PRODUCER}:{store_id}", f"{artifact.type}/{artifact.name or artifact.id}"
    facet = {
        "type": artifact.type,
        "name": artifact.name,
        "uri": artifact.uri,
        "state": mlpb.Artifact.State.Name(artifact.state) if artifact.HasField("state") else "",
        "properties": _properties(artifact),
    }
    return {"namespace": named[0], "name": named[1], "facets": {"mlmesh_artifact": _facet("artifact", facet)}}


def _facet(name: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": f"{PRODUCER}:facet:{name}:1", **content}


def _properties(node: mlpb.Artifact | mlpb.Execution) -> dict[str, Any]:
    found = {}
    for values in (node.properties, node.custom_properties):
        for name in sorted(values):
            found[name] = plain(values[name])
    return found


def _facets(custom: Any, prefix: str) -> dict[str, Any]:
    found = {}
    for name in sorted(custom):
        if name.startswith(prefix):
            found[name.removeprefix(prefix)] = _whole(json_format.MessageToDict(custom[name].struct_value))
    return found


def _whole(value: Any) -> Any:
    """A struct knows no whole numbers; JSON Schema's integers may be written 1.0, but few readers expect it."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(member) for name, member in value.items()}
    return [_whole(member) for member in value] if isinstance(value, list) else value


def _iso(milliseconds: int) -> str:
    made = datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    return made.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """Reads a time of RFC 3339; one without a zone is UTC."""
    # Python has microseconds; producers have nanoseconds.
    made = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    return made if made.tzinfo else made.replace(tzinfo=UTC)


def parse_event(given: dict[str, Any]) -> RunEvent | None:
    """Reads an event; None: a JobEvent, or a DatasetEvent, which say nothing of a run.

    Raises:
        InvalidArgument: It is none; the field is named.
    """
    if "run" not in given and ("job" in given or "dataset" in given):
        return None
    time = _text(given, "eventTime")
    try:
        moment(time).timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidArgument("must be a time: 2024-05-01T12:00:00Z", field="eventTime") from error
    event_type = given.get("eventType") or "OTHER"
    if not isinstance(event_type, str) or event_type.upper() not in ORDER:
        raise InvalidArgument(f"must be one of {', '.join(sorted(ORDER))}", field="eventType")
    run, job = _object(given, "run"), _object(given, "job")
    run_id = _text(run, "runId", "run.")
    try:
        run_id = str(uuid.UUID(run_id))
    except ValueError as error:
        raise InvalidArgument("must be a UUID", field="run.runId") from error
    return RunEvent(
        event_type.upper(),
        time,
        run_id,
        _read_facets(run, "run.facets"),
        (_text(job, "namespace", "job."), _text(job, "name", "job.")),
        _read_facets(job, "job.facets"),
        _datasets(given, "inputs"),
        _datasets(given, "outputs"),
    )


def _datasets(given: dict[str, Any], field: str) -> list[Dataset]:
    items = given.get(field)
    if items is None:
        return []
    if not isinstance(items, list):
        raise InvalidArgument("must be a list", field=field)
    found = []
    for index, one in enumerate(items):
        path = f"{field}[{index}]"
        if not isinstance(one, dict):
            raise InvalidArgument("must be an object", field=path)
        names = _text(one, "namespace", f"{path}."), _text(one, "name", f"{path}.")
        found.append(Dataset(*names, _read_facets(one, f"{path}.facets")))
    return found


def _read_facets(given: dict[str, Any], path: str) -> dict[str, Any]:
    facets = given.get("facets")
    if facets is None:
        return {}
    if not isinstance(facets, dict) or not all(isinstance(facet, dict) for facet in facets.values()):
        raise InvalidArgument("must be an object of objects", field=path)
    for name, facet in facets.items():
        try:
            json_format.ParseDict(facet, struct_pb2.Struct())
            json.dumps(facet).encode()
        except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
            raise InvalidArgument("has a value that cannot be stored", field=f"{path}.{name}") from error
    return facets


def _object(given: dict[str, Any], field: str) -> dict[str, Any]:
    found = given.get(field)
    if not isinstance(found, dict):
        raise InvalidArgument("must be an object", field=field)
    return found


def _text(given: dict[str, Any], field: str, path: str = "") -> str:
    found = given.get(field)
    if not isinstance(found, str) or not found or not found.isprintable():
        raise InvalidArgument("must be text that is not empty", field=f"{path}{field}")
    return found
