"""Between one event loop and the compiled transport."""

from __future__ import annotations

import asyncio
import functools
import warnings
from collections.abc import Callable
from typing import Any

from convelo._convelo import Completions

__all__ = ["Message", "Receipt", "completions_of", "loop_here", "seconds_of"]

Message = tuple[int, int | str, bytes | memoryview, list[bytes | memoryview] | None]
"""(wire, id, value, buffers): what arrived, not decoded yet."""


class Receipt(asyncio.Future[Any]):
    """The future of a message that was asked for. Cancelling it withdraws the request at once.

    An ordinary future tells its owner one turn of the loop later; somebody else could have asked
    for the next message by then.
    """

    withdraw: Callable[[asyncio.Future[Any]], object] | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled and self.withdraw is not None:
            self.withdraw(self)
        return cancelled


_bridges: dict[asyncio.AbstractEventLoop, Completions] = {}


def completions_of(loop: asyncio.AbstractEventLoop) -> Completions:
    """The results on their way to ``loop``; made and connected at the first call."""
    known = _bridges.get(loop)
    if known is None:
        for other in [other for other in _bridges if other.is_closed()]:
            _bridges.pop(other).close()
        known = _bridges[loop] = Completions(loop, functools.partial(Receipt, loop=loop))
        loop.add_reader(known.fileno(), known.drain)
    return known


def loop_here(bound: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
    """The running loop; else the one that is bound; else the one that would run next."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    if bound is not None and not bound.is_closed():
        return bound
    try:
        with warnings.catch_warnings():
            # From 3.12 on this warns, from 3.14 on it raises, where no loop was set.
            warnings.simplefilter("ignore", DeprecationWarning)
            loop = asyncio.get_event_loop()
    except RuntimeError:
        loop = None
    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    return loop


def seconds_of(timeout: Any) -> float | None:
    """Seconds of a number, of ``aiohttp.ClientTimeout`` (its ``total``), or ``None`` for no limit.

    Raises:
        TypeError: it is none of these.
        ValueError: it is negative.
    """
    total = getattr(timeout, "total", timeout)
    if total is None:
        return None
    if isinstance(total, bool) or not isinstance(total, int | float):
        raise TypeError(
            "a timeout is a number of seconds, an aiohttp.ClientTimeout or None, "
            f"not {type(timeout).__name__}"
        )
    if not total >= 0:
        raise ValueError(f"a timeout of {total} seconds is in the past")
    # To aiohttp a total of 0 is no limit.
    return float(total) if total or total is timeout else None
