"""What a worker process does: greets the router, loads its chain, answers until the router is gone.

It is forked from a helper that has this module imported already (`mlmesh_kit.launch.WarmLauncher`).
"""

import gc
import logging
import os
import pickle
import socket
import sys
import time
from collections import deque
from pathlib import Path

import orjson
from mlmesh_kit.errors import Internal, ServiceError

from mlmesh_serving.chain import Chain, load_chain
from mlmesh_serving.workers import frames
from mlmesh_serving.workers.channel import Channel, RouterGone
from mlmesh_serving.workers.engine import Engine, Job
from mlmesh_serving.workers.faults import encode_fault
from mlmesh_serving.workers.plan import Batching, Plan

logger = logging.getLogger(__name__)


def main() -> None:
    """Runs a worker; arguments: the router's socket, the file of the mark, the token by which the router knows us."""
    socket_path, mark, token = sys.argv[1:4]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, frames.SOCKET_BYTES)
        connection.connect(socket_path)
        connection.sendall(token.encode())
        channel = Channel(connection, Path(mark))
        try:
            plan: Plan = pickle.loads(channel.plan())  # noqa: S301  # the router's, by a socket that only it can reach
            chain = _load(channel, plan)
            if chain is not None:
                serve(channel, Engine(chain, plan.version, plan.limits), plan.batching)
        except RouterGone:
            pass
    # User code may have left threads and exit handlers that never end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _load(channel: Channel, plan: Plan) -> Chain | None:
    try:
        chain = load_chain(plan)
    except ServiceError as error:
        channel.tell(*encode_fault(error))
        return None
    except Exception as error:
        logger.error("loading failed", exc_info=error)
        channel.tell(*encode_fault(Internal("an unexpected error; the service's log has it")))
        return None
    gc.collect()
    gc.freeze()  # what is loaded stays: collections need not walk it, nor write into memory that is shared
    channel.tell(
        0,
        orjson.dumps(
            {
                "platform": chain.platform,
                "inputs": [[i.name, i.datatype, i.shape] for i in chain.inputs],
                "outputs": [[o.name, o.datatype, o.shape] for o in chain.outputs],
            }
        ),
    )
    return chain


def serve(channel: Channel, engine: Engine, batching: Batching) -> None:
    """Answers, batch after batch, until the router is gone.

    Raises:
        RouterGone: It is.
    """
    waiting: deque[Job] = deque()
    wait: float | None = None
    while True:
        for request in channel.requests(wait):
            waiting.append(engine.take(*request))
        wait = _seconds_to_wait(waiting, batching)
        if not waiting or (wait is not None and wait > 0):
            continue
        batch = _next_batch(waiting, batching.max_rows)
        channel.begin(batch[-1].number)
        channel.reply(engine.answer(batch))
        wait = 0.0 if waiting else None


def _seconds_to_wait(waiting: deque[Job], batching: Batching) -> float | None:
    """Says how long others may still join; None: nobody is there, 0: no longer."""
    if not waiting:
        return None
    if not batching.max_latency_seconds or sum(job.rows for job in waiting) >= batching.max_rows:
        return 0.0
    return max(0.0, waiting[0].arrived + batching.max_latency_seconds - time.monotonic())


def _next_batch(waiting: deque[Job], max_rows: int) -> list[Job]:
    batch = [waiting.popleft()]
    rows = batch[0].rows
    while waiting and rows + waiting[0].rows <= max_rows:
        job = waiting.popleft()
        rows += job.rows
        batch.append(job)
    return batch
