"""The payload logger: requests and answers of an InferenceService as CloudEvents.

Types, attributes and modes are those of KServe's logger (`pkg/logger` of https://github.com/kserve/kserve).
"""

import uuid
from collections.abc import Mapping

import orjson

from mlmesh_serving.manifest import LoggerMode, LoggerSpec
from mlmesh_serving.observers.cloudevent import JSON, REQUEST, RESPONSE, CloudEvent
from mlmesh_serving.observers.contents import answer_content, request_content
from mlmesh_serving.observers.observation import ID_HEADER, Observation
from mlmesh_serving.observers.redaction import Redaction
from mlmesh_serving.observers.subject import Subject
from mlmesh_serving.tensor import Limits

_MAX_ID = 256


def event_id(observation: Observation) -> str:
    """Gives the id of an observation's events: the caller's `ce-id`, or a new one."""
    given = observation.request.headers.get(ID_HEADER, "")
    return given if given and len(given) <= _MAX_ID and given.isprintable() else str(uuid.uuid4())


class PayloadLogger:
    """Makes events of observations.

    Args:
        subject: Whose payloads they are.
        spec: What is logged.
        redaction: What is never logged.
        limits: Of tensors that are turned into JSON.
    """

    def __init__(self, subject: Subject, spec: LoggerSpec, redaction: Redaction, limits: Limits) -> None:
        self._subject = subject
        self._spec = spec
        self._redaction = redaction
        self._limits = limits
        chosen = spec.metadata_annotations
        self._extensions = {**subject.attributes(), **({"annotations": _json(chosen)} if chosen else {})}

    def events(self, observation: Observation, identifier: str) -> list[CloudEvent]:
        """Gives the events of an observation; none where a field to be left out cannot be found in the payload."""
        request, answer = observation.request, observation.answer
        contents = []
        if self._spec.mode is not LoggerMode.RESPONSE:
            contents.append((REQUEST, request_content(request, self._limits)))
        if self._spec.mode is not LoggerMode.REQUEST and answer is not None:
            contents.append((RESPONSE, answer_content(request.door, answer, self._limits)))
        headers = {
            name: [request.headers[name]]
            for name in self._spec.metadata_headers
            if name in request.headers and self._redaction.allows_header(name)
        }
        extensions = {**self._extensions, "metadata": _json(headers)}
        events = []
        for event_type, (content_type, data) in contents:
            kept: bytes | None = data
            if not self._redaction.is_empty:
                kept = self._redaction.payload(data) if content_type == JSON else None
            if kept is None:
                continue
            source = self._subject.source
            events.append(
                CloudEvent(event_type, source, identifier, observation.seconds, content_type, kept, extensions)
            )
        return events

    def wanted(self, observation: Observation) -> int:
        """Tells how many events an observation should make."""
        asked = self._spec.mode is not LoggerMode.RESPONSE
        answered = self._spec.mode is not LoggerMode.REQUEST and observation.answer is not None
        return asked + answered


def _json(value: Mapping[str, object]) -> str:
    return orjson.dumps(value).decode()
