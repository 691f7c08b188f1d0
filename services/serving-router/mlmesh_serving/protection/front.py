"""All that stands before the replicas of a revision, in its order; and before a stage that is somewhere else."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mlmesh_kit.errors import Unavailable

from mlmesh_serving.backend import Backend, WireRequest
from mlmesh_serving.manifest import InferenceServiceSpec
from mlmesh_serving.protection import metrics
from mlmesh_serving.protection.admission import Admission, AdmissionLimits
from mlmesh_serving.protection.breaker import BreakerSettings
from mlmesh_serving.protection.breaking import Breaking
from mlmesh_serving.protection.deadline import Deadlines
from mlmesh_serving.protection.futures import Future
from mlmesh_serving.protection.hedge import Hedging
from mlmesh_serving.protection.retry import Retrying, RetrySettings
from mlmesh_serving.protection.settings import ProtectionSpec, parse_protection
from mlmesh_serving.protection.wheel import TimerWheel
from mlmesh_serving.scaling.activator import Activator, QueueLimits
from mlmesh_serving.scaling.meter import InFlight
from mlmesh_serving.scaling.scaler import RevisionKey, Scaled, Scaler
from mlmesh_serving.scaling.spec import AutoscalerSettings, AutoscalerSpec

Start = Callable[[], Awaitable[None]]
Build = Callable[[Start], tuple[Activator, Backend]]


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What all revisions share.

    Attributes:
        timeout_seconds: Of a request to a model whose manifest says none.
        queue: How much may wait for a replica.
        admission: How much is let in.
        autoscaler: How all are scaled.
    """

    timeout_seconds: float = 300.0
    queue: QueueLimits = field(default_factory=QueueLimits)
    admission: AdmissionLimits = field(default_factory=AdmissionLimits)
    autoscaler: AutoscalerSettings = field(default_factory=AutoscalerSettings)


class Front:
    """A Backend with all that stands before it: deadlines, admission, hedges, retries, the activator, in this order.

    Args:
        scaler: Scales it.
        key: Which revision.
        spec: How it is scaled.
        build: Makes the activator, which is told how the first replica is brought up, and what is asked first.
    """

    def __init__(self, scaler: Scaler, key: RevisionKey, spec: AutoscalerSpec, build: Build) -> None:
        self._scaler = scaler
        self._key = key
        self._spec = spec
        self._scaled: Scaled | None = None
        self._activator, self._outer = build(self._activate)

    async def start(self) -> None:
        """Has it scaled from now on, and waits for the first replica, which shows that the model can be loaded.

        Raises:
            ServiceError: It cannot.
        """
        self._scaled = self._scaler.add(self._key, self._activator, self._spec)
        await self._activate()

    @property
    def in_flight(self) -> int:
        """See `Backend.in_flight`."""
        return self._activator.in_flight

    @property
    def waiting(self) -> int:
        """Requests that wait for a replica."""
        return self._activator.waiting

    @property
    def ready(self) -> int:
        """Replicas that answer now; where there is none, a request brings one up."""
        return self._activator.ready

    def submit(self, request: WireRequest) -> Future:
        """See `Backend.submit`."""
        return self._outer.submit(request)

    def set_reachable(self, reachable: bool) -> None:
        """Says whether traffic is routed to it; without, it goes to zero whatever its manifest's `minReplicas`."""
        if self._scaled is not None:
            self._scaled.reachable = reachable

    async def scale(self, replicas: int) -> None:
        """See `Backend.scale`; the scaler goes on from there."""
        await self._activator.scale(replicas)

    async def close(self, grace_seconds: float) -> None:
        """Takes no more requests, waits for those in flight, at most so long, and ends."""
        if self._scaled is None:
            await self._activator.close(grace_seconds)
        else:
            await self._scaler.remove(self._scaled, grace_seconds)

    async def _activate(self) -> None:
        if self._scaled is None:
            raise Unavailable(f"model {self._key[1]!r} has not been started", retry_after_seconds=1)
        await self._scaler.activate(self._scaled)


class Fronts:
    """Makes fronts, and holds what they share. Lives on one event loop.

    Args:
        scaler: Scales them.
        settings: What all revisions share.
        clock: Seconds, for what is measured.
    """

    def __init__(
        self, scaler: Scaler, settings: FrontSettings | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._scaler = scaler
        self._settings = settings or FrontSettings()
        self._clock = clock
        self._wheel = TimerWheel()
        self._everywhere = InFlight()

    @property
    def timeout_seconds(self) -> float:
        """Of a request to a model whose manifest says none."""
        return self._settings.timeout_seconds

    def put(self, key: RevisionKey, inner: Backend, service: InferenceServiceSpec) -> Front:
        """Puts a front before the replicas of a revision; `Front.start` brings the first one up.

        Args:
            key: Which revision.
            inner: Holds its replicas, of which there are none yet.
            service: What its manifest asks for.

        Raises:
            InvalidArgument: Its annotations are wrong; see `parse_protection`.
        """
        protection = parse_protection(service.annotations)

        def build(start: Start) -> tuple[Activator, Backend]:
            return self._build(f"{key[0]}.{key[1]}", inner, service, protection, start)

        return Front(self._scaler, key, AutoscalerSpec.of(service, self._settings.autoscaler), build)

    def put_remote(
        self,
        name: str,
        inner: Backend,
        timeout_seconds: float,
        *,
        retry: RetrySettings | None = None,
        breaker: BreakerSettings | None = None,
    ) -> Backend:
        """Puts deadlines, retries and a breaker before a stage or a server that is somewhere else.

        Args:
            name: Of it, for messages and metrics.
            inner: Asks it.
            timeout_seconds: Longest that a request may take; 0: as the client says.
            retry: How what ended with UNAVAILABLE is sent again; None: it is not.
            breaker: When it is not asked any more.
        """
        outer: Backend = Breaking(inner, name, breaker)
        if retry is not None:
            outer = Retrying(outer, name, retry)
        return Deadlines(outer, name, timeout_seconds, self._wheel)

    def _build(
        self, model: str, inner: Backend, service: InferenceServiceSpec, protection: ProtectionSpec, start: Start
    ) -> tuple[Activator, Backend]:
        settings = self._settings
        activator = Activator(
            inner,
            model,
            concurrency=service.container_concurrency,
            limits=settings.queue,
            start=start,
            wheel=self._wheel,
            clock=self._clock,
            everywhere=self._everywhere,
        )
        outer: Backend = activator
        if protection.retry is not None:
            outer = Retrying(outer, model, protection.retry)
        if protection.hedge is not None:
            outer = Hedging(outer, model, protection.hedge)
        outer = Admission(outer, model, activator.meter, self._everywhere, settings.admission)
        timeout = service.timeout_seconds if service.timeout_seconds is not None else settings.timeout_seconds
        return activator, Deadlines(outer, model, timeout, self._wheel)

    def forget(self, model: str) -> None:
        """Removes the metrics of a model that was deleted, or of what is somewhere else (`namespace.name`, `name`)."""
        metrics.forget(model)
