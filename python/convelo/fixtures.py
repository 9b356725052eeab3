"""The fixtures of :mod:`convelo.testing`, which registers this module as a plugin."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import pytest

from convelo.testing import Scope, determine_pool_scope, pool_api

if TYPE_CHECKING:
    from convelo.compat import tno, tno5

__all__ = [
    "http_pool_duo",
    "http_pool_group_factory",
    "http_pool_trio",
    "mock_pool_duo",
    "mock_pool_group_factory",
    "mock_pool_trio",
]

_Factory = Callable[..., Any]


def _given_scope(fixture_name: str, config: pytest.Config) -> Scope:
    # Pools of the 5.0 API are reset for each test.
    return "function" if pool_api(config) == 5 else determine_pool_scope(fixture_name, config)


@pytest.fixture(scope=determine_pool_scope)
def _pool_factory() -> Iterator[Callable[..., tno.Pool]]:
    """Makes pools of the 4.8 API, and ends them."""
    from convelo.compat.tno import Pool

    pools: list[tno.Pool] = []

    def make(*arguments: Any, **keywords: Any) -> tno.Pool:
        pools.append(Pool(*arguments, **keywords))
        return pools[-1]

    yield make
    _end(pools)


@pytest.fixture(scope=determine_pool_scope)
def _pool_factory_5() -> Iterator[Callable[..., tno5.Pool]]:
    from convelo.compat.tno5 import Pool

    pools: list[tno5.Pool] = []

    def make(name: str, communicator: Any) -> tno5.Pool:
        # As in the genuine fixtures: on a slow machine, a receive takes as long as it takes.
        pools.append(Pool(name, communicator, timeout=None))
        return pools[-1]

    yield make
    _end(pools)


def _end(pools: Sequence[tno.Pool | tno5.Pool]) -> None:
    errors: list[Exception] = []
    for pool in pools:
        try:
            pool.abort()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


@pytest.fixture(scope=determine_pool_scope)
def _http_groups(request: pytest.FixtureRequest) -> Callable[[int], tuple[tno.Pool, ...]]:
    pool_factory: _Factory = request.getfixturevalue("_pool_factory")
    groups: dict[int, tuple[tno.Pool, ...]] = {}

    def group(count: int) -> tuple[tno.Pool, ...]:
        _check(count)
        if count not in groups:
            groups[count] = tuple(pool_factory() for _ in range(count))
            for pool in groups[count]:
                pool.add_http_server(0, "127.0.0.1")
            for pool, (index, other) in itertools.product(groups[count], enumerate(groups[count])):
                if pool is not other:
                    assert other.http_server is not None
                    pool.add_http_client(f"local{index}", "127.0.0.1", other.http_server.port)
        return groups[count]

    return group


def _groups_5(
    pool_factory: _Factory,
    make: Callable[[int], tuple[Any, Callable[[], Any]]],
) -> Callable[[int], tuple[tno5.Pool, ...]]:
    groups: dict[int, tuple[tno5.Pool, ...]] = {}

    def group(count: int) -> tuple[tno5.Pool, ...]:
        _check(count)
        if count not in groups:
            made = [make(index) for index in range(count)]
            groups[count] = tuple(
                pool_factory(f"local{index}", communicator)
                for index, (communicator, _) in enumerate(made)
            )
            for pool, (index, (communicator, connection)) in itertools.product(
                groups[count], enumerate(made)
            ):
                if pool.communicator is not communicator:
                    pool.add_client(f"local{index}", connection())
            for pool in groups[count]:
                _at_once(pool.initialize())
        for pool in groups[count]:
            pool.reset()
        return groups[count]

    return group


@pytest.fixture(scope=determine_pool_scope)
def _http_groups_5(request: pytest.FixtureRequest) -> Callable[[int], tuple[tno5.Pool, ...]]:
    from convelo.compat.tno5 import HttpCommunicator, HttpConnection

    def make(index: int) -> tuple[HttpCommunicator, Callable[[], HttpConnection]]:
        communicator = HttpCommunicator("127.0.0.1", 0)
        communicator.listen()
        return communicator, lambda: HttpConnection("127.0.0.1", communicator.port)

    return _groups_5(request.getfixturevalue("_pool_factory_5"), make)


@pytest.fixture(scope=determine_pool_scope)
def _mock_groups_5(request: pytest.FixtureRequest) -> Callable[[int], tuple[tno5.Pool, ...]]:
    from convelo.compat.tno5 import MockCommunicator, MockConnection

    def make(index: int) -> tuple[MockCommunicator, Callable[[], MockConnection]]:
        communicator = MockCommunicator(f"local{index}")
        return communicator, lambda: MockConnection(communicator)

    return _groups_5(request.getfixturevalue("_pool_factory_5"), make)


def _at_once(work: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine that never waits, whether or not a loop is running."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise RuntimeError("initialize had to wait for something")


def _check(count: int) -> None:
    if count < 1:
        raise ValueError(f"expected at least one pool in a group, not {count}")


def _awaited(
    group: Callable[[int], tuple[tno5.Pool, ...]],
) -> Callable[[int], Awaitable[tuple[tno5.Pool, ...]]]:
    async def factory(n_pools: int) -> tuple[tno5.Pool, ...]:
        return group(n_pools)

    return factory


@pytest.fixture(scope=_given_scope)
def http_pool_group_factory(
    request: pytest.FixtureRequest,
) -> Callable[[int], Any]:
    """Called with a number, returns that many pools; the same ones for the same number."""
    if pool_api(request.config) == 5:
        return _awaited(request.getfixturevalue("_http_groups_5"))
    return cast(Callable[[int], Any], request.getfixturevalue("_http_groups"))


@pytest.fixture(scope=_given_scope)
def http_pool_duo(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Two pools that know each other."""
    return cast(tuple[Any, Any], _http(request, 2))


@pytest.fixture(scope=_given_scope)
def http_pool_trio(request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    """Three pools that know each other."""
    return cast(tuple[Any, Any, Any], _http(request, 3))


def _http(request: pytest.FixtureRequest, count: int) -> tuple[Any, ...]:
    groups = "_http_groups_5" if pool_api(request.config) == 5 else "_http_groups"
    return cast(tuple[Any, ...], request.getfixturevalue(groups)(count))


@pytest.fixture
def mock_pool_group_factory(
    _mock_groups_5: Callable[[int], tuple[tno5.Pool, ...]],
) -> Callable[[int], Awaitable[tuple[tno5.Pool, ...]]]:
    """Like ``http_pool_group_factory`` of the 5.0 API, without a network."""
    return _awaited(_mock_groups_5)


@pytest.fixture
def mock_pool_duo(
    _mock_groups_5: Callable[[int], tuple[tno5.Pool, ...]],
) -> tuple[tno5.Pool, tno5.Pool]:
    """Two pools of the 5.0 API, connected without a network."""
    return cast("tuple[tno5.Pool, tno5.Pool]", _mock_groups_5(2))


@pytest.fixture
def mock_pool_trio(
    _mock_groups_5: Callable[[int], tuple[tno5.Pool, ...]],
) -> tuple[tno5.Pool, tno5.Pool, tno5.Pool]:
    """Three pools of the 5.0 API, connected without a network."""
    return cast("tuple[tno5.Pool, tno5.Pool, tno5.Pool]", _mock_groups_5(3))
