"""Futures that stand for others: the one a caller holds, and the one of a backend behind it."""

import asyncio

from mlmesh_serving.backend import WireAnswer

Future = asyncio.Future[WireAnswer]


def settle(future: Future, behind: Future) -> None:
    """Ends the caller's future as the backend's ended; nothing where it has ended before."""
    if behind.cancelled():
        future.cancel()
        return
    error = behind.exception()  # read in any case: else asyncio complains of one that nobody saw
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(behind.result())


def cancel_with(behind: Future, future: Future) -> None:
    """Gives the backend's up when the caller has given his up."""
    if future.cancelled():
        behind.cancel()
