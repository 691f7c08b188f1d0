"""Answers requests with a chain, as many at once as are there. It knows bytes and tensors, and nothing of sockets."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mlmesh_kit.errors import DeadlineExceeded, Internal, InvalidArgument, ServiceError

from mlmesh_serving.backend import Door
from mlmesh_serving.chain import Chain
from mlmesh_serving.joining import Tensors, rows_of
from mlmesh_serving.tensor import Limits, Tensor
from mlmesh_serving.workers.doors import Buffer, Decoded, Encoded, decode
from mlmesh_serving.workers.faults import encode_fault

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Job:
    """A request that a worker has been handed.

    Attributes:
        number: By which the router knows it.
        request: What is asked, or what is wrong with it.
        deadline: By `time.monotonic`; 0: any.
        arrived: By `time.monotonic`.
        rows: That it adds to a batch.
    """

    number: int
    request: Decoded | ServiceError
    deadline: float
    arrived: float
    rows: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered to a request.

    Attributes:
        number: As the job's.
        code: gRPC's status code; 0: it is the answer.
        answer: The bytes.
    """

    number: int
    code: int
    answer: Encoded


class Engine:
    """A chain behind all doors.

    Args:
        chain: Answers.
        version: Of the model, for answers.
        limits: Of requests.
    """

    def __init__(self, chain: Chain, version: str, limits: Limits) -> None:
        self._chain = chain
        self._version = version
        self._limits = limits

    def take(self, number: int, door: Door, model: str, body: Buffer, json_length: int | None, deadline: float) -> Job:
        """Reads a request; arguments as in `WireRequest`."""
        request: Decoded | ServiceError
        try:
            request = decode(door, model, self._version, body, json_length, self._limits)
        except ServiceError as error:
            request = error
        except Exception as error:
            request = _unexpected(error)
        rows = 1 if isinstance(request, ServiceError) else max(1, rows_of(request.tensors))
        return Job(number, request, deadline, time.monotonic(), rows)

    def answer(self, jobs: Sequence[Job]) -> list[Reply]:
        """Answers requests, together where that can be."""
        now = time.monotonic()
        outcomes: list[Encoded | ServiceError] = []
        live: list[tuple[int, Decoded]] = []
        for index, job in enumerate(jobs):
            if isinstance(job.request, ServiceError):
                outcomes.append(job.request)
            elif 0 < job.deadline < now:
                outcomes.append(DeadlineExceeded("the deadline passed before its turn came"))
            else:
                outcomes.append(Internal("not answered"))
                live.append((index, job.request))
        for (index, request), outcome in zip(live, self._infer([r.tensors for _, r in live]), strict=True):
            outcomes[index] = _encoded(request, outcome)
        return [_reply(job.number, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]

    def _infer(self, requests: list[Tensors]) -> Sequence[Tensors | ServiceError]:
        if not requests:
            return []
        try:
            return self._chain.infer(requests)
        except Exception as error:
            return [_unexpected(error)] * len(requests)


def _encoded(request: Decoded, outcome: Tensors | ServiceError) -> Encoded | ServiceError:
    if isinstance(outcome, ServiceError):
        return outcome
    try:
        return request.encode(_selected(outcome, request.wanted))
    except ServiceError as error:
        return error
    except Exception as error:
        return _unexpected(error)


def _selected(outputs: list[Tensor], wanted: Sequence[str]) -> list[Tensor]:
    if not wanted:
        return outputs
    by_name = {output.name: output for output in outputs}
    for name in wanted:
        if name not in by_name:
            raise InvalidArgument(f"there is no output {name!r}; there are {', '.join(by_name)}", field="outputs")
    return [by_name[name] for name in wanted]


def _reply(number: int, outcome: Encoded | ServiceError) -> Reply:
    if isinstance(outcome, ServiceError):
        code, content = encode_fault(outcome)
        return Reply(number, code, Encoded([content]))
    return Reply(number, 0, outcome)


def _unexpected(error: Exception) -> Internal:
    logger.error("unexpected %s", type(error).__name__, exc_info=error)
    return Internal("internal error; the service's log has it")
