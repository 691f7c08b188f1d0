"""Envoy's bootstrap for the local ingress.

Field names and meanings: Envoy's v3 API. Paths are relative to the folder that Envoy is started in, so that what is
rendered holds nothing of the machine it was rendered on.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmesh.description import Health, HttpRoute, Mesh, Ports, Retries, Service
from mlmesh.render.methods import Method

Tree = dict[str, Any]

_TYPE = "type.googleapis.com/"
_FILTERS = _TYPE + "envoy.extensions.filters.http."
TRANSCODER = "envoy.filters.http.grpc_json_transcoder"
DESCRIPTOR_SET = "descriptor_set.pb"
ADMIN_SOCKET = "envoy.sock"
ACCESS_LOG = "../logs/access.log"

_TEMPLATE = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"

BUFFER = "envoy.filters.http.buffer"

_UNTRANSCODED = {TRANSCODER: {"@type": _TYPE + "envoy.config.route.v3.FilterConfig", "disabled": True}}

_UNBUFFERED = {BUFFER: {"@type": _FILTERS + "buffer.v3.BufferPerRoute", "disabled": True}}

_UNSENT = "connect-failure,refused-stream"
_SAFE = _UNSENT + ",reset,unavailable"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where things listen in one running mesh.

    Args:
        ingress_port: Of the ingress.
        ports: Of each service that runs.
    """

    ingress_port: int
    ports: Mapping[str, Ports]

    @classmethod
    def described(cls, mesh: Mesh) -> "Placement":
        """Gives the ports that the description names."""
        return cls(mesh.ingress.port, {name: service.ports for name, service in mesh.services.items()})


def render_ingress(mesh: Mesh, methods: Mapping[str, Sequence[Method]], placement: Placement) -> Tree:
    """Renders the bootstrap.

    Args:
        mesh: The description.
        methods: RPCs of each gRPC service, from `read_methods`.
        placement: Ports; a service without any is not there: its routes answer 503.
    """
    clusters = []
    for name, service in mesh.services.items():
        ports = placement.ports.get(name)
        clusters.append(_cluster(mesh, name, service, ports.grpc if ports else None, http2=True))
        if service.http:
            clusters.append(_cluster(mesh, f"{name}-http", service, ports.http if ports else None, http2=False))
    return {
        "node": {"id": "ingress", "cluster": "mlmesh"},
        "admin": {"address": {"pipe": {"path": ADMIN_SOCKET, "mode": 0o600}}},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": _TYPE
                        + "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": mesh.ingress.max_connections,
                    },
                }
            ]
        },
        "static_resources": {"listeners": [_listener(mesh, methods, placement)], "clusters": clusters},
    }


def _listener(mesh: Mesh, methods: Mapping[str, Sequence[Method]], placement: Placement) -> Tree:
    return {
        "name": "ingress",
        "address": {"socket_address": {"address": mesh.ingress.host, "port_value": placement.ingress_port}},
        "per_connection_buffer_limit_bytes": 1 << 20,
        "filter_chains": [{"filters": [_connection_manager(mesh, methods, placement)]}],
    }


def _connection_manager(mesh: Mesh, methods: Mapping[str, Sequence[Method]], placement: Placement) -> Tree:
    config = {
        "@type": _TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "codec_type": "AUTO",
        "use_remote_address": True,
        # Nobody outside is trusted to steer Envoy with x-envoy-* headers, not even from loopback.
        "internal_address_config": {"unix_sockets": False, "cidr_ranges": []},
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": mesh.ingress.max_header_kib,
        "common_http_protocol_options": {
            "max_headers_count": mesh.ingress.max_headers,
            "headers_with_underscores_action": "REJECT_REQUEST",
            "idle_timeout": "3600s",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 1024,
            "initial_stream_window_size": 1 << 20,
            "initial_connection_window_size": 4 << 20,
        },
        "request_headers_timeout": "30s",
        "stream_idle_timeout": "300s",
        "drain_timeout": f"{mesh.ingress.drain_seconds:g}s",
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": True,
        "access_log": [_access_log()],
        "local_reply_config": _local_replies(mesh),
        "http_filters": _http_filters(mesh, methods, placement),
        "route_config": {
            "name": "ingress",
            "ignore_port_in_host_matching": True,
            "validate_clusters": True,
            "virtual_hosts": [
                {
                    "name": "mesh",
                    "domains": list(mesh.ingress.hosts),
                    "typed_per_filter_config": _UNBUFFERED,
                    "request_headers_to_add": [
                        {
                            "header": {"key": mesh.identity.header, "value": mesh.identity.local_user},
                            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                        }
                    ],
                    "routes": _routes(mesh, methods),
                },
                {
                    "name": "stranger",
                    "domains": ["*"],
                    "typed_per_filter_config": _UNBUFFERED,
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {
                                "status": 421,
                                "body": {"inline_string": "this host name is not answered here"},
                            },
                        }
                    ],
                },
            ],
        },
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _access_log() -> Tree:
    fields = {
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
        "path": "%PATH(NQ:ORIG_OR_PATH)%",  # without the query: it may hold secrets
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "flags": "%RESPONSE_FLAGS%",
        "milliseconds": "%DURATION%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
        "service": "%UPSTREAM_CLUSTER%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "request_id": "%REQ(X-REQUEST-ID)%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": ACCESS_LOG,
            "log_format": {"json_format": fields},
        },
    }


def _local_replies(mesh: Mesh) -> Tree:
    """Makes Envoy's own answers JSON of the same form as the services' errors."""
    codes = {400: 3, 403: 7, 404: 5, 408: 4, 413: 8, 421: 3, 429: 8, 503: 14, 504: 4}
    texts = {
        400: "bad request: %LOCAL_REPLY_BODY% (%RESPONSE_CODE_DETAILS%)",
        403: "requests from pages of another origin are refused",
        404: "no such path or method: %REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)% %PATH(NQ:ORIG_OR_PATH)%",
        413: f"the body is larger than allowed ({mesh.ingress.max_body_bytes} bytes; "
        f"JSON for a gRPC service {mesh.ingress.max_transcoded_bytes})",
        503: "not available now, try again: %LOCAL_REPLY_BODY% (%RESPONSE_CODE_DETAILS%)",
        504: "the service did not answer in time: %LOCAL_REPLY_BODY%",
    }
    mappers = [_mapper(200, {"status": "SERVING"})]  # /healthz is the only one that Envoy answers itself
    for status, code in codes.items():
        text = texts.get(status, "%LOCAL_REPLY_BODY%")
        mappers.append(_mapper(status, {"error": text, "code": code, "message": text, "details": []}))
    return {
        "mappers": mappers,
        "body_format": {
            "json_format": {"error": "%LOCAL_REPLY_BODY%", "code": 2, "message": "%LOCAL_REPLY_BODY%", "details": []},
            "content_type": "application/json",
        },
    }


def _mapper(status: int, body: Tree) -> Tree:
    value = {"default_value": status, "runtime_key": f"mlmesh.reply_{status}"}
    return {
        "filter": {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}},
        "body_format_override": {"json_format": body, "content_type": "application/json"},
    }


def _http_filters(mesh: Mesh, methods: Mapping[str, Sequence[Method]], placement: Placement) -> list[Tree]:
    transcoded = [
        full_name
        for service in mesh.services.values()
        if service.transcoded
        for full_name in service.grpc
        if any(method.rest for method in methods.get(full_name, ()))
    ]
    return [
        _filter(
            "health_check",
            "health_check.v3.HealthCheck",
            {
                "pass_through_mode": False,
                "headers": [{"name": ":path", "string_match": {"exact": "/healthz"}}],
                "cluster_min_healthy_percentages": {name: {"value": 100} for name in sorted(placement.ports)},
            },
        ),
        _same_origin(mesh),
        _filter("grpc_web", "grpc_web.v3.GrpcWeb", {}),
        # Bounds JSON for the transcoder, whose own limit a body sent in chunks gets past. It acts on what no route
        # matches: that is a REST path, before the transcoder has turned it into an RPC's. Streams pass untouched.
        _filter("buffer", "buffer.v3.Buffer", {"max_request_bytes": mesh.ingress.max_transcoded_bytes}),
        _filter(
            "grpc_json_transcoder",
            "grpc_json_transcoder.v3.GrpcJsonTranscoder",
            {
                "proto_descriptor": DESCRIPTOR_SET,
                "services": transcoded,
                "print_options": {"preserve_proto_field_names": True},
                "convert_grpc_status": True,
                "query_param_unescape_plus": True,  # stock clients write a space as +
                "request_validation_options": {
                    "reject_unknown_method": True,
                    "reject_unknown_query_parameters": True,
                    "reject_binding_body_field_collisions": True,
                },
                "max_request_body_size": mesh.ingress.max_transcoded_bytes,
                "max_response_body_size": mesh.ingress.max_body_bytes,
            },
        ),
        _filter("router", "router.v3.Router", {"suppress_envoy_headers": True}),
    ]


def _same_origin(mesh: Mesh) -> Tree:
    """Refuses what a page of another origin sends through a browser: it would act as the mesh's user."""
    hosts = "|".join(re.escape(host) for host in mesh.ingress.hosts)
    foreign = {
        "and_ids": {
            "ids": [
                {"header": {"name": "origin", "present_match": True}},
                {
                    "not_id": {
                        "header": {
                            "name": "origin",
                            "string_match": {"safe_regex": {"regex": f"https?://(?:{hosts})(?::[0-9]+)?"}},
                        }
                    }
                },
            ]
        }
    }
    policy = {"permissions": [{"any": True}], "principals": [foreign]}
    return _filter("rbac", "rbac.v3.RBAC", {"rules": {"action": "DENY", "policies": {"foreign-origin": policy}}})


def _filter(name: str, type_name: str, config: Tree) -> Tree:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": _FILTERS + type_name, **config}}


def _routes(mesh: Mesh, methods: Mapping[str, Sequence[Method]]) -> list[Tree]:
    """Gives the routes, first match first: too large, HTTP handlers, then each gRPC service's."""
    size = {"start": mesh.ingress.max_body_bytes + 1, "end": 2**63 - 1}
    routes: list[Tree] = [
        {
            "match": {"prefix": "/", "headers": [{"name": "content-length", "range_match": size}]},
            "direct_response": {"status": 413},
            "typed_per_filter_config": _UNTRANSCODED,
        }
    ]
    for name, service in mesh.services.items():
        for http in service.http:
            routes += _http_routes(mesh, name, service, http)
    for name, service in mesh.services.items():
        for full_name in service.grpc:
            routes += _grpc_routes(mesh, name, service, full_name, methods.get(full_name, ()))
    return routes


def _http_routes(mesh: Mesh, name: str, service: Service, http: HttpRoute) -> list[Tree]:
    match: Tree = {"path": http.path}
    if http.prefix:
        match = {"path_separated_prefix": http.prefix}
    elif http.regex:
        config = {"@type": _TYPE + _TEMPLATE, "path_template": http.path}
        match = {"path_match_policy": {"name": "envoy.path.match.uri_template", "typed_config": config}}
    safe = {**match, "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]}
    deadline = 0 if http.streaming else http.deadline_seconds or service.deadline_seconds
    routes = [
        _route(mesh, service, f"{name}-http", safe, deadline, _SAFE),
        _route(mesh, service, f"{name}-http", match, deadline, _UNSENT),
    ]
    return [{**route, "typed_per_filter_config": _UNTRANSCODED} for route in routes]


def _grpc_routes(mesh: Mesh, name: str, service: Service, full_name: str, methods: Sequence[Method]) -> list[Tree]:
    streams = [method.name for method in methods if method.streaming]
    verbs = [v for v in service.safe_methods if any(m.name.startswith(v) and not m.streaming for m in methods)]
    deadline = service.deadline_seconds
    routes = [_route(mesh, service, name, {"path": f"/{full_name}/{method}"}, 0, _UNSENT) for method in streams]
    routes += [_route(mesh, service, name, {"prefix": f"/{full_name}/{verb}"}, deadline, _SAFE) for verb in verbs]
    return [*routes, _route(mesh, service, name, {"prefix": f"/{full_name}/"}, deadline, _UNSENT)]


def _route(mesh: Mesh, service: Service, cluster: str, match: Tree, deadline: float | None, retry_on: str) -> Tree:
    """Makes a route; a deadline of 0 is none, and then idle streams are not ended either."""
    if deadline is None:
        deadline = mesh.defaults.deadline_seconds
    retries: Retries = service.retries or mesh.defaults.retries
    action: Tree = {"cluster": cluster, "timeout": _seconds(deadline)}
    if not deadline:
        action["idle_timeout"] = "0s"
    if retries.attempts:
        action["retry_policy"] = {
            "retry_on": retry_on,
            "num_retries": retries.attempts,
            "retry_back_off": {
                "base_interval": _seconds(retries.backoff_seconds),
                "max_interval": _seconds(retries.max_backoff_seconds),
            },
        }
    return {"match": match, "route": action}


def _cluster(mesh: Mesh, name: str, service: Service, port: int | None, *, http2: bool) -> Tree:
    breaker = service.circuit_breaker or mesh.defaults.circuit_breaker
    protocol: Tree = {"http_protocol_options": {}}
    if http2:
        window = {"initial_stream_window_size": 1 << 20, "initial_connection_window_size": 4 << 20}
        protocol = {"http2_protocol_options": window}
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": 1 << 20,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": protocol,
            }
        },
        "circuit_breakers": {"thresholds": [{"priority": "DEFAULT", **breaker.model_dump()}]},
        "outlier_detection": {"consecutive_5xx": 20, "interval": "5s", "base_ejection_time": "1s"},
        "health_checks": [_health_check(mesh.defaults.health, http2=http2)],
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [endpoint] if port is not None else []}],
        },
    }


def _health_check(health: Health, *, http2: bool) -> Tree:
    check: Tree = {"grpc_health_check": {}} if http2 else {"http_health_check": {"path": "/healthz"}}
    return {
        "timeout": _seconds(health.timeout_seconds),
        "interval": _seconds(health.interval_seconds),
        "unhealthy_interval": _seconds(health.starting_interval_seconds),
        "no_traffic_interval": _seconds(health.starting_interval_seconds),
        "no_traffic_healthy_interval": _seconds(health.interval_seconds),
        "healthy_threshold": 1,
        "unhealthy_threshold": 2,
        **check,
    }


def _seconds(value: float) -> str:
    return f"{value:g}s"
