"""Who is let in: no more than fit, and nobody who would get the answer too late.

To fail fast is better than to be late: what waits in a long queue is computed for callers that have gone ("The Tail at
Scale", Dean and Barroso, CACM 2013; "Fail at Scale", Maurer, ACM Queue 2015).
"""

import asyncio
from dataclasses import dataclass

from mlmesh_kit.errors import ResourceExhausted

from mlmesh_serving.backend import Backend, WireRequest
from mlmesh_serving.protection.before import Before
from mlmesh_serving.protection.futures import Future
from mlmesh_serving.protection.metrics import REASONS, REFUSED
from mlmesh_serving.scaling.meter import InFlight, RequestMeter

_RETRY_AFTER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """How much is let in.

    Attributes:
        in_flight: Most requests in flight for one model, those that wait included; 0: no limit.
        everywhere: Most in all; 0: no limit.
        early: Refuse at once who would get the answer after his deadline.
    """

    in_flight: int = 1000
    everywhere: int = 10_000
    early: bool = True


class Admission(Before):
    """A Backend before another, which refuses what is too much.

    A request is refused with RESOURCE_EXHAUSTED, and after how long to try again, when so many are in flight that no
    more may be, or when `RequestMeter.expected_latency` (Little's law) is more than the time that the request has left.
    While fewer requests are in flight than there are replicas, nobody is refused for the second reason: what was
    measured before may be over.

    Args:
        inner: Answers.
        model: Its name, for messages and metrics.
        meter: Of `inner` (`Activator.meter`).
        everywhere: Counts the requests of all models.
        limits: How much is let in.
    """

    def __init__(
        self,
        inner: Backend,
        model: str,
        meter: RequestMeter,
        everywhere: InFlight,
        limits: AdmissionLimits | None = None,
    ) -> None:
        super().__init__(inner)
        self._model = model
        self._meter = meter
        self._everywhere = everywhere
        self._limits = limits or AdmissionLimits()
        self._refused = {reason: REFUSED.labels(model, reason) for reason in REASONS}

    def submit(self, request: WireRequest) -> Future:
        """Hands a request on.

        Raises:
            ResourceExhausted: Too many are in flight, or the answer would be late.
        """
        limits = self._limits
        if 0 < limits.everywhere <= self._everywhere.count:
            raise self._refusal("everywhere", "too many requests in flight")
        if 0 < limits.in_flight <= self._meter.count:
            raise self._refusal("model", f"too many requests in flight for model {self._model!r}")
        if request.deadline is not None and limits.early:
            late = asyncio.get_running_loop().time() + self._meter.expected_latency() - request.deadline
            if late > 0 and self._meter.count >= self._inner.ready > 0:
                text = f"model {self._model!r} is too busy to answer within the deadline; it would be {late:.3f} s late"
                raise self._refusal("deadline", text, late)
        return self._inner.submit(request)

    def _refusal(self, reason: str, message: str, late: float = 0.0) -> ResourceExhausted:
        self._refused[reason].inc()
        retry_after = late or self._meter.expected_latency() or _RETRY_AFTER_SECONDS
        return ResourceExhausted(message, retry_after_seconds=retry_after)
