"""One connection that sends the same HTTP/1.1 request again and again. As little else as possible: it must be fast."""

import asyncio
import ssl
from typing import cast
from urllib.parse import urlsplit

import httptools


class HttpClient(asyncio.Protocol):
    """A connection. Connects when it is asked and is not connected.

    Args:
        url: Of the server: http or https.
        path: Of the request.
        body: JSON.
    """

    def __init__(self, url: str, path: str, body: bytes) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._ssl else 80)
        head = (
            f"POST {parts.path.rstrip('/')}{path} HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode("ascii") + body
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answered: asyncio.Future[str] | None = None

    async def ask(self) -> str:
        """Sends the request; gives what it was answered with: `OK`, or the status.

        Raises:
            OSError: There is no connection.
        """
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            self._parser = httptools.HttpResponseParser(self)
            await loop.create_connection(lambda: self, self._host, self._port, ssl=self._ssl)
        assert self._transport is not None
        self._answered = loop.create_future()
        self._transport.write(self._request)
        return await self._answered

    def close(self) -> None:
        """Ends the connection."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no type of asyncio's

    def data_received(self, data: bytes) -> None:
        """Reads an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end(ConnectionError("the answer is not HTTP"))
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Says so to who waits."""
        self._transport = None
        self._end(ConnectionError("the connection was closed"))

    # httptools.HttpResponseParser

    def on_message_complete(self) -> None:
        """The answer is whole."""
        status = self._parser.get_status_code()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result("OK" if 200 <= status < 300 else f"HTTP {status}")

    def _end(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
