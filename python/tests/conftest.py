"""Makes the kit importable, and links pools for the tests of the facades."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "kit"))

from convelo import Pool

Connect = Callable[..., tuple[Pool, Pool]]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes two pools that know each other as ``alice`` and ``bob``; ``wire`` forces one."""
    made: list[Pool] = []

    def connect(wire: int | None = None, **arguments: object) -> tuple[Pool, Pool]:
        alice, bob = Pool(**arguments), Pool(**arguments)
        made.extend((alice, bob))
        for pool in (alice, bob):
            pool.add_http_server(0, "127.0.0.1")
        assert alice.http_server is not None and bob.http_server is not None
        alice.add_http_client("bob", "127.0.0.1", bob.http_server.port, wire=wire)
        bob.add_http_client("alice", "127.0.0.1", alice.http_server.port, wire=wire)
        return alice, bob

    yield connect
    for pool in made:
        pool.abort()


@pytest.fixture(params=[None, 4], ids=["second wire", "compatible wire"])
def duo(request: pytest.FixtureRequest, connect: Connect) -> tuple[Pool, Pool]:
    """Two pools, on each wire."""
    return connect(request.param)
