"""Header blocks (HPACK, RFC 7541): read by the library `hpack`, remembered; written without the dynamic table."""

from collections.abc import Iterable
from typing import Final

import hpack
from hpack.exceptions import HPACKError, OversizedHeaderListError

from mlmesh_kit.http2.faults import ConnectionFault, ErrorCode

NO_TABLE: Final = b"\x20"
"""Dynamic table size update to 0. The first block that we send on a connection begins with it: our blocks never use
the table, and with none there is nothing to tell when the peer shrinks its limit (RFC 7541, section 4.2)."""

_REMEMBERED: Final = 64
_LONGEST_REMEMBERED: Final = 1024
_LARGEST_REMEMBERED: Final = 8192
_SIZE_UPDATES: Final = 2  # at the beginning of a block (RFC 7541, section 4.2): the smallest, and the last

Field = tuple[bytes, bytes]


class Fields:
    """A header list, and what its reader made of it.

    Attributes:
        pairs: Names and values in order.
        size: Of the list, as SETTINGS_MAX_HEADER_LIST_SIZE counts: bytes, and 32 for each field.
        parsed: Left here by the first who reads the list, since calls send the same one again and again.
        encoded: The list as a block without the dynamic table, once somebody needed it.
    """

    __slots__ = ("encoded", "pairs", "parsed", "size")

    def __init__(self, pairs: list[Field]) -> None:
        self.pairs = pairs
        self.size = sum(len(name) + len(value) + 32 for name, value in pairs)
        self.parsed: object = None
        self.encoded: bytes | None = None

    def block(self) -> bytes:
        """Gives the list as a header block without the dynamic table."""
        if self.encoded is None:
            self.encoded = encode(self.pairs)
        return self.encoded


class HeaderDecoder:
    """Reads the header blocks of one connection, in order.

    A block that leaves the dynamic table as it was means the same until some block changes the table. Such blocks are
    remembered: gRPC clients send the same few bytes with each call, and reading them takes longer than all the rest.

    Args:
        largest_list: Size of a header list (RFC 9113, section 6.5.2) beyond which the connection ends. A list beyond
            what an application takes, but not this, can still be refused politely, because it was read to its end.
    """

    def __init__(self, largest_list: int) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=largest_list)
        self._remembered: dict[bytes, Fields] = {}

    def decode(self, block: bytes) -> Fields:
        """Reads a block.

        Raises:
            ConnectionFault: It cannot be read, or the list is too large; the table is lost, so the connection is.
        """
        known = self._remembered.get(block)
        if known is not None:
            return known
        table = self._decoder.header_table
        entries = table.dynamic_entries
        before = (len(entries), table.maxsize, entries[0] if entries else None)
        _check_size_updates(block)
        try:
            pairs = [(name, value) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header list is too large") from error
        except HPACKError as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "the header block cannot be read") from error
        fields = Fields(pairs)
        # An insertion puts a new object first, a smaller table drops the last: no other change is possible.
        if before[:2] != (len(entries), table.maxsize) or before[2] is not (entries[0] if entries else None):
            self._remembered.clear()
        elif len(block) <= _LONGEST_REMEMBERED and fields.size <= _LARGEST_REMEMBERED:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[block] = fields
        return fields


def _check_size_updates(block: bytes) -> None:
    """Refuses a block that resizes the table again and again, which costs much and says nothing."""
    at = 0
    for _ in range(_SIZE_UPDATES + 1):
        if at >= len(block) or block[at] & 0xE0 != 0x20:
            return
        long = block[at] & 0x1F == 0x1F
        at += 1
        while long and at < len(block):
            long = bool(block[at] & 0x80)
            at += 1
    raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "more than two table size updates in a header block")


def encode(pairs: Iterable[Field]) -> bytes:
    """Writes a header list as literals without indexing and without Huffman's code (RFC 7541, section 6.2.2)."""
    parts: list[bytes] = []
    for name, value in pairs:
        parts += (b"\x00", _length(len(name)), name, _length(len(value)), value)
    return b"".join(parts)


def _length(size: int) -> bytes:
    """Writes an integer with a prefix of 7 bits, the first bit 0 (RFC 7541, section 5.1)."""
    if size < 127:
        return bytes((size,))
    size -= 127
    parts = [127]
    while size >= 128:
        parts.append(size & 127 | 128)
        size >>= 7
    parts.append(size)
    return bytes(parts)
