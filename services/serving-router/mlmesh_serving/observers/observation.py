"""One prediction as it is looked at later: its request and its answer, as they pass to the process that does."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from mlmesh_serving.backend import Door, WireAnswer, WireRequest

ID_HEADER = "ce-id"
"""By which a caller gives the events of its request an id."""

_DOORS = list(Door)
_NUMBERS = {door: number for number, door in enumerate(_DOORS)}
_NO_JSON = 0xFFFFFFFF
_HEAD = struct.Struct(">IBdIIIII")
"""Number of the subject, door, seconds since the epoch, bytes of headers, request and answer, JSON of the two."""
_NO_ANSWER = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Observation:
    """A request and its answer.

    Attributes:
        subject: Number of what was asked.
        seconds: When, since the epoch.
        request: As it came; of the headers only those that are logged.
        answer: As it went out; None: there was none, or nobody wants it.
    """

    subject: int
    seconds: float
    request: WireRequest
    answer: WireAnswer | None

    @property
    def size(self) -> int:
        """Bytes of the two bodies."""
        return len(self.request.body) + (len(self.answer.body) if self.answer is not None else 0)


def pack(
    subject: int,
    seconds: float,
    request: WireRequest,
    answer: WireAnswer | None,
    wanted_headers: tuple[str, ...] = (),
) -> list[bytes]:
    """Gives an observation as bytes, in parts that need not be joined."""
    headers = b""
    if wanted_headers:
        read = request.headers.get
        chosen = {name: value for name in wanted_headers if (value := read(name)) is not None}
        headers = orjson.dumps(chosen) if chosen else b""
    head = _HEAD.pack(
        subject,
        _NUMBERS[request.door],
        seconds,
        len(headers),
        len(request.body),
        _NO_ANSWER if answer is None else len(answer.body),
        _NO_JSON if request.json_length is None else request.json_length,
        _NO_JSON if answer is None or answer.json_length is None else answer.json_length,
    )
    parts = [head + headers, request.body]
    if answer is not None:
        parts.append(answer.body)
    return parts


def unpack(data: bytes) -> Observation:
    """Reads what `pack` made.

    Raises:
        ValueError: It is something else.
    """
    try:
        subject, door, seconds, headers, asked, answered, asked_json, answered_json = _HEAD.unpack_from(data)
        start = _HEAD.size + headers
        end = start + asked
        length = 0 if answered == _NO_ANSWER else answered
        if len(data) != end + length:
            raise ValueError("the lengths do not add up")
        found: Mapping[str, str] = orjson.loads(data[_HEAD.size : start]) if headers else {}
        request = WireRequest(_DOORS[door], "", data[start:end], _json(asked_json), found)
    except (struct.error, IndexError) as error:
        raise ValueError(str(error)) from error
    answer = None if answered == _NO_ANSWER else WireAnswer(data[end:], _json(answered_json))
    return Observation(subject, seconds, request, answer)


def _json(length: int) -> int | None:
    return None if length == _NO_JSON else length
