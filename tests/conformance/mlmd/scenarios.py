"""What a user of ML Metadata does, against any store, as a list of answers.

Runs in the environment of the stock client (ml-metadata), never in ours: `python scenarios.py sqlite:FILE` asks MLMD's
own store, `python scenarios.py grpc:HOST:PORT` asks a server through the stock client. Prints one JSON object: for each
step its answer (protos as JSON, times left out) or the class of its error. Two stores that answer alike print alike.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_metadata
from google.protobuf import json_format, struct_pb2
from ml_metadata import errors
from ml_metadata.proto import metadata_store_pb2 as mlpb
from ml_metadata.proto import metadata_store_service_pb2 as service

_TIMES = {"createTimeSinceEpoch", "lastUpdateTimeSinceEpoch", "millisecondsSinceEpoch"}


def connect(target: str) -> Any:
    kind, _, rest = target.partition(":")
    if kind == "sqlite":
        config = mlpb.ConnectionConfig()
        config.sqlite.filename_uri = rest
        config.sqlite.connection_mode = mlpb.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        return ml_metadata.MetadataStore(config)
    if kind in {"postgresql", "mysql"}:
        host, port, database, user = rest.split(":")
        config = mlpb.ConnectionConfig()
        if kind == "postgresql":
            config.postgresql.host, config.postgresql.port = host, port
            config.postgresql.dbname, config.postgresql.user = database, user
            config.postgresql.password = "none"
            config.postgresql.skip_db_creation = True
        else:
            config.mysql.host, config.mysql.port = host, int(port)
            config.mysql.database, config.mysql.user = database, user
            config.mysql.skip_db_creation = True
        return ml_metadata.MetadataStore(config)
    host, _, port = rest.partition(":")
    client = mlpb.MetadataStoreClientConfig(host=host, port=int(port))
    return ml_metadata.MetadataStore(client)


def plain(value: Any) -> Any:
    """Gives an answer as JSON, without what differs from run to run."""
    if hasattr(value, "DESCRIPTOR"):
        return _untimed(json_format.MessageToDict(value))
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _untimed(v) for k, v in value.items() if k not in _TIMES}
    if isinstance(value, list):
        return [_untimed(v) for v in value]
    return value


class Recorder:
    """Runs steps and keeps what each answered."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.answers: dict[str, Any] = {}

    def step(self, name: str, call: Callable[[], Any]) -> Any:
        """Runs a step; its error is an answer too."""
        assert name not in self.answers, name
        try:
            value = call()
        except errors.StatusError as error:
            self.answers[name] = {"error": type(error).__name__, "message": str(error)}
            return None
        self.answers[name] = plain(value)
        return value


def by_id(nodes: Any) -> list[Any]:
    return sorted(nodes, key=lambda node: node.id)


def by_ends(events: Any) -> list[Any]:
    """Sorts events: MLMD gives them in no order that it promises."""
    return sorted(events, key=lambda event: (event.artifact_id, event.execution_id, event.type))


def artifact_type(name: str, version: str = "", **properties: int) -> Any:
    made = mlpb.ArtifactType(name=name)
    if version:
        made.version = version
    for key, value in properties.items():
        made.properties[key] = value
    return made


def types(r: Recorder) -> None:
    s = r.store
    full = artifact_type("DataSet", day=mlpb.INT, split=mlpb.STRING)
    r.step("put artifact type", lambda: s.put_artifact_type(full))
    r.step("put it again", lambda: s.put_artifact_type(full))
    more = artifact_type("DataSet", day=mlpb.INT, split=mlpb.STRING, size=mlpb.DOUBLE)
    fewer = artifact_type("DataSet", day=mlpb.INT)
    other = artifact_type("DataSet", day=mlpb.STRING, split=mlpb.STRING)
    r.step("more properties", lambda: s.put_artifact_type(more))
    r.step("more properties, can_add_fields", lambda: s.put_artifact_type(more, can_add_fields=True))
    r.step("fewer properties", lambda: s.put_artifact_type(fewer))
    r.step("fewer properties, can_omit_fields", lambda: s.put_artifact_type(fewer, can_omit_fields=True))
    r.step("other kind of property", lambda: s.put_artifact_type(other, can_add_fields=True, can_omit_fields=True))
    r.step("no name", lambda: s.put_artifact_type(mlpb.ArtifactType()))
    r.step("empty name", lambda: s.put_artifact_type(mlpb.ArtifactType(name="")))
    r.step("unknown property kind", lambda: s.put_artifact_type(artifact_type("Odd", x=mlpb.UNKNOWN)))
    versioned = artifact_type("DataSet", "v2", day=mlpb.INT)
    r.step("a version", lambda: s.put_artifact_type(versioned))
    r.step("get type", lambda: s.get_artifact_type("DataSet"))
    r.step("get version", lambda: s.get_artifact_type("DataSet", "v2"))
    r.step("get unknown version", lambda: s.get_artifact_type("DataSet", "v9"))
    r.step("get unknown type", lambda: s.get_artifact_type("Nothing"))
    described = artifact_type("Described", a=mlpb.STRUCT, b=mlpb.PROTO, c=mlpb.BOOLEAN)
    described.description = "says what it is"
    described.external_id = "type-1"
    r.step("external id", lambda: s.put_artifact_type(described))
    clash = artifact_type("Clash")
    clash.external_id = "type-1"
    r.step("external id taken", lambda: s.put_artifact_type(clash))
    r.step("get by external id", lambda: s.get_artifact_types_by_external_ids(["type-1", "nothing"]))
    r.step("get by no external id", lambda: s.get_artifact_types_by_external_ids([]))
    r.step("get by empty external id", lambda: s.get_artifact_types_by_external_ids([""]))
    execution = mlpb.ExecutionType(name="Trainer", properties={"state": mlpb.STRING})
    execution.input_type.dict.properties["data"].simple.name = "DataSet"
    r.step("execution type", lambda: s.put_execution_type(execution))
    r.step("get execution type", lambda: s.get_execution_type("Trainer"))
    r.step("context type", lambda: s.put_context_type(mlpb.ContextType(name="Study", properties={"note": mlpb.STRING})))
    r.step("get context type", lambda: s.get_context_type("Study"))
    r.step("same name, other kind", lambda: s.put_context_type(mlpb.ContextType(name="DataSet")))
    # MLMD leaves the external ids out here, though nowhere else; ours are there (docs/metadata.md).
    r.step("all artifact types", lambda: [(t.id, t.name, t.version) for t in by_id(s.get_artifact_types())])
    r.step("all execution types", lambda: by_id(s.get_execution_types()))
    r.step("all context types", lambda: by_id(s.get_context_types()))
    ids = [t.id for t in by_id(s.get_artifact_types())]
    r.step("types by id", lambda: by_id(s.get_artifact_types_by_id([ids[0], 9999])))
    r.step("types by ids of another kind", lambda: s.get_artifact_types_by_id([s.get_context_type("Study").id]))
    model = mlpb.ArtifactType(name="MyModel", base_type=mlpb.ArtifactType.MODEL)
    r.step("base type", lambda: s.put_artifact_type(model))
    r.step("get base type", lambda: s.get_artifact_type("MyModel"))
    r.step("base type kept when not said", lambda: s.put_artifact_type(mlpb.ArtifactType(name="MyModel")))
    rebased = mlpb.ArtifactType(name="MyModel", base_type=mlpb.ArtifactType.DATASET)
    r.step("base type changed", lambda: s.put_artifact_type(rebased))
    unset = mlpb.ArtifactType(name="MyModel", base_type=mlpb.ArtifactType.UNSET)
    r.step("base type unset", lambda: s.put_artifact_type(unset))


def nodes(r: Recorder) -> None:
    s = r.store
    type_id = s.put_artifact_type(
        artifact_type("Kinds", i=mlpb.INT, d=mlpb.DOUBLE, s=mlpb.STRING, st=mlpb.STRUCT, p=mlpb.PROTO, b=mlpb.BOOLEAN)
    )
    struct = struct_pb2.Struct()
    struct.update({"list": [1, "two", None, {"three": 3.5}], "on": True})
    full = mlpb.Artifact(type_id=type_id, uri="file:///a", name="full", state=mlpb.Artifact.LIVE, external_id="a-1")
    full.properties["i"].int_value = -(2**62)
    full.properties["d"].double_value = 0.1
    full.properties["s"].string_value = "text \u00e9 \U0001f600 'quoted'"
    full.properties["st"].struct_value.CopyFrom(struct)
    full.properties["p"].proto_value.Pack(mlpb.Context(name="packed"))
    full.properties["b"].bool_value = True
    full.custom_properties["own"].string_value = "custom"
    full.custom_properties["free"].double_value = 1e300
    r.step("put artifact", lambda: s.put_artifacts([full]))
    stored = r.step("get artifact", lambda: s.get_artifact_by_type_and_name("Kinds", "full"))
    r.step("get by id", lambda: s.get_artifacts_by_id([stored.id, 9999]))
    r.step("get by no id", lambda: s.get_artifacts_by_id([]))
    r.step("get by uri", lambda: s.get_artifacts_by_uri("file:///a"))
    r.step("get by unknown uri", lambda: s.get_artifacts_by_uri("file:///nothing"))
    r.step("get by external id", lambda: s.get_artifacts_by_external_ids(["a-1"]))
    r.step("get by unknown external id", lambda: s.get_artifacts_by_external_ids(["zzz"]))
    r.step("get by type", lambda: s.get_artifacts_by_type("Kinds"))
    r.step("get by unknown type", lambda: s.get_artifacts_by_type("Nothing"))
    r.step("get by unknown name", lambda: s.get_artifact_by_type_and_name("Kinds", "nothing"))
    r.step("get by name of unknown type", lambda: s.get_artifact_by_type_and_name("Nothing", "full"))
    r.step("name taken", lambda: s.put_artifacts([mlpb.Artifact(type_id=type_id, name="full")]))
    r.step("external id taken", lambda: s.put_artifacts([mlpb.Artifact(type_id=type_id, external_id="a-1")]))
    r.step("no type", lambda: s.put_artifacts([mlpb.Artifact(uri="x")]))
    r.step("type by name", lambda: s.put_artifacts([mlpb.Artifact(type="Kinds", uri="x")]))
    r.step("unknown type", lambda: s.put_artifacts([mlpb.Artifact(type_id=9999)]))
    unknown = mlpb.Artifact(type_id=type_id)
    unknown.properties["nothing"].int_value = 1
    r.step("unknown property", lambda: s.put_artifacts([unknown]))
    wrong = mlpb.Artifact(type_id=type_id)
    wrong.properties["i"].string_value = "one"
    r.step("wrong kind of property", lambda: s.put_artifacts([wrong]))
    empty = mlpb.Artifact(type_id=type_id)
    empty.properties["i"].CopyFrom(mlpb.Value())
    r.step("empty value", lambda: s.put_artifacts([empty]))
    fine = mlpb.Artifact(type_id=type_id, name="fine")
    r.step("one bad spoils all", lambda: s.put_artifacts([fine, wrong]))
    r.step("and nothing is stored", lambda: s.get_artifact_by_type_and_name("Kinds", "fine"))
    r.step("twice in one call", lambda: s.put_artifacts([fine, fine]))
    r.step("many at once", lambda: s.put_artifacts([mlpb.Artifact(type_id=type_id, uri=f"u{n}") for n in range(5)]))
    r.step("none", lambda: s.put_artifacts([]))

    changed = mlpb.Artifact()
    changed.CopyFrom(stored)
    changed.uri = "file:///b"
    changed.state = mlpb.Artifact.DELETED
    del changed.properties["s"]
    changed.properties["i"].int_value = 7
    changed.custom_properties["new"].int_value = 3
    r.step("update", lambda: s.put_artifacts([changed]))
    r.step("updated", lambda: s.get_artifacts_by_id([stored.id]))
    r.step("rename", lambda: s.put_artifacts([mlpb.Artifact(id=stored.id, type_id=type_id, name="renamed")]))
    r.step("after rename", lambda: s.get_artifacts_by_id([stored.id]))
    other_type = s.put_artifact_type(artifact_type("Other"))
    r.step("change type", lambda: s.put_artifacts([mlpb.Artifact(id=stored.id, type_id=other_type)]))
    r.step("update without type", lambda: s.put_artifacts([mlpb.Artifact(id=stored.id, uri="no type")]))
    r.step("after that", lambda: s.get_artifacts_by_id([stored.id]))
    r.step("update unknown id", lambda: s.put_artifacts([mlpb.Artifact(id=9999, type_id=type_id)]))
    r.step("all", lambda: by_id(s.get_artifacts()))
    r.step(
        "type of artifacts",
        lambda: service_call(s, "GetArtifactsByID", artifact_ids=[stored.id], populate_artifact_types=True),
    )

    run_type = s.put_execution_type(mlpb.ExecutionType(name="Run", properties={"n": mlpb.INT}))
    run = mlpb.Execution(type_id=run_type, name="run-1", last_known_state=mlpb.Execution.RUNNING, external_id="e-1")
    run.properties["n"].int_value = 1
    run.custom_properties["log"].string_value = "file:///log"
    r.step("put execution", lambda: s.put_executions([run]))
    r.step("get execution", lambda: s.get_execution_by_type_and_name("Run", "run-1"))
    r.step("get executions by type", lambda: s.get_executions_by_type("Run"))
    r.step("execution name taken", lambda: s.put_executions([mlpb.Execution(type_id=run_type, name="run-1")]))
    r.step("execution of an artifact's type", lambda: s.put_executions([mlpb.Execution(type_id=type_id)]))
    r.step("executions by external id", lambda: s.get_executions_by_external_ids(["e-1"]))
    r.step("executions by id", lambda: s.get_executions_by_id([1, 2, 3]))
    r.step("executions", lambda: by_id(s.get_executions()))

    study_type = s.put_context_type(mlpb.ContextType(name="Lab", properties={"note": mlpb.STRING}))
    study = mlpb.Context(type_id=study_type, name="lab-1", external_id="c-1")
    study.properties["note"].string_value = "first"
    r.step("put context", lambda: s.put_contexts([study]))
    r.step("get context", lambda: s.get_context_by_type_and_name("Lab", "lab-1"))
    r.step("get contexts by type", lambda: s.get_contexts_by_type("Lab"))
    r.step("context without name", lambda: s.put_contexts([mlpb.Context(type_id=study_type)]))
    r.step("context with empty name", lambda: s.put_contexts([mlpb.Context(type_id=study_type, name="")]))
    r.step("context name taken", lambda: s.put_contexts([mlpb.Context(type_id=study_type, name="lab-1")]))
    r.step("contexts by external id", lambda: s.get_contexts_by_external_ids(["c-1"]))
    r.step("contexts by id", lambda: s.get_contexts_by_id([1]))
    r.step("contexts", lambda: by_id(s.get_contexts()))


def links(r: Recorder) -> None:
    s = r.store
    data = s.put_artifact_type(artifact_type("Linked"))
    job = s.put_execution_type(mlpb.ExecutionType(name="Linker"))
    group = s.put_context_type(mlpb.ContextType(name="Group"))
    a, b = s.put_artifacts([mlpb.Artifact(type_id=data, name=n) for n in ("a", "b")])
    e, f = s.put_executions([mlpb.Execution(type_id=job, name=n) for n in ("e", "f")])
    c, d = s.put_contexts([mlpb.Context(type_id=group, name=n) for n in ("c", "d")])

    path = mlpb.Event.Path(steps=[mlpb.Event.Path.Step(key="data"), mlpb.Event.Path.Step(index=3)])
    first = mlpb.Event(artifact_id=a, execution_id=e, type=mlpb.Event.INPUT, path=path, milliseconds_since_epoch=5)
    r.step("put event", lambda: s.put_events([first]))
    r.step(
        "put events",
        lambda: s.put_events(
            [
                mlpb.Event(artifact_id=b, execution_id=e, type=mlpb.Event.OUTPUT),
                mlpb.Event(artifact_id=b, execution_id=f, type=mlpb.Event.DECLARED_INPUT),
            ]
        ),
    )
    r.step("event twice", lambda: s.put_events([first]))
    r.step(
        "same pair, other type",
        lambda: s.put_events([mlpb.Event(artifact_id=a, execution_id=e, type=mlpb.Event.INTERNAL_INPUT)]),
    )
    r.step(
        "event of unknown artifact",
        lambda: s.put_events([mlpb.Event(artifact_id=9999, execution_id=e, type=mlpb.Event.INPUT)]),
    )
    r.step(
        "event of unknown execution",
        lambda: s.put_events([mlpb.Event(artifact_id=a, execution_id=9999, type=mlpb.Event.INPUT)]),
    )
    r.step("event without type", lambda: s.put_events([mlpb.Event(artifact_id=a, execution_id=f)]))
    r.step("event without artifact", lambda: s.put_events([mlpb.Event(execution_id=e, type=mlpb.Event.INPUT)]))
    r.step("events of executions", lambda: by_ends(s.get_events_by_execution_ids([e, f])))
    r.step("events of artifacts", lambda: by_ends(s.get_events_by_artifact_ids([a, b])))
    r.step("events of nothing", lambda: s.get_events_by_execution_ids([9999]))
    r.step("events of no execution", lambda: s.get_events_by_execution_ids([]))

    attribution = mlpb.Attribution(artifact_id=a, context_id=c)
    association = mlpb.Association(execution_id=e, context_id=c)
    r.step("attribute", lambda: s.put_attributions_and_associations([attribution], [association]))
    r.step("attribute again", lambda: s.put_attributions_and_associations([attribution], [association]))
    r.step(
        "attribute unknown",
        lambda: s.put_attributions_and_associations([mlpb.Attribution(artifact_id=9999, context_id=c)], []),
    )
    r.step(
        "attribute to unknown",
        lambda: s.put_attributions_and_associations([mlpb.Attribution(artifact_id=a, context_id=9999)], []),
    )
    r.step(
        "associate unknown",
        lambda: s.put_attributions_and_associations([], [mlpb.Association(execution_id=9999, context_id=c)]),
    )
    r.step("attribute nothing", lambda: s.put_attributions_and_associations([mlpb.Attribution()], []))
    r.step("artifacts by context", lambda: s.get_artifacts_by_context(c))
    r.step("executions by context", lambda: s.get_executions_by_context(c))
    r.step("contexts by artifact", lambda: s.get_contexts_by_artifact(a))
    r.step("contexts by execution", lambda: s.get_contexts_by_execution(e))
    r.step("artifacts by unknown context", lambda: s.get_artifacts_by_context(9999))
    r.step("contexts by lonely artifact", lambda: s.get_contexts_by_artifact(b))
    r.step("contexts by lonely execution", lambda: s.get_contexts_by_execution(f))
    r.step("contexts by unknown execution", lambda: s.get_contexts_by_execution(9999))
    r.step("contexts by unknown artifact", lambda: s.get_contexts_by_artifact(9999))

    r.step("parent", lambda: s.put_parent_contexts([mlpb.ParentContext(child_id=c, parent_id=d)]))
    r.step("parent twice", lambda: s.put_parent_contexts([mlpb.ParentContext(child_id=c, parent_id=d)]))
    r.step("parent unknown", lambda: s.put_parent_contexts([mlpb.ParentContext(child_id=c, parent_id=9999)]))
    r.step("cycle", lambda: s.put_parent_contexts([mlpb.ParentContext(child_id=d, parent_id=c)]))
    r.step("own parent", lambda: s.put_parent_contexts([mlpb.ParentContext(child_id=d, parent_id=d)]))
    r.step("no child", lambda: s.put_parent_contexts([mlpb.ParentContext(parent_id=d)]))
    r.step("parents", lambda: s.get_parent_contexts_by_context(c))
    r.step("children", lambda: s.get_children_contexts_by_context(d))
    r.step("parents of unknown", lambda: s.get_parent_contexts_by_context(9999))


def put_execution(r: Recorder) -> None:
    s = r.store
    data = s.put_artifact_type(artifact_type("PeData"))
    job = s.put_execution_type(mlpb.ExecutionType(name="PeJob"))
    group = s.put_context_type(mlpb.ContextType(name="PeGroup"))
    (known,) = s.put_artifacts([mlpb.Artifact(type_id=data, name="known", uri="k")])
    run = mlpb.Execution(type_id=job, name="pe-1")
    pairs = [
        (mlpb.Artifact(id=known, type_id=data, name="known", uri="k2"), mlpb.Event(type=mlpb.Event.INPUT)),
        (mlpb.Artifact(type_id=data, name="made", external_id="pe-made"), mlpb.Event(type=mlpb.Event.OUTPUT)),
        (mlpb.Artifact(type_id=data, name="no event"), None),
    ]
    context = mlpb.Context(type_id=group, name="g")
    r.step("put", lambda: s.put_execution(run, pairs, [context]))
    r.step("stored execution", lambda: s.get_execution_by_type_and_name("PeJob", "pe-1"))
    r.step("stored artifacts", lambda: s.get_artifacts_by_type("PeData"))
    ids = [s.get_execution_by_type_and_name("PeJob", "pe-1").id]
    r.step("stored events", lambda: s.get_events_by_execution_ids(ids))
    r.step("stored contexts", lambda: s.get_contexts_by_execution(ids[0]))
    again = mlpb.Execution(type_id=job, name="pe-2")
    r.step("context exists", lambda: s.put_execution(again, [], [context]))
    r.step("and nothing is stored", lambda: s.get_execution_by_type_and_name("PeJob", "pe-2"))
    r.step("context reused", lambda: s.put_execution(again, [], [context], reuse_context_if_already_exist=True))
    made = (mlpb.Artifact(type_id=data, external_id="pe-made", uri="again"), mlpb.Event(type=mlpb.Event.INPUT))
    third = mlpb.Execution(type_id=job, name="pe-3")
    r.step("artifact exists", lambda: s.put_execution(third, [made], []))
    r.step(
        "artifact reused",
        lambda: s.put_execution(third, [made], [], reuse_artifact_if_already_exist_by_external_id=True),
    )
    r.step("reused artifact", lambda: s.get_artifacts_by_external_ids(["pe-made"]))
    only_id = mlpb.Execution(type_id=job, id=ids[0], name="pe-1", last_known_state=mlpb.Execution.COMPLETE)
    r.step("update execution", lambda: s.put_execution(only_id, [], [mlpb.Context(id=1, type_id=group, name="g")]))
    r.step("updated execution", lambda: s.get_executions_by_id(ids))
    wrong = (mlpb.Artifact(id=known, type_id=data, name="known"), mlpb.Event(artifact_id=9999, type=mlpb.Event.INPUT))
    fourth = mlpb.Execution(type_id=job, name="pe-4")
    r.step("event of another artifact", lambda: s.put_execution(fourth, [wrong], []))
    wrong_run = (mlpb.Artifact(id=known, type_id=data), mlpb.Event(execution_id=9999, type=mlpb.Event.INPUT))
    r.step("event of another execution", lambda: s.put_execution(fourth, [wrong_run], []))
    untyped = (mlpb.Artifact(id=known, type_id=data), mlpb.Event())
    r.step("event without type", lambda: s.put_execution(fourth, [untyped], []))
    group_id = s.get_context_by_type_and_name("PeGroup", "g").id
    forced = mlpb.Context(id=group_id, type_id=group, name="other name")
    forced.custom_properties["x"].int_value = 1
    r.step("force reuse context", lambda: s.put_execution(fourth, [], [forced], force_reuse_context=True))
    r.step("context not touched", lambda: s.get_contexts_by_id([group_id]))
    fifth = mlpb.Execution(type_id=job, name="pe-5")
    r.step("context updated", lambda: s.put_execution(fifth, [], [forced]))
    r.step("context touched", lambda: s.get_contexts_by_id([group_id]))
    r.step("no execution type", lambda: s.put_execution(mlpb.Execution(name="pe-6"), [], []))
    gone = mlpb.Context(id=9999, type_id=group, name="gone")
    sixth = mlpb.Execution(type_id=job, name="pe-6")
    r.step("unknown context forced", lambda: s.put_execution(sixth, [], [gone], force_reuse_context=True))
    fresh = mlpb.Context(type_id=group, name="g")
    fresh.custom_properties["y"].int_value = 1
    r.step("reuse does not write", lambda: s.put_execution(sixth, [], [fresh], reuse_context_if_already_exist=True))
    r.step("reused context", lambda: s.get_contexts_by_id([group_id]))


def subgraph(r: Recorder) -> None:
    s = r.store
    data = s.put_artifact_type(artifact_type("SgData"))
    job = s.put_execution_type(mlpb.ExecutionType(name="SgJob"))
    group = s.put_context_type(mlpb.ContextType(name="SgGroup"))
    runs = [mlpb.Execution(type_id=job, name=f"sg-{n}") for n in range(2)]
    things = [mlpb.Artifact(type_id=data, name=f"sg-{n}", external_id=f"sg-{n}") for n in range(3)]
    groups = [mlpb.Context(type_id=group, name="sg")]
    edges = [
        (0, 0, mlpb.Event(type=mlpb.Event.OUTPUT)),
        (1, 0, mlpb.Event(type=mlpb.Event.INPUT)),
        (1, 1, mlpb.Event(type=mlpb.Event.OUTPUT)),
    ]
    answer = r.step("put", lambda: s.put_lineage_subgraph(runs, things, groups, edges))
    r.step("events", lambda: s.get_events_by_execution_ids(answer[0]))
    r.step("artifacts", lambda: s.get_artifacts_by_context(answer[2][0]))
    r.step("executions", lambda: by_id(s.get_executions_by_context(answer[2][0])))
    fresh = [mlpb.Execution(type_id=job, name="sg-9")]
    r.step("context exists", lambda: s.put_lineage_subgraph(fresh, [], groups, []))
    r.step(
        "reuse",
        lambda: s.put_lineage_subgraph(
            fresh,
            things,
            groups,
            [(0, 2, mlpb.Event(type=mlpb.Event.INPUT))],
            reuse_context_if_already_exist=True,
            reuse_artifact_if_already_exist_by_external_id=True,
        ),
    )
    late = [mlpb.Execution(type_id=job, name="sg-10")]
    r.step("bad index", lambda: s.put_lineage_subgraph(late, [], [], [(0, 5, mlpb.Event(type=mlpb.Event.INPUT))]))
    r.step(
        "bad execution index", lambda: s.put_lineage_subgraph(late, [], [], [(7, 0, mlpb.Event(type=mlpb.Event.INPUT))])
    )
    r.step("and nothing is stored", lambda: s.get_execution_by_type_and_name("SgJob", "sg-10"))
    known = answer[1][0]
    by_event = mlpb.Event(type=mlpb.Event.INPUT, artifact_id=known)
    r.step("artifact by the event's id", lambda: s.put_lineage_subgraph(late, [], [], [(0, None, by_event)]))
    neither = [(0, None, mlpb.Event(type=mlpb.Event.INPUT))]
    r.step("neither index nor id", lambda: s.put_lineage_subgraph([mlpb.Execution(type_id=job)], [], [], neither))
    twice = mlpb.Event(type=mlpb.Event.INPUT, artifact_id=known)
    r.step(
        "index and id",
        lambda: s.put_lineage_subgraph(
            [mlpb.Execution(type_id=job)], [mlpb.Artifact(type_id=data)], [], [(0, 0, twice)]
        ),
    )


def masks(r: Recorder) -> None:
    s = r.store
    type_id = s.put_artifact_type(artifact_type("Masked", a=mlpb.INT, b=mlpb.STRING))
    first = mlpb.Artifact(type_id=type_id, name="m", uri="u1", state=mlpb.Artifact.LIVE, external_id="m-1")
    first.properties["a"].int_value = 1
    first.properties["b"].string_value = "one"
    first.custom_properties["c"].int_value = 1
    first.custom_properties["d"].int_value = 1
    (known,) = s.put_artifacts([first])
    second = mlpb.Artifact(id=known, type_id=type_id, uri="u2", external_id="m-2")
    second.properties["a"].int_value = 2
    second.custom_properties["c"].int_value = 2
    second.custom_properties["e"].int_value = 2

    def masked(name: str, *paths: str) -> None:
        r.step(name, lambda: s.put_artifacts([second], list(paths)))
        r.step(f"{name}: after", lambda: s.get_artifacts_by_id([known]))
        s.put_artifacts(
            [
                mlpb.Artifact(
                    id=known,
                    **{k: getattr(first, k) for k in ("type_id", "uri", "state", "external_id")},
                    properties=first.properties,
                    custom_properties=first.custom_properties,
                )
            ]
        )

    masked("uri", "uri")
    masked("a property", "properties.a")
    masked("a property not given", "properties.b")
    masked("custom properties by key", "custom_properties.c", "custom_properties.d", "custom_properties.e")
    masked("all properties", "properties")
    masked("all custom properties", "custom_properties")
    masked("state not given", "state")
    masked("external id", "external_id")
    masked("name", "name")
    masked("unknown path", "nothing")
    masked("unknown and known", "nothing", "uri")
    masked("type", "type_id")
    new = mlpb.Artifact(type_id=type_id, name="m-new", uri="kept")
    new.properties["a"].int_value = 3
    r.step("mask on a new one", lambda: s.put_artifacts([new], ["uri"]))
    r.step("mask on a new one: after", lambda: s.get_artifact_by_type_and_name("Masked", "m-new"))
    job = s.put_execution_type(mlpb.ExecutionType(name="MaskedJob"))
    (run,) = s.put_executions([mlpb.Execution(type_id=job, name="r", last_known_state=mlpb.Execution.RUNNING)])
    done = mlpb.Execution(id=run, last_known_state=mlpb.Execution.COMPLETE)
    done.custom_properties["x"].int_value = 1
    r.step("execution", lambda: s.put_executions([done], ["last_known_state"]))
    r.step("execution: after", lambda: s.get_executions_by_id([run]))


def times(r: Recorder) -> None:
    """Which times change, and optimistic concurrency."""
    s = r.store
    type_id = s.put_artifact_type(artifact_type("Timed"))
    (known,) = s.put_artifacts([mlpb.Artifact(type_id=type_id, name="t", uri="1")])
    (before,) = s.get_artifacts_by_id([known])

    def times_of(change: Any, **options: Any) -> list[bool]:
        (old,) = s.get_artifacts_by_id([known])
        time.sleep(0.005)
        request = service.PutArtifactsRequest(artifacts=[change])
        if options:
            request.options.MergeFrom(service.PutArtifactsRequest.Options(**options))
        s._call("PutArtifacts", request, service.PutArtifactsResponse())
        (new,) = s.get_artifacts_by_id([known])
        return [
            new.create_time_since_epoch == old.create_time_since_epoch,
            new.last_update_time_since_epoch > old.last_update_time_since_epoch,
        ]

    r.step("both set", lambda: before.create_time_since_epoch == before.last_update_time_since_epoch > 1.6e12)
    r.step("no change", lambda: times_of(before))
    changed = mlpb.Artifact()
    changed.CopyFrom(before)
    changed.uri = "2"
    r.step("change", lambda: times_of(changed))
    r.step("change again", lambda: times_of(mlpb.Artifact(id=known, uri="3")))
    stale = {"abort_if_latest_updated_time_changed": True}
    changed.uri = "4"
    r.step("stale", lambda: times_of(changed, **stale))
    (now,) = s.get_artifacts_by_id([known])
    changed.CopyFrom(now)
    changed.uri = "5"
    r.step("fresh", lambda: times_of(changed, **stale))
    r.step("no time given", lambda: times_of(mlpb.Artifact(id=known, uri="6"), **stale))
    job = s.put_execution_type(mlpb.ExecutionType(name="TimedJob"))
    (run,) = s.put_executions([mlpb.Execution(type_id=job, name="r")])

    def run_time(**options: Any) -> bool:
        (old,) = s.get_executions_by_id([run])
        time.sleep(0.005)
        s.put_execution(mlpb.Execution(id=run, type_id=job, name="r"), [], [], **options)
        (new,) = s.get_executions_by_id([run])
        return bool(new.last_update_time_since_epoch > old.last_update_time_since_epoch)

    r.step("execution without change", run_time)
    r.step("execution without change, forced", lambda: run_time(force_update_time=True))


def service_call(store: Any, method: str, **fields: Any) -> Any:
    """Calls an RPC that the stock client wraps with less than it can."""
    request = getattr(service, f"{method}Request")(**fields)
    response = getattr(service, f"{method}Response")()
    store._call(method, request, response)
    return response


def paging(r: Recorder) -> None:
    s = r.store
    type_id = s.put_artifact_type(artifact_type("Paged"))
    s.put_artifacts([mlpb.Artifact(type_id=type_id, name=f"p{n:02}") for n in range(25)])
    options = mlpb.ListOperationOptions(max_result_size=10)

    def page(**fields: Any) -> Any:
        asked = mlpb.ListOperationOptions()
        asked.CopyFrom(options)
        asked.MergeFrom(mlpb.ListOperationOptions(**fields))
        return service_call(s, "GetArtifactsByType", type_name="Paged", options=asked)

    def names(**fields: Any) -> list[str]:
        found, token = [], ""
        while True:
            answer = page(next_page_token=token, **fields) if token else page(**fields)
            found.append([a.name for a in answer.artifacts])
            token = answer.next_page_token
            if not token:
                return found

    order = mlpb.ListOperationOptions.OrderByField
    r.step("pages by id", names)
    r.step("pages by id, newest first", lambda: names(order_by_field=order(field=order.ID, is_asc=False)))
    r.step("pages by default", lambda: names(max_result_size=7))
    r.step("size 0", lambda: names(max_result_size=0))
    r.step("size -1", lambda: names(max_result_size=-1))
    r.step("bad token", lambda: page(next_page_token="nonsense!"))
    r.step("client's list with limit", lambda: [a.name for a in s.get_artifacts(ml_metadata.ListOptions(limit=3))])
    r.step("unknown type", lambda: service_call(s, "GetArtifactsByType", type_name="Nothing", options=options))


def small_world(s: Any) -> tuple[list[int], list[int], list[int]]:
    """A few nodes with neighbours of every kind; gives the ids of artifacts, executions and contexts."""
    kinds = artifact_type("W", i=mlpb.INT, d=mlpb.DOUBLE, s=mlpb.STRING, b=mlpb.BOOLEAN)
    first_type, second_type = s.put_artifact_type(kinds), s.put_artifact_type(artifact_type("W2"))
    job = s.put_execution_type(mlpb.ExecutionType(name="WE", properties={"i": mlpb.INT}))
    group = s.put_context_type(mlpb.ContextType(name="WC", properties={"i": mlpb.INT}))
    a1 = mlpb.Artifact(type_id=first_type, name="a1", uri="u1", state=mlpb.Artifact.LIVE)
    a1.properties["i"].int_value = 1
    a1.properties["s"].string_value = "it's"
    a1.properties["b"].bool_value = True
    a1.custom_properties["my prop"].string_value = "x"
    a2 = mlpb.Artifact(type_id=first_type, name="a2", uri="u2", state=mlpb.Artifact.PENDING)
    a2.properties["i"].int_value = 2
    a2.properties["d"].double_value = 1.5
    artifacts = s.put_artifacts([a1, a2, mlpb.Artifact(type_id=second_type, uri="u3")])
    done = mlpb.Execution(type_id=job, name="e1", last_known_state=mlpb.Execution.COMPLETE)
    executions = s.put_executions([done, mlpb.Execution(type_id=job)])
    contexts = s.put_contexts([mlpb.Context(type_id=group, name=name) for name in ("c1", "c2", "c3")])
    pairs = [(0, 0), (0, 1), (1, 1)]
    s.put_attributions_and_associations(
        [mlpb.Attribution(artifact_id=artifacts[a], context_id=contexts[c]) for a, c in pairs],
        [mlpb.Association(execution_id=executions[0], context_id=contexts[0])],
    )
    s.put_parent_contexts([mlpb.ParentContext(child_id=contexts[0], parent_id=contexts[1])])
    used, made = mlpb.Event.INPUT, mlpb.Event.OUTPUT
    s.put_events(
        [
            mlpb.Event(artifact_id=artifacts[0], execution_id=executions[0], type=used, milliseconds_since_epoch=5),
            mlpb.Event(artifact_id=artifacts[1], execution_id=executions[0], type=made),
        ]
    )
    return artifacts, executions, contexts


def filters(r: Recorder) -> None:
    """Each line of filters.txt is a filter_query (x: of executions, c: of contexts); the store must be empty."""
    s = r.store
    small_world(s)
    lists = {"x:": s.get_executions, "c:": s.get_contexts}
    for line in (Path(__file__).parent / "filters.txt").read_text().splitlines():
        ask, query = lists.get(line[:2], s.get_artifacts), line[2:] if line[:2] in lists else line
        query = query.replace("'T", "'W").replace('"T', '"W').replace("'C'", "'WC'")
        options = ml_metadata.ListOptions(filter_query=query)
        r.step(line, lambda a=ask, o=options: [node.id for node in a(o)])


def lineage(r: Recorder) -> None:
    """GetLineageSubgraph around a chain with side branches."""
    s = r.store
    data = s.put_artifact_type(artifact_type("L", i=mlpb.INT))
    job = s.put_execution_type(mlpb.ExecutionType(name="LE"))
    group = s.put_context_type(mlpb.ContextType(name="LC"))
    a = s.put_artifacts([mlpb.Artifact(type_id=data, name=f"l{n}", uri=f"l{n}") for n in range(6)])
    e = s.put_executions([mlpb.Execution(type_id=job, name=f"le{n}") for n in range(5)])
    c = s.put_contexts([mlpb.Context(type_id=group, name=n) for n in ("lc0", "lc1", "lc2")])
    # l0 -> le0 -> l1 -> le1 -> l2 -> le2 -> l3; l4 -> le1; le0 -> l5; l0 -> le4 -> l3; le3 stands alone.
    events = [
        (0, 0, "INPUT"),
        (1, 0, "OUTPUT"),
        (1, 1, "INPUT"),
        (2, 1, "OUTPUT"),
        (2, 2, "INPUT"),
        (3, 2, "OUTPUT"),
        (4, 1, "DECLARED_INPUT"),
        (5, 0, "DECLARED_OUTPUT"),
        (3, 4, "PENDING_OUTPUT"),
        (0, 4, "INTERNAL_INPUT"),
    ]
    s.put_events([mlpb.Event(artifact_id=a[n], execution_id=e[m], type=mlpb.Event.Type.Value(t)) for n, m, t in events])
    s.put_attributions_and_associations(
        [mlpb.Attribution(artifact_id=a[n], context_id=c[m]) for n, m in ((1, 0), (3, 2))],
        [mlpb.Association(execution_id=e[1], context_id=c[1])],
    )
    s.put_parent_contexts([mlpb.ParentContext(child_id=c[0], parent_id=c[1])])
    options = mlpb.LineageSubgraphQueryOptions
    ends, starts = options.EndingNodes, options.StartingNodes

    def ask(name: str, mask: Any = None, **fields: Any) -> None:
        r.step(name, lambda: graph(s.get_lineage_subgraph(options(**fields), mask)))

    l2, l3, le1 = (starts(filter_query=f"name = '{name}'") for name in ("l2", "l3", "le1"))
    ask("no start")
    ask("empty start", starting_artifacts=starts())
    ask("nothing to start from", starting_artifacts=starts(filter_query="name = 'nothing'"))
    ask("bad filter", starting_artifacts=starts(filter_query="nothing = 1"))
    ask("all", starting_artifacts=l2)
    ask("two starts", starting_artifacts=starts(filter_query="name IN ('l0', 'l3')"), max_num_hops=1)
    for hops in (-1, 0, 1, 2, 3, 4, 20, 100):
        ask(f"{hops} hops", starting_artifacts=l2, max_num_hops=hops)
        ask(f"{hops} hops from an execution", starting_executions=le1, max_num_hops=hops)
    for direction in options.Direction.values():
        for hops in (1, 2, 9):
            ask(f"direction {direction}, {hops} hops", starting_artifacts=l2, direction=direction, max_num_hops=hops)
            ask(f"{direction}, {hops}, execution", starting_executions=le1, direction=direction, max_num_hops=hops)
    for include in (False, True):
        at_l1 = ends(filter_query="name = 'l1'", include_ending_nodes=include)
        at_le1 = ends(filter_query="name = 'le1'", include_ending_nodes=include)
        at_l3 = ends(filter_query="name = 'l3'", include_ending_nodes=include)
        ask(f"ending artifact, {include}", starting_artifacts=l3, ending_artifacts=at_l1)
        ask(f"ending execution, {include}", starting_artifacts=l3, ending_executions=at_le1)
        ask(f"both, {include}", starting_artifacts=l3, ending_executions=at_le1, ending_artifacts=at_l1)
        ask(f"ends where it starts, {include}", starting_artifacts=l3, ending_artifacts=at_l3)
    ask("bad ending", starting_artifacts=l3, ending_artifacts=ends(filter_query="nothing = 1"))
    ask("ending without filter", starting_artifacts=l3, ending_artifacts=ends())
    ask("ending with an empty filter", starting_artifacts=l3, ending_artifacts=ends(filter_query=""))
    masks = [
        ["artifacts"], ["events"], ["artifacts", "events"], ["executions", "contexts"], ["artifact_types"],
        ["associations"], ["attributions", "contexts"], ["nothing"], ["artifacts.id"], ["parent_contexts"], [],
        ["execution_types", "context_types"],
    ]  # fmt: skip
    for mask in masks:
        ask(f"mask {mask}", mask, starting_artifacts=l2, max_num_hops=2)


def graph(answer: Any) -> dict[str, Any]:
    """A graph in one order: MLMD promises none."""
    plain_graph = plain(answer)
    return {part: sorted(items, key=json.dumps) for part, items in plain_graph.items()}


def contents(r: Recorder) -> None:
    """Everything that is there; writes nothing."""
    s = r.store
    artifacts = r.step("artifacts", lambda: by_id(s.get_artifacts()))
    executions = r.step("executions", lambda: by_id(s.get_executions()))
    contexts = r.step("contexts", lambda: by_id(s.get_contexts()))
    r.step("events", lambda: by_ends(s.get_events_by_execution_ids([e.id for e in executions])))
    for context in contexts:
        r.step(f"artifacts of {context.id}", lambda c=context: by_id(s.get_artifacts_by_context(c.id)))
        r.step(f"executions of {context.id}", lambda c=context: by_id(s.get_executions_by_context(c.id)))
        r.step(f"parents of {context.id}", lambda c=context: by_id(s.get_parent_contexts_by_context(c.id)))
    for kind in ("artifact", "execution", "context"):
        found = by_id(getattr(s, f"get_{kind}_types")())
        r.step(
            f"{kind} types", lambda f=found: [(t.id, t.name, t.version, t.description, dict(t.properties)) for t in f]
        )
    r.step("uris", lambda: s.get_artifacts_by_uri(artifacts[0].uri) if artifacts else [])


SCENARIOS = [types, nodes, links, put_execution, subgraph, masks, times, paging, lineage]
ALONE = [filters]  # each in a store of its own


def main() -> None:
    store = connect(sys.argv[1])
    chosen = [globals()[name] for name in sys.argv[2:]] or SCENARIOS
    answers = {}
    for scenario in chosen:
        recorder = Recorder(store)
        scenario(recorder)
        answers[scenario.__name__] = recorder.answers
    json.dump(answers, sys.stdout, indent=1, sort_keys=True)


if __name__ == "__main__":
    main()
