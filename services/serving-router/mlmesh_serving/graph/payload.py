"""What goes from step to step: JSON, with the binary tensors that may follow it."""

import asyncio
from typing import Any

import orjson
from mlmesh_kit.errors import InvalidArgument

_LARGE = 256 << 10  # bytes beyond which JSON is not parsed on the event loop
_UNREAD = object()


class Payload:
    """A request or an answer as bytes; its JSON is parsed when somebody asks, and once.

    Args:
        body: The bytes, whole.
        json_length: Of a body with binary tensors: bytes of its JSON part; None: it is all JSON.
    """

    __slots__ = ("_document", "body", "json_length")

    def __init__(self, body: bytes, json_length: int | None = None) -> None:
        self.body = body
        self.json_length = json_length
        self._document: Any = _UNREAD

    async def document(self) -> Any:
        """Gives the JSON, parsed.

        Raises:
            InvalidArgument: It is none.
        """
        if self._document is _UNREAD:
            head = memoryview(self.body) if self.json_length is None else memoryview(self.body)[: self.json_length]
            try:
                self._document = await off_loop(len(head), orjson.loads, head)
            except orjson.JSONDecodeError as error:
                raise InvalidArgument(f"must be JSON: {error}", field="body") from error
        return self._document

    async def with_instances(self) -> "Payload":
        """Gives it with `predictions` renamed to `instances`, as REST v1 wants it of a request."""
        document = await self.document()
        if not isinstance(document, dict) or "predictions" not in document:
            return self
        renamed = {("instances" if key == "predictions" else key): value for key, value in document.items()}
        return Payload(await off_loop(len(self.body), orjson.dumps, renamed))


async def off_loop(size: int, function: Any, *args: Any) -> Any:
    """Runs a function, in a thread where what it works on is large."""
    return function(*args) if size < _LARGE else await asyncio.to_thread(function, *args)
