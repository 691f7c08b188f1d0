"""TFRecord files, which TensorFlow, Keras and PyTorch write their summaries to, read as they grow.

A record is its length (8 bytes, little-endian), a checksum of these 8 bytes, its data, and a checksum of the data. The
checksum is CRC32C (Castagnoli), rotated right by 15 bits with 0xa282ead8 added.
"""

import os
import struct
from collections.abc import Iterator

from mlmesh_katib.collectors.base import CollectionError

MAX_RECORD = 1 << 20
_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_PIECE = 256 << 10


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
    """Computes the checksum of TFRecord files."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


class RecordFile:
    """Where the reader of one file is.

    Attributes:
        offset: Of the next record.
        broken: It has come to something that is no record; where the next begins cannot be known.
    """

    __slots__ = ("broken", "offset")

    def __init__(self) -> None:
        self.offset = 0
        self.broken = False

    def read(self, descriptor: int, size: int) -> Iterator[bytes]:
        """Gives the data of the records that are there in full, moving on with each. Their checksums are not looked at.

        Args:
            descriptor: Of the file.
            size: Of the file.

        Returns:
            Data and the four bytes of its checksum, see `split`. Records larger than MAX_RECORD, which hold no scalars
            but images and graphs, are passed over unread.

        Raises:
            CollectionError: It is no TFRecord file from here on.
        """
        piece, start = b"", self.offset  # what was read, and where in the file it begins
        while not self.broken and self.offset + _HEADER.size <= size:
            if self.offset + _HEADER.size > start + len(piece):
                piece, start = os.pread(descriptor, _PIECE, self.offset), self.offset
                if len(piece) < _HEADER.size:  # cut off meanwhile
                    return
            at = self.offset - start
            length, checksum = _HEADER.unpack_from(piece, at)
            if masked_crc32c(piece[at : at + 8]) != checksum:
                self.broken = True
                raise CollectionError("an event file is damaged")
            end = self.offset + _HEADER.size + length + _CHECKSUM.size
            if end > size:  # not written in full yet
                return
            if length > MAX_RECORD:
                self.offset = end
                piece, start = b"", end
                continue
            if end > start + len(piece):
                piece, start = os.pread(descriptor, max(_PIECE, end - self.offset), self.offset), self.offset
                if end > start + len(piece):
                    return
                at = 0
            self.offset = end
            yield piece[at + _HEADER.size : end - start]


def split(record: bytes) -> bytes:
    """Takes the checksum off a record.

    Raises:
        ValueError: It is not that of the data.
    """
    data = record[: -_CHECKSUM.size]
    if masked_crc32c(data) != _CHECKSUM.unpack(record[-_CHECKSUM.size :])[0]:
        raise ValueError("checksum")
    return data
