"""Fixtures that make groups of connected pools, with and without TLS."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from convelo import pki
from convelo.compat.tno.pool import Pool
from convelo.testing import Scope

_PoolsFixture = Callable[..., Iterator[tuple[Pool, ...]]]


@pytest.fixture(scope="module")
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop for a whole module, where pytest-asyncio still asks for this fixture."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def _connected(
    count: int, directory: Path | None, *, certificates_identify: bool = False
) -> tuple[Pool, ...]:
    """Pools on free ports of 127.0.0.1; with TLS if there is a directory for the certificates."""
    pools: list[Pool] = []
    if directory is None:
        pools = [Pool() for _ in range(count)]
    else:
        pki.new_authority(directory)
        for index in range(count):
            pki.issue(directory, f"party_{index}")
            pools.append(
                Pool(
                    directory / f"party_{index}.key",
                    directory / f"party_{index}.crt",
                    directory / "ca.crt",
                )
            )
    for pool in pools:
        pool.add_http_server(0, "127.0.0.1")
    for pool, (index, other) in itertools.product(pools, enumerate(pools)):
        if pool is not other:
            assert other.http_server is not None
            cert = other.cert if certificates_identify else None
            pool.add_http_client(f"local{index}", "127.0.0.1", other.http_server.port, cert)
    return tuple(pools)


def _plain(count: int) -> _PoolsFixture:
    @pytest.fixture(name=f"pool_http_{count}p", scope="module")
    def pools() -> Iterator[tuple[Pool, ...]]:
        made = _connected(count, None)
        yield made
        for pool in made:
            pool.abort()

    return cast(_PoolsFixture, pools)


def _secure(
    count: int, name: str, *, certificates_identify: bool = False, scope: Scope = "function"
) -> _PoolsFixture:
    @pytest.fixture(name=name, scope=scope)
    def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pool, ...]]:
        made = _connected(
            count, tmp_path_factory.mktemp("pki"), certificates_identify=certificates_identify
        )
        yield made
        for pool in made:
            pool.abort()

    return cast(_PoolsFixture, pools)


fixture_pool_http_2p = _plain(2)
fixture_pool_http_3p = _plain(3)
fixture_pool_http_4p = _plain(4)
fixture_pool_http_5p = _plain(5)
fixture_pool_https_2p = _secure(2, "pool_https_2p")
fixture_pool_https_3p = _secure(3, "pool_https_3p")
fixture_pool_https_3p_certs_as_id = _secure(
    3, "pool_https_3p_certs_as_id", certificates_identify=True
)
fixture_pool_https_4p = _secure(4, "pool_https_4p")
fixture_pool_https_5p = _secure(5, "pool_https_5p")
