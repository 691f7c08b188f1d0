"""HTTP/2 without TLS (RFC 9113, prior knowledge) and gRPC on it, in Python, for methods that must be cheap.

From the wire upwards: `frames` and `faults` (the vocabulary), `header_blocks` (HPACK), `settings`, `calm` (what a peer
may do for nothing), `outbox` (writing, flow control), `stream`, `connection` (reading). gRPC on it: `request_head`,
`response_head`, `metadata`, `status`, `compression`, `incoming` (a message in pieces), `reservations` (its room). The
server: `server_connection`, `call` (a unary call answered here), `methods` (what surrounds it), `relay` and `upstream`
(the calls handed to grpc.aio), `server`, `front` (all of it, for a service). The client: `client_connection`,
`client_call`, `client`. See docs/decisions/0084.
"""
