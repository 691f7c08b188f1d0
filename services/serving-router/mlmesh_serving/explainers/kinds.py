"""Kinds of frames between the router and the process that explains."""

import struct

PLAN = 1
EXPLAIN = 2
"""Number of the request, bytes of JSON in the body, bytes of the model's name, name, body."""
PREDICTED = 3
"""gRPC's status code (0: an answer), bytes of JSON in the body, body."""
READY = 4
FAILED = 5
"""gRPC's status code, the error (`workers.faults`)."""
EXPLAINED = 6
"""Number of the request, gRPC's status code, body or error."""
PREDICT = 7
"""Number of the request, bytes of JSON in the body, body."""

REQUEST = struct.Struct(">QIH")
PREDICTED_HEAD = struct.Struct(">BI")
EXPLAINED_HEAD = struct.Struct(">QB")
PREDICT_HEAD = struct.Struct(">QI")
ALL_JSON = 0xFFFFFFFF
