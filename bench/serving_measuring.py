"""Servers measured in turn, with their answers checked."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import httpx
import numpy as np
import psutil

from bench import serving_h2load as h2load
from bench.serving_h2load import BadRun, Load
from bench.serving_models import Model, Request, ask
from bench.serving_servers import Server

MOST_OTHERS = 0.25
"""CPUs that other processes may use while a server is measured; beyond it, it is measured again."""


@dataclass(frozen=True)
class Row:
    """What is sent, and how.

    Attributes:
        label: For the table.
        sent: The request.
        model: That answers it.
        connections, streams: See `h2load.run`.
        rate_target: The least ratio to MLServer's rate; 0: none.
        p50_target: The largest ratio to MLServer's p50; 0: none.
    """

    label: str
    sent: Request
    model: Model
    connections: int
    streams: int = 1
    rate_target: float = 0
    p50_target: float = 0


@dataclass(frozen=True)
class Once:
    """One measurement.

    Attributes:
        load: What h2load found.
        cpu: ms of the server's processes for an answer.
        others: CPUs that other processes than the server and the load generator used meanwhile.
    """

    load: Load
    cpu: float
    others: float


@dataclass
class Found:
    """The measurements of one server."""

    repeats: list[Once] = field(default_factory=list)

    @property
    def load(self) -> Load:
        """All of them together."""
        return h2load.merged([one.load for one in self.repeats])

    @property
    def cpu(self) -> float:
        """ms for an answer, at best."""
        return min(one.cpu for one in self.repeats)

    @property
    def others(self) -> float:
        """CPUs that others used, at worst."""
        return max(one.others for one in self.repeats)

    @property
    def disturbed(self) -> bool:
        """Whether others used more than they may, in spite of all tries."""
        return self.others > MOST_OTHERS


class Turns:
    """Measures servers in turn.

    Args:
        seconds: Of each measurement, after a warm-up of a third of it.
        repeats: Of each.
        tries: Of each repeat, while others disturb it; the least disturbed counts.
    """

    def __init__(self, seconds: float, repeats: int, tries: int) -> None:
        self._seconds, self._warm_up, self._repeats, self._tries = seconds, seconds / 3, repeats, tries

    def measure(self, cases: Sequence[tuple[Row, Server]]) -> list[Found | str]:
        """Measures each case, again and again (A B C A B C ...).

        Returns:
            For each: what was found, or why there is nothing: the server refuses the request, or a run went wrong.
        """
        lengths = [checked(row, server) for row, server in cases]
        found: list[Found | str] = [length if isinstance(length, str) else Found() for length in lengths]
        for _ in range(self._repeats):
            for number, ((row, server), length) in enumerate(zip(cases, lengths, strict=True)):
                results = found[number]
                if isinstance(length, int) and isinstance(results, Found):
                    try:
                        results.repeats.append(self._quietly(row, server, length))
                    except BadRun as error:
                        found[number] = str(error).partition("\n")[0]
        return found

    def _quietly(self, row: Row, server: Server, length: int) -> Once:
        tries: list[Once] = []
        while len(tries) < self._tries and (not tries or tries[-1].others > MOST_OTHERS):
            tries.append(self._once(row, server, length))
        return min(tries, key=lambda one: one.others)

    def _once(self, row: Row, server: Server, length: int) -> Once:
        before, began = _clocks(server), time.perf_counter()
        load = h2load.run(
            server.address(row.sent) + row.sent.path,
            row.sent.body,
            row.sent.headers,
            http1=row.sent.http1,
            connections=row.connections,
            streams=row.streams,
            seconds=self._seconds,
            warm_up=self._warm_up,
        )
        took = time.perf_counter() - began
        everyone, ours, theirs = (after - at for after, at in zip(_clocks(server), before, strict=True))
        missing = load.answers - load.body_bytes / length
        if missing > row.connections * row.streams + 0.01 * load.answers:  # those in flight at the ends may be missing
            raise BadRun(f"{server.name}: some {missing:.0f} of {load.answers} answers had no body")
        # The warm-up is in the CPU's time, and had as many answers in a second.
        answers = load.rate * (self._seconds + self._warm_up)
        return Once(load, 1e3 * theirs / answers, (everyone - ours - theirs) / took)


def checked(row: Row, server: Server) -> int | str:
    """Checks what a server answers; gives the bytes of the body, or why it refuses the request."""
    try:
        found, length = ask(row.sent, server.grpc, server.http)
    except grpc.RpcError as error:
        return f"refused: {error.code().name} {error.details()}"
    except httpx.HTTPStatusError as error:
        return f"refused: {error.response.status_code} {error.response.text[:200]}"
    if not np.allclose(found, row.model.expected, rtol=1e-3, atol=1e-3):
        raise BadRun(f"{server.name} answers {found}, and the model {row.model.expected}")
    return length


def _clocks(server: Server) -> tuple[float, float, float]:
    """Gives CPU seconds so far: of the machine, of this process and its load generators, of a server."""
    machine = psutil.cpu_times()
    own = os.times()
    return (
        sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice,
        sum(own[:4]),
        server.cpu_seconds(),
    )
