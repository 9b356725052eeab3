"""Connects an event loop to the compiled transport."""

from __future__ import annotations

import asyncio
import functools
import warnings
from asyncio import _get_running_loop as running_loop
from collections.abc import Callable
from typing import Any

from convelo._convelo import Completions

__all__ = ["LoopBinding", "Message", "Receipt", "running_loop", "seconds_of"]

Message = tuple[int, int | str, bytes | memoryview, list[bytes | memoryview] | None]
"""(wire, id, value, buffers): a message as it arrived, not decoded yet."""


class Receipt(asyncio.Future[Any]):
    """The future of a requested message. Cancelling it withdraws the request immediately.

    An ordinary future would tell its owner one turn of the loop later, and by then another caller
    could have requested the next message.
    """

    withdraw: Callable[[asyncio.Future[Any]], object] | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled and self.withdraw is not None:
            self.withdraw(self)
        return cancelled


class LoopBinding:
    """The event loop that uses a pool, and the results on their way to it.

    Attributes:
        loop: The loop that last used the pool.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._completions: Completions | None = None

    def here(self) -> Completions:
        """Results for the running loop or, if none is running, for the one that would run next."""
        loop = running_loop()
        if loop is self.loop and self._completions is not None:
            return self._completions
        return self.bind(loop or self.near())

    def near(self) -> asyncio.AbstractEventLoop:
        """The running loop, or else the bound one, or else the one that would run next."""
        return running_loop() or _loop_to_run(self.loop)

    def bind(self, loop: asyncio.AbstractEventLoop) -> Completions:
        """Results for ``loop``."""
        self.loop = loop
        self._completions = _completions_of(loop)
        return self._completions


_connected: dict[asyncio.AbstractEventLoop, Completions] = {}


def _completions_of(loop: asyncio.AbstractEventLoop) -> Completions:
    """The results for a loop, made and connected at the first call."""
    known = _connected.get(loop)
    if known is None:
        for other in [other for other in _connected if other.is_closed()]:
            _connected.pop(other).close()
        known = _connected[loop] = Completions(loop, functools.partial(Receipt, loop=loop))
        loop.add_reader(known.fileno(), known.drain)
    return known


def _loop_to_run(bound: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
    if bound is not None and not bound.is_closed():
        return bound
    try:
        with warnings.catch_warnings():
            # Without a loop set, this warns from 3.12 on and raises from 3.14 on.
            warnings.simplefilter("ignore", DeprecationWarning)
            loop = asyncio.get_event_loop()
    except RuntimeError:
        loop = None
    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    return loop


def seconds_of(timeout: Any) -> float | None:
    """Seconds from a number or an ``aiohttp.ClientTimeout`` (its ``total``); ``None`` for no limit.

    Raises:
        TypeError: It is none of these.
        ValueError: It is negative.
    """
    total = getattr(timeout, "total", timeout)
    if total is None:
        return None
    if isinstance(total, bool) or not isinstance(total, int | float):
        raise TypeError(
            "expected a timeout in seconds, an aiohttp.ClientTimeout or None, "
            f"not {type(timeout).__name__}"
        )
    if not total >= 0:
        raise ValueError(f"a timeout of {total} seconds is in the past: expected 0 or more")
    # To aiohttp, a total of 0 means no limit.
    return float(total) if total or total is timeout else None
