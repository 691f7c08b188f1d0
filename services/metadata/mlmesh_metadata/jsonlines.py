"""Messages of ML Metadata as lines of JSON and back: protocol buffers' JSON with the fields' own names, and `kind`.

A value that JSON does not have (a packed message, infinity within a struct) is `{"encoded": "..."}`: the
`ml_metadata.Value`, encoded, in base64.
"""

import base64
import binascii
import json
from typing import Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import tombstone_pb2

VERSION = 1
HEADER = "header"
END = "end"
MESSAGES: dict[str, type[Message]] = {
    "artifact_type": mlpb.ArtifactType,
    "execution_type": mlpb.ExecutionType,
    "context_type": mlpb.ContextType,
    "artifact": mlpb.Artifact,
    "execution": mlpb.Execution,
    "context": mlpb.Context,
    "parent_context": mlpb.ParentContext,
    "event": mlpb.Event,
    "attribution": mlpb.Attribution,
    "association": mlpb.Association,
    "tombstone": tombstone_pb2.Tombstone,
}
"""By the `kind` of a line."""
_VALUES = ("properties", "custom_properties")
_ENCODED = "encoded"


class Line(NamedTuple):
    """One line.

    Args:
        kind: A key of `MESSAGES`, `HEADER` or `END`.
        content: The message; of a header and an end the JSON.
    """

    kind: str
    content: Any


def to_line(kind: str, message: Message) -> bytes:
    """Writes a message as a line."""
    plain: dict[str, Any] = {"kind": kind}
    if isinstance(message, mlpb.Artifact | mlpb.Execution | mlpb.Context):
        bare = type(message)()
        bare.CopyFrom(message)  # type: ignore[arg-type]
        for field in _VALUES:
            bare.ClearField(field)  # type: ignore[arg-type]
        plain |= json_format.MessageToDict(bare, preserving_proto_field_name=True)
        for field in _VALUES:
            values = getattr(message, field)
            if values:
                plain[field] = {name: _plain(values[name]) for name in sorted(values)}
    else:
        plain |= json_format.MessageToDict(message, preserving_proto_field_name=True)
    return encode(plain)


def encode(plain: dict[str, Any]) -> bytes:
    """Writes JSON as a line."""
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _plain(value: mlpb.Value) -> Any:
    if not value.HasField("proto_value"):
        try:
            return json_format.MessageToDict(value, preserving_proto_field_name=True)
        except (json_format.Error, ValueError):  # a number in a struct that JSON has not
            pass
    return {_ENCODED: base64.b64encode(value.SerializeToString(deterministic=True)).decode()}


def parse_json(line: bytes) -> dict[str, Any]:
    """Reads a line that must be a JSON object.

    Raises:
        InvalidArgument: It is none.
    """
    try:
        plain = json.loads(line.decode(), parse_constant=_no_constant)
    except RecursionError as error:
        raise InvalidArgument("is nested too deeply") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError, too
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is not UTF-8, or has NaN or the like"
        raise InvalidArgument(f"is no JSON: {reason}") from error
    if not isinstance(plain, dict):
        raise InvalidArgument("must be a JSON object")
    return plain


def _no_constant(text: str) -> None:
    raise ValueError(text)


def parse_line(line: bytes) -> Line:
    """Reads a line.

    Raises:
        InvalidArgument: It is no JSON, of no known kind, or not the message that it says it is.
    """
    plain = parse_json(line)
    kind = plain.pop("kind", None)
    if kind in (HEADER, END):
        return Line(kind, plain)
    if not isinstance(kind, str) or kind not in MESSAGES:
        raise InvalidArgument(f"must be {HEADER}, {END} or one of {', '.join(MESSAGES)}", field="kind")
    message = MESSAGES[kind]()
    encoded = []
    for field in _VALUES:
        values = plain.get(field)
        if isinstance(values, dict):
            for name, value in values.items():
                if isinstance(value, dict) and set(value) == {_ENCODED}:
                    encoded.append((field, name, value[_ENCODED]))
            plain[field] = {n: v for n, v in values.items() if (field, n) not in {e[:2] for e in encoded}}
    try:
        json_format.ParseDict(plain, message)
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error) if isinstance(error, json_format.ParseError) else "it has a value that cannot be stored"
        raise InvalidArgument(f"is no {kind}: {reason[:500]}") from error
    for field, name, text in encoded:
        try:
            value = mlpb.Value.FromString(base64.b64decode(text, validate=True))
            getattr(message, field)[name].CopyFrom(value)
        except (TypeError, ValueError, binascii.Error, DecodeError) as error:
            raise InvalidArgument("is no encoded value", field=f"{field}[{name!a}].{_ENCODED}") from error
    return Line(kind, message)
