"""Runs, jobs and datasets of OpenLineage's producers as executions and artifacts."""

import hashlib
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from mlmesh_kit.errors import ServiceError
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.checks import MAX_NAME_CHARACTERS
from mlmesh_metadata.clock import now_ms
from mlmesh_metadata.importing import CREATED, UNCHANGED, UPDATED, Summary, at_line
from mlmesh_metadata.jsonlines import parse_json
from mlmesh_metadata.kinds import ARTIFACT, EXECUTION, Kind, Node, NodeType
from mlmesh_metadata.links import put_event
from mlmesh_metadata.nodes import put_node
from mlmesh_metadata.openlineage import (
    DATASET_FACET,
    DATASET_TYPE,
    EVENT_TIME,
    EVENT_TYPE,
    JOB_FACET,
    JOB_TYPE,
    ORDER,
    RUN_FACET,
    START_TIME,
    STATES,
    Dataset,
    RunEvent,
    moment,
    parse_event,
)
from mlmesh_metadata.store import Session, Store
from mlmesh_metadata.store.exchange import ExchangeRows
from mlmesh_metadata.typing_rules import put_type

_JOB = mlpb.ExecutionType(name=JOB_TYPE, properties={"job_namespace": mlpb.STRING, "job_name": mlpb.STRING})
_DATASET = mlpb.ArtifactType(name=DATASET_TYPE, properties={"namespace": mlpb.STRING, "name": mlpb.STRING})
SKIPPED = "skipped"


class OpenLineageImport:
    """Events, in any order and any number of times: what a later event of a run said is not undone by an earlier one.

    Args:
        store: Where to.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, lines: list[tuple[int, bytes]]) -> Summary:
        """See `importing.Batches`."""
        events = []
        for number, line in lines:
            try:
                events.append((number, parse_event(parse_json(line))))
            except ServiceError as error:
                raise at_line(number, error) from error

        def change(session: Session) -> Summary:
            batch = _Batch(session)
            for number, event in events:
                try:
                    batch.put(event)
                except ServiceError as error:
                    raise at_line(number, error) from error
            return batch.summary

        return self._store.write(change)

    def put_one(self, body: bytes) -> None:
        """Stores one event.

        Raises:
            InvalidArgument: It is none.
        """
        event = parse_event(parse_json(body))
        if event is not None:
            self._store.write(lambda session: _Batch(session).put(event))


class _Batch:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._rows = ExchangeRows(session.connection)
        self._now = now_ms()
        self._types: dict[str, int] = {}
        self.summary = Summary(complete=True)  # such a file has no end that could be missing

    def put(self, event: RunEvent | None) -> None:
        """Stores what an event says."""
        self.summary.lines += 1
        if event is None:
            self.summary.counts[SKIPPED, "line"] += 1
            return
        execution_id = self._put_run(event)
        for datasets, event_type in ((event.inputs, mlpb.Event.INPUT), (event.outputs, mlpb.Event.OUTPUT)):
            for dataset in datasets:
                artifact_id = self._put_dataset(dataset, event)
                crossed = mlpb.Event(
                    artifact_id=artifact_id,
                    execution_id=execution_id,
                    type=event_type,
                    milliseconds_since_epoch=event.milliseconds,
                )
                if self._rows.has_event(crossed):
                    self.summary.counts[UNCHANGED, "event"] += 1
                else:
                    put_event(self._session, crossed, self._now, "")
                    self.summary.counts[CREATED, "event"] += 1

    def _type(self, kind: Kind, given: NodeType) -> int:
        if given.name not in self._types:
            self._types[given.name] = put_type(
                self._session, kind, given, can_add_fields=True, can_omit_fields=True, field="type"
            )
        return self._types[given.name]

    def _put_run(self, event: RunEvent) -> int:
        type_id = self._type(EXECUTION, _JOB)
        stored = self._session.nodes.by_name(EXECUTION, type_id, event.run_id)
        wanted = mlpb.Execution(type_id=type_id, name=event.run_id)
        if isinstance(stored, mlpb.Execution):
            wanted.CopyFrom(stored)
        is_news = _set_time(wanted.custom_properties, event)
        if is_news:
            wanted.properties["job_namespace"].string_value, wanted.properties["job_name"].string_value = event.job
            if event.event_type in STATES:
                wanted.last_known_state = STATES[event.event_type]  # type: ignore[assignment]
        if event.event_type == "START":
            wanted.custom_properties[START_TIME].string_value = event.event_time
        _set_facets(wanted.custom_properties, RUN_FACET, event.run_facets, is_news)
        _set_facets(wanted.custom_properties, JOB_FACET, event.job_facets, is_news)
        return self._put(EXECUTION, stored, wanted)

    def _put_dataset(self, dataset: Dataset, event: RunEvent) -> int:
        type_id = self._type(ARTIFACT, _DATASET)
        name = _short(f"{dataset.namespace}/{dataset.name}")
        stored = self._session.nodes.by_name(ARTIFACT, type_id, name)
        wanted = mlpb.Artifact(type_id=type_id, name=name, uri=dataset.uri)
        if isinstance(stored, mlpb.Artifact):
            wanted.CopyFrom(stored)
        else:
            wanted.properties["namespace"].string_value = dataset.namespace
            wanted.properties["name"].string_value = dataset.name
        if dataset.facets:
            is_news = _set_time(wanted.custom_properties, event)
            _set_facets(wanted.custom_properties, DATASET_FACET, dataset.facets, is_news)
        return self._put(ARTIFACT, stored, wanted)

    def _put(self, kind: Kind, stored: Node | None, wanted: Node) -> int:
        node_id = put_node(self._session, kind, wanted, now=self._now, field="")
        done = CREATED
        if stored is not None:
            updated = self._session.nodes.stamps(kind, [node_id])[0].updated
            done = UNCHANGED if updated == stored.last_update_time_since_epoch else UPDATED
        self.summary.counts[done, kind.name] += 1
        return node_id


def _set_time(custom: Any, event: RunEvent) -> bool:
    """Notes which event a node is as of; tells whether this one is not older."""
    if EVENT_TIME in custom and EVENT_TYPE in custom:
        known = moment(custom[EVENT_TIME].string_value), ORDER.index(custom[EVENT_TYPE].string_value)
        if known > (moment(event.event_time), ORDER.index(event.event_type)):
            return False
    custom[EVENT_TIME].string_value, custom[EVENT_TYPE].string_value = event.event_time, event.event_type
    return True


def _set_facets(custom: Any, prefix: str, facets: Mapping[str, Any], is_news: bool) -> None:
    for name, facet in facets.items():
        key = prefix + name
        if is_news or key not in custom:
            struct = custom[key].struct_value
            struct.Clear()
            json_format.ParseDict(facet, struct)


def _short(name: str) -> str:
    """Gives a name that fits MLMD's column; the long one is in the properties."""
    if len(name) <= MAX_NAME_CHARACTERS:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{name[: MAX_NAME_CHARACTERS - len(digest) - 1]}#{digest}"
