"""What a future gives, made into something else; without a task, which costs more than all the rest."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def mapped(source: "asyncio.Future[T]", function: Callable[[T], R]) -> "asyncio.Future[R]":
    """Gives a future of the function's result; whoever cancels that cancels the source, too.

    Args:
        source: Its error or cancellation is passed on.
        function: Called with what the source gives; must be quick, and must not raise.
    """
    result: asyncio.Future[R] = source.get_loop().create_future()

    def settle(_: object) -> None:
        if result.done():
            return
        if source.cancelled():
            result.cancel()
            return
        error = source.exception()
        if error is None:
            result.set_result(function(source.result()))
        else:
            result.set_exception(error)

    def give_up(_: object) -> None:
        if result.cancelled():
            source.cancel()

    source.add_done_callback(settle)
    result.add_done_callback(give_up)
    return result
