"""Clients that go away before they have their answer."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

T = TypeVar("T")


async def unless_gone(request: Request, answer: Coroutine[Any, Any, T]) -> T | None:
    """Runs what makes an answer, and cancels it when the client has gone.

    Args:
        request: Its body has been read.
        answer: Gives something that is not None.

    Returns:
        The answer; None: nobody waits for one.
    """
    task = asyncio.create_task(answer)
    watch = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return None
    finally:
        for other in (task, watch):
            if not other.done():
                other.cancel()
                await asyncio.wait([other])


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def nobody() -> Response:
    """Gives what is answered to nobody (nginx's 499)."""
    return Response(status_code=499)
