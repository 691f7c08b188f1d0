"""What is counted, timed and traced of a call that is answered as bytes."""

import time

from opentelemetry import context as trace_context
from opentelemetry import trace
from opentelemetry.trace import Span

from mlmesh_kit.interceptor import count_call
from mlmesh_kit.telemetry import RPC_IN_FLIGHT


class Observation:
    """Metrics and span of one call, or request; its span becomes the current context's.

    Args:
        name: Of the method, in the metrics.
        span: Of the call.
    """

    __slots__ = ("_name", "_span", "_started")

    def __init__(self, name: str, span: Span) -> None:
        self._name = name
        self._span = span
        self._started = time.perf_counter()
        RPC_IN_FLIGHT.inc()
        trace_context.attach(trace.set_span_in_context(span, trace_context.Context()))

    def end(self, code: str) -> None:
        """Ends it with the name of the status code."""
        RPC_IN_FLIGHT.dec()
        self._span.end()
        count_call(self._name, code, time.perf_counter() - self._started)
