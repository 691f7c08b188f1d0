"""What Istio reads: the way in, the routes, limits, mutual TLS, and who may call whom."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlmesh.description import INGRESS, HttpRoute, Mesh, Service
from mlmesh.render.methods import Method

Tree = dict[str, Any]

NAMESPACE = "mlmesh"
LABEL = "app.kubernetes.io/name"
_LOCAL_GATEWAY = "knative-local-gateway.istio-system.svc.cluster.local"
_NETWORKING = "networking.istio.io/v1"
_SECURITY = "security.istio.io/v1"


def host_of(name: str) -> str:
    """Gives the name under which a service is found in the cluster."""
    return f"{name}.{NAMESPACE}.svc.cluster.local"


def render_istio(mesh: Mesh, methods: Mapping[str, Sequence[Method]]) -> dict[str, list[Tree]]:
    """Renders the objects, by the name of the file that they belong in."""
    return {
        "gateway.yaml": [_gateway()],
        "virtualservice.yaml": [_virtual_service(mesh, methods)],
        "destinationrule.yaml": [_destination_rule(mesh)],
        "peerauthentication.yaml": [_peer_authentication()],
        "authorizationpolicy.yaml": [
            _deny_all(),
            _knative_probes(),
            *(_authorization(name, service) for name, service in mesh.services.items()),
        ],
    }


def _object(api_version: str, kind: str, name: str, spec: Tree) -> Tree:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/part-of": "mlmesh"}},
        "spec": spec,
    }


def _gateway() -> Tree:
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    return _object(_NETWORKING, "Gateway", "mlmesh", {"selector": {"istio": "ingressgateway"}, "servers": [server]})


def _virtual_service(mesh: Mesh, methods: Mapping[str, Sequence[Method]]) -> Tree:
    routes = []
    for name, service in mesh.services.items():
        for http in service.http:
            deadline = 0 if http.streaming else http.deadline_seconds or service.deadline_seconds
            routes.append(_route(mesh, service, f"{name}-http", _paths(http), deadline))
    for name, service in mesh.services.items():
        streams = [
            {"uri": {"exact": f"/{full_name}/{method.name}"}}
            for full_name in service.grpc
            for method in methods.get(full_name, ())
            if method.streaming
        ]
        if streams:
            routes.append(_route(mesh, service, name, streams, 0))
        prefixes = [{"uri": {"prefix": f"/{full_name}/"}} for full_name in service.grpc]
        routes.append(_route(mesh, service, name, prefixes, service.deadline_seconds))
    return _object(_NETWORKING, "VirtualService", "mlmesh", {"hosts": ["*"], "gateways": ["mlmesh"], "http": routes})


def _paths(http: HttpRoute) -> list[Tree]:
    if http.prefix:  # of whole segments: /v2 and /v2/models, not /v20
        return [{"uri": {"exact": http.prefix}}, {"uri": {"prefix": f"{http.prefix}/"}}]
    return [{"uri": {"regex": http.regex} if http.regex else {"exact": http.path}}]


def _route(mesh: Mesh, service: Service, target: str, match: list[Tree], deadline: float | None) -> Tree:
    retries = service.retries or mesh.defaults.retries
    deadline = mesh.defaults.deadline_seconds if deadline is None else deadline
    return {
        "match": match,
        # Knative's gateway finds a service by its host name.
        "rewrite": {"authority": host_of(target)},
        # Who is calling is said inside, never from outside.
        "headers": {"request": {"remove": [mesh.identity.header]}},
        "route": [{"destination": {"host": _LOCAL_GATEWAY, "port": {"number": 80}}}],
        "timeout": f"{deadline:g}s",
        "retries": {"attempts": min(retries.attempts, 3), "retryOn": "connect-failure,refused-stream"},
    }


def _destination_rule(mesh: Mesh) -> Tree:
    """Bounds what is under way. One rule for all: Knative routes to revisions (pipeline-00001), known to it alone."""
    breaker = mesh.defaults.circuit_breaker
    policy = {
        "connectionPool": {
            "tcp": {"maxConnections": breaker.max_connections, "connectTimeout": "1s"},
            "http": {
                "http1MaxPendingRequests": breaker.max_pending_requests,
                "http2MaxRequests": breaker.max_requests,
                "maxRetries": breaker.max_retries,
            },
        },
        "outlierDetection": {"consecutive5xxErrors": 20, "interval": "5s", "baseEjectionTime": "10s"},
        "tls": {"mode": "ISTIO_MUTUAL"},
    }
    return _object(_NETWORKING, "DestinationRule", "mlmesh", {"host": host_of("*"), "trafficPolicy": policy})


def _peer_authentication() -> Tree:
    return _object(_SECURITY, "PeerAuthentication", "mlmesh", {"mtls": {"mode": "STRICT"}})


def _deny_all() -> Tree:
    """What no policy below allows is refused."""
    return _object(_SECURITY, "AuthorizationPolicy", "deny-all", {})


def _knative_probes() -> Tree:
    """Lets Knative's own pods see whether a revision is up, and how busy it is. They need sidecars for it."""
    rule = {
        "from": [{"source": {"namespaces": ["knative-serving"]}}],
        "to": [{"operation": {"paths": ["/healthz", "/metrics"]}}],
    }
    return _object(_SECURITY, "AuthorizationPolicy", "knative-probes", {"action": "ALLOW", "rules": [rule]})


def _authorization(name: str, service: Service) -> Tree:
    """Lets the callers in, and those through whom Knative hands requests on."""
    principals = ["cluster.local/ns/knative-serving/sa/activator"]
    if INGRESS in service.callers:
        principals.append("cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account")
    principals += [f"cluster.local/ns/{NAMESPACE}/sa/{caller}" for caller in service.callers if caller != INGRESS]
    spec = {
        "selector": {"matchLabels": {LABEL: name}},
        "action": "ALLOW",
        "rules": [{"from": [{"source": {"principals": principals}}]}],
    }
    return _object(_SECURITY, "AuthorizationPolicy", name, spec)
