"""The proxy itself: each fault does what it is named after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import fault_proxy
import pytest
from fault_proxy import FaultProxy
from raw_http import RawPeer, body_4, post

BODY = body_4("value", "id")

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def behind(**options: object) -> AsyncIterator[tuple[RawPeer, FaultProxy, int]]:
    peer = RawPeer()
    proxy = FaultProxy(await peer.start(), **options)  # type: ignore[arg-type]
    try:
        yield peer, proxy, await proxy.start()
    finally:
        await proxy.stop()
        await peer.stop()


async def test_passes_on() -> None:
    async with behind() as (peer, proxy, port):
        assert await post(port, BODY, 1) == (200, b"Message received")
        assert peer.bodies == [BODY]
        assert proxy.counts == {"connections": 1, "requests": 1}


@pytest.mark.parametrize(
    ("fault", "answered", "arrivals"),
    [
        (fault_proxy.CUT_REQUEST, False, 0),
        (fault_proxy.DROP_REQUEST, False, 0),
        (fault_proxy.CUT_RESPONSE, False, 1),
        (fault_proxy.DROP_RESPONSE, False, 1),
        (fault_proxy.DUPLICATE, True, 2),
        (fault_proxy.REPLAY, True, 2),
        (fault_proxy.DELAY, True, 1),
    ],
)
async def test_fault(fault: str, answered: bool, arrivals: int) -> None:
    async with behind() as (peer, proxy, port):
        proxy.next_faults.append(fault)
        if answered:
            assert await post(port, BODY, 1) == (200, b"Message received")
        else:
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await post(port, BODY, 1)
        await asyncio.sleep(0.1)
        assert peer.bodies == [BODY] * arrivals
        assert proxy.counts[fault] == 1
        # Only that one request was affected.
        assert await post(port, BODY, 1) == (200, b"Message received")


async def test_the_same_seed_makes_the_same_choices() -> None:
    chosen = []
    for _ in range(2):
        proxy = FaultProxy(1, {fault: 0.1 for fault in fault_proxy.FAULTS}, seed=7)
        chosen.append([proxy._fault(b"POST") for _ in range(1000)])
    assert chosen[0] == chosen[1]
    assert set(chosen[0]) == {None, *fault_proxy.FAULTS}


async def test_cuts_after_bytes() -> None:
    async with behind(bytes_until_cut=2000, seed=3) as (peer, proxy, port):
        outcomes = set()
        for _ in range(50):
            try:
                outcomes.add((await post(port, body_4(b"x" * 1000, "id"), 1))[0])
            except (OSError, asyncio.IncompleteReadError):
                outcomes.add(0)
        assert outcomes == {200, 0}
        assert proxy.counts["cuts"] > 0
        assert 0 < len(peer.bodies) < 50


async def test_an_unknown_fault_is_an_error() -> None:
    with pytest.raises(ValueError, match="earthquake"):
        FaultProxy(1, {"earthquake": 0.1})
