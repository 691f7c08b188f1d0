"""HTTP/2 without TLS (RFC 9113, prior knowledge) and gRPC on it, in Python, for methods that must be cheap.

From the wire upwards: `frames` and `faults` (the vocabulary), `header_blocks` (HPACK), `settings`, `calm` (what a peer
may do for nothing), `outbox` (writing, flow control), `stream`, `connection` (reading). gRPC: `request_head`, `status`,
`compression`, `call` (a unary call answered here), `methods` (what surrounds it). The others: `relay` and `upstream`
(calls handed to grpc.aio), `server`. See docs/decisions/0084.
"""
