"""What is sent, how often, and how long."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """The share of one process; it goes to the process as JSON.

    Attributes:
        url: Of the ingress: http or https.
        path: Of the HTTP request, or `/package.Service/Method`.
        body: The request, in base 64.
        grpc: Whether it is a gRPC call.
        clients: How many ask at once.
        seconds: How long is measured.
        warm_up_seconds: How long before that; what is answered in it is not counted.
        rate: Requests/s that begin, by all clients together, whether or not others are answered; 0: each client asks
            again when it has its answer.
        first: Place of the first request among those of all processes, as a share of the time between two; so that
            processes do not begin together.
        timeout_seconds: Of a request.
    """

    url: str
    path: str
    body: str
    grpc: bool
    clients: int
    seconds: float
    warm_up_seconds: float
    rate: float
    first: float
    timeout_seconds: float
