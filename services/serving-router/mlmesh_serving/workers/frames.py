"""What passes between the router and a worker: frames over a unix socket, little endian.

To the worker: `REQUEST`, the model's name, the body. To the router: `ANSWER`, the body. The first frame each way is the
greeting: the worker sends its token, the router the `Plan`; then the worker tells what it has loaded, or why it could
not, as the answer to number 0.
"""

import struct
from typing import Final

from mlmesh_serving.backend import Door

REQUEST: Final = struct.Struct("<IQIHBxd")
"""Bytes of the body, number of the request, bytes of JSON in the body, bytes of the model's name, door, deadline."""
ANSWER: Final = struct.Struct("<IQIBxxx")
"""Bytes of the body, number of the request, bytes of JSON in the body, gRPC's status code (0: it is the answer)."""
LENGTH: Final = struct.Struct("<I")
"""Bytes of the plan that follows."""
MARK: Final = struct.Struct("<Q")
"""In memory that both sides map: the number of the last request that the worker has begun."""

ALL_JSON: Final = 0xFFFFFFFF
"""Bytes of JSON where all of the body is."""
NO_DEADLINE: Final = 0.0
TOKEN_BYTES: Final = 32

DOOR_NUMBERS: Final = {Door.GRPC: 0, Door.REST_V2: 1, Door.REST_V1: 2, Door.EXPLAIN: 3}
DOORS: Final = {number: door for door, number in DOOR_NUMBERS.items()}

BUFFER_BYTES: Final = 256 << 10
"""Of what is read at once; a frame that does not fit is read into memory of its own."""
SOCKET_BYTES: Final = 1 << 20
"""Asked of the system for each direction; it gives at most its own limit."""
