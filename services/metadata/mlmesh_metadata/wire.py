"""Protocol buffers put together from parts that are encoded already.

Messages of one type, encoded and laid end to end, are their merger, and a repeated field is its items end to end, each
behind the field's tag (https://protobuf.dev/programming-guides/encoding/). So an answer can be made of nodes' bytes
without decoding them.
"""

from collections.abc import Iterable

from google.protobuf.message import Message

_LENGTH_DELIMITED = 2


def varint(number: int) -> bytes:
    """Encodes a number that is not negative."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def sized(encoded: bytes) -> bytes:
    """Puts the length before an encoded message: what `messages` takes."""
    return varint(len(encoded)) + encoded


def messages(container: type[Message], field: str, items: Iterable[bytes]) -> bytes:
    """Encodes a field that holds messages.

    Args:
        container: The message that has the field.
        field: Its name.
        items: Encoded messages, each behind its length (`sized`).
    """
    tag = varint(container.DESCRIPTOR.fields_by_name[field].number << 3 | _LENGTH_DELIMITED)
    return b"".join([part for item in items for part in (tag, item)])
