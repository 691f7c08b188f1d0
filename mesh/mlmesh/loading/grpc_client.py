"""One connection that makes the same gRPC call again and again."""

from urllib.parse import urlsplit

import grpc


class GrpcClient:
    """A connection.

    Args:
        url: Of the server: http or https.
        method: `/package.Service/Method`.
        body: The serialized request.
    """

    def __init__(self, url: str, method: str, body: bytes) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        target = f"{parts.hostname}:{parts.port or (443 if secure else 80)}"
        # Each client has a connection of its own, as many users have.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        if secure:
            self._channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options)
        else:
            self._channel = grpc.aio.insecure_channel(target, options)
        self._call = self._channel.unary_unary(method, _as_it_is, _as_it_is)
        self._body = body

    async def ask(self) -> str:
        """Makes the call; gives what it was answered with: the name of a status code.

        Raises:
            OSError: There is no connection.
        """
        try:
            await self._call(self._body)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    def close(self) -> None:
        """Leaves the connection to end with the process."""


def _as_it_is(message: bytes) -> bytes:
    return message
