"""Metadata as header fields (gRPC over HTTP/2: Custom-Metadata): bytes under names that end in `-bin` are base 64."""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final

from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.http2.header_blocks import Field

Metadata = Iterable[tuple[str, str | bytes]]

_NAME: Final = re.compile(r"[0-9a-z_.\-]+")
_TEXT: Final = re.compile(r"[\x20-\x7e]*")
_OURS: Final = frozenset({"te", "content-type", "content-length", "user-agent", "connection", "host"})


def encode_metadata(metadata: Metadata) -> list[Field]:
    """Gives the header fields of metadata.

    Raises:
        InvalidArgument: A name is none that metadata may have, or a value cannot be sent.
    """
    fields: list[Field] = []
    for name, value in metadata:
        if not _NAME.fullmatch(name) or name.startswith("grpc-") or name in _OURS:
            raise InvalidArgument(f"a name that metadata cannot have: {name[:80]!r}", field="metadata")
        if name.endswith("-bin") != isinstance(value, bytes):
            raise InvalidArgument(
                f"{name[:80]}: bytes go under names that end in -bin, and only they", field="metadata"
            )
        if isinstance(value, bytes):
            fields.append((name.encode(), encode_binary(value)))
        elif _TEXT.fullmatch(value):
            fields.append((name.encode(), value.strip(" ").encode()))
        else:
            raise InvalidArgument(f"{name[:80]}: text is printable ASCII", field="metadata")
    return fields


def encode_binary(value: bytes) -> bytes:
    """Gives base 64 without padding, which is what the protocol asks for."""
    return base64.b64encode(value).rstrip(b"=")


def decode_binary(value: bytes) -> list[bytes]:
    """Reads a value in base 64, padded or not; several may be joined by commas.

    Raises:
        InvalidArgument: It is not base 64.
    """
    found = []
    for part in value.split(b","):
        text = part.strip()
        try:
            found.append(base64.b64decode(text + b"=" * (-len(text) % 4), validate=True))
        except binascii.Error as error:
            raise InvalidArgument("a value that is not base 64", field="metadata") from error
    return found
