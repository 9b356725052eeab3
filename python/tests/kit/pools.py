"""Pools of our package that know each other, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from convelo import Pool

MIB = 1 << 20


def memory(field: str = "VmRSS") -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def listening(tls: dict[str, str] | None = None, port: int = 0, **options: Any) -> Pool:
    """A pool with a server on a free port."""
    pool = Pool(**(tls or {}), **options)
    pool.add_http_server(port=port, addr="127.0.0.1")
    return pool


def port_of(pool: Pool) -> int:
    assert pool.http_server is not None
    return pool.http_server.port


async def end(*pools: Pool) -> None:
    """Shuts down; what a test left on its way is none of its business."""
    for pool in pools:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(pool.shutdown(flush=0), 10)


@contextlib.asynccontextmanager
async def two(
    tls: list[dict[str, str]] | None = None, **options: Any
) -> AsyncIterator[tuple[Pool, Pool]]:
    """Alice and Bob: ``pool_handlers`` of each has the other by name, ``alice`` and ``bob``."""
    alice = listening(tls[0] if tls else None, **options)
    bob = listening(tls[1] if tls else None, **options)
    introduce(alice, "bob", port_of(bob), tls[1] if tls else None)
    introduce(bob, "alice", port_of(alice), tls[0] if tls else None)
    try:
        yield alice, bob
    finally:
        await end(alice, bob)


def introduce(
    pool: Pool, name: str, port: int, tls: dict[str, str] | None = None, **options: Any
) -> None:
    if tls:
        options["cert"] = tls["cert"]
    pool.add_http_client(name, "127.0.0.1", port=port, **options)
