"""The form of UBJSON files (https://ubjson.org/type-reference/), checked without reading them into objects."""

import struct

_SIZES = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8, b"d": 4, b"D": 8, b"C": 1}
_FORMATS = {b"i": ">b", b"U": ">B", b"I": ">h", b"l": ">i", b"L": ">q"}
_EMPTY = {b"Z", b"T", b"F", b"N"}
_MAX_DEPTH = 64


def check_ubjson(content: bytes | bytearray) -> None:
    """Checks that a document is whole.

    Raises:
        ValueError: It is cut off, or no UBJSON.
    """
    _Reader(content).document()


class _Reader:
    """Walks over a document.

    Args:
        content: The document.
    """

    def __init__(self, content: bytes | bytearray) -> None:
        self._content = content
        self._at = 0

    def document(self) -> None:
        self._value(self._take(1), 0)

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if count < 0 or end > len(self._content):
            raise ValueError("it is cut off")
        found = bytes(self._content[self._at : end])
        self._at = end
        return found

    def _skip(self, count: int) -> None:
        if count < 0 or self._at + count > len(self._content):
            raise ValueError("it is cut off")
        self._at += count

    def _peek(self) -> bytes:
        return bytes(self._content[self._at : self._at + 1])

    def _number(self) -> int:
        kind = self._take(1)
        if kind not in _FORMATS:
            raise ValueError("it is no UBJSON")
        number = int(struct.unpack(_FORMATS[kind], self._take(_SIZES[kind]))[0])
        if number < 0:
            raise ValueError("it holds a negative length")
        return number

    def _value(self, kind: bytes, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if kind in _SIZES:
            self._skip(_SIZES[kind])
        elif kind in {b"S", b"H"}:
            self._skip(self._number())
        elif kind in {b"{", b"["}:
            self._container(depth, is_object=kind == b"{")
        elif kind not in _EMPTY:
            raise ValueError("it is no UBJSON")

    def _container(self, depth: int, *, is_object: bool) -> None:
        kind, count = b"", -1
        if self._peek() == b"$":
            self._skip(1)
            kind = self._take(1)
            if self._peek() != b"#":
                raise ValueError("it is no UBJSON")
        if self._peek() == b"#":
            self._skip(1)
            count = self._number()
        if count >= 0 and kind in _SIZES and not is_object:
            self._skip(count * _SIZES[kind])
            return
        if count > len(self._content):
            raise ValueError("it is cut off")
        end = b"}" if is_object else b"]"
        while count != 0:
            if count < 0 and self._peek() == end:
                self._skip(1)
                return
            if is_object:
                self._skip(self._number())
            self._value(kind or self._take(1), depth + 1)
            count -= count > 0
