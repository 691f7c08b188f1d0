"""Traces (OpenTelemetry) and metrics (Prometheus). Without an OTLP endpoint nothing is exported and little is paid."""

import os
from collections.abc import Iterable, Mapping, Sequence

from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, Tracer
from prometheus_client import Counter, Gauge, Histogram

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"

RPC_SECONDS = Histogram(
    "mlmesh_rpc_duration_seconds",
    "Time to answer an RPC or an HTTP request",
    ["method"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)
RPC_TOTAL = Counter("mlmesh_rpc_total", "RPCs and HTTP requests answered", ["method", "code"])
RPC_IN_FLIGHT = Gauge("mlmesh_rpc_in_flight", "RPCs and HTTP requests being served")


def configure_tracing(service: str) -> Tracer:
    """Sets the process's tracer up.

    Spans are exported over OTLP/gRPC when `OTEL_EXPORTER_OTLP_ENDPOINT` is set. The share of new traces that is
    recorded is `OTEL_TRACES_SAMPLER_ARG` (0..1; 1 when exporting, else 0: trace ids still cross every hop).
    """
    endpoint = os.environ.get(ENDPOINT_VARIABLE, "")
    ratio = float(os.environ.get("OTEL_TRACES_SAMPLER_ARG", "1" if endpoint else "0"))
    resource = Resource.create({"service.name": f"mlmesh-{service}"})
    provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(ratio)))
    if endpoint:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return trace.get_tracer("mlmesh")


def start_server_span(tracer: Tracer, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Span:
    """Starts the span of a call that came in, as a child of the caller's where the metadata carry one (W3C)."""
    carrier = {key: value for key, value in metadata if key in {"traceparent", "tracestate"}}
    parent = extract(carrier) if carrier else None
    return tracer.start_span(method.lstrip("/"), context=parent, kind=SpanKind.SERVER)


class QuietSpan(NonRecordingSpan):
    """A span of a process that exports none: all that is left of it are its ids, which are made when asked for.

    Args:
        metadata: The headers of the call that carry the caller's trace.
    """

    _ids = RandomIdGenerator()

    def __init__(self, metadata: Sequence[tuple[str, str]]) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self._metadata = metadata
        self._known: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        """Gives the ids: the caller's trace where there is one, and a span of our own in it."""
        if self._known is None:
            parent = trace.get_current_span(extract(dict(self._metadata))).get_span_context()
            self._known = SpanContext(
                trace_id=parent.trace_id if parent.is_valid else self._ids.generate_trace_id(),
                span_id=self._ids.generate_span_id(),
                is_remote=False,
                trace_flags=parent.trace_flags if parent.is_valid else TraceFlags(TraceFlags.DEFAULT),
                trace_state=parent.trace_state,
            )
        return self._known


def exports_traces() -> bool:
    """Tells whether spans leave this process."""
    return bool(os.environ.get(ENDPOINT_VARIABLE))


def trace_headers() -> Mapping[str, str]:
    """Gives the headers that carry the current trace to the next hop (also into task processes)."""
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier
