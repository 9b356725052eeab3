"""A pytest plugin with groups of connected pools; installing convelo makes it available.

::

    async def test_protocol(http_pool_duo):
        alice, bob = http_pool_duo
        await alice.send("local1", 3)
        assert await bob.recv("local0") == 3

Pool ``i`` of a group is known to the others as ``local<i>``. All listen on free ports of 127.0.0.1.

Fixtures: ``http_pool_duo``, ``http_pool_trio``, and ``http_pool_group_factory``, which takes the
number of pools. ``--fixture-pool-scope`` sets the scope of all of them; a pool may be used
from any event loop, so the scope need not match that of pytest-asyncio's loops.

With the ini option ``convelo_pool_api = 5``, the pools have the API of 5.0 (the factory must then
be awaited, and pools are reset for each test). ``mock_pool_duo``, ``mock_pool_trio`` and
``mock_pool_group_factory`` are always available.

Another plugin with this option is that of the genuine package. Where it is present, however it was
loaded, all of these names are its own.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
from collections.abc import Iterator
from typing import Any, Literal, cast

import pytest

__all__ = ["Scope", "determine_pool_scope", "pool_api"]

_OPTION = "--fixture-pool-scope"
_INI = "convelo_pool_api"
_GROUP = "convelo"
_FIXTURES = "convelo.fixtures"

Scope = Literal["function", "class", "module", "package", "session"]
SCOPES: tuple[Scope, ...] = ("function", "class", "module", "package", "session")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Adds the ini option. The option follows when all other plugins have added theirs."""
    parser.addini(_INI, "the API of the pool fixtures: 4 (default) or 5", default="4")
    for plugin in pluginmanager.get_plugins():
        named = getattr(plugin, "pytest_plugins", ())
        named = [named] if isinstance(named, str) else list(named)
        if __name__ in named:
            # A conftest names us: then the hook below is running already.
            for other in named:
                pluginmanager.import_plugin(other)
            _add_option(parser)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Iterator[None]:
    """Adds the option after the last plugin that may have it too was loaded."""
    if _OPTION in args[:-1] and not _is_taken(parser):
        # pytest did not know it yet and took its value for a path.
        paths = early_config.known_args_namespace.file_or_dir
        value = args[args.index(_OPTION) + 1]
        paths[:] = [path for path in paths if path != value]
    yield
    _add_option(parser)


def _add_option(parser: pytest.Parser) -> None:
    if not _is_taken(parser):
        parser.getgroup(_GROUP).addoption(
            _OPTION,
            default=None,
            choices=SCOPES,
            help="scope of the pool fixtures (function)",
        )


def _is_taken(parser: pytest.Parser, *, by_another: bool = False) -> bool:
    """Whether the option is there. Only the parser knows: a plugin may be named by ``-p`` or
    ``pytest_plugins``, and then no package's metadata mentions it."""
    groups: list[Any] = [*getattr(parser, "_groups"), getattr(parser, "_anonymous")]  # noqa: B009
    return any(
        _OPTION in known.names()
        for group in groups
        if not (by_another and group.name == _GROUP)
        for known in group.options
    )


def pytest_configure(config: pytest.Config) -> None:
    """Defines the fixtures, unless the genuine plugin does.

    Also widens the scope of the ``event_loop`` fixture of pytest-asyncio before 0.23 with ours.
    """
    if config.getini(_INI) not in ("4", "5"):
        raise pytest.UsageError(f"expected {_INI} to be 4 or 5, not {config.getini(_INI)}")
    if _is_taken(getattr(config, "_parser"), by_another=True):  # noqa: B009
        return
    config.pluginmanager.register(importlib.import_module(_FIXTURES), _FIXTURES)
    scope = config.getoption(_OPTION, None)
    if scope in (None, "function"):
        return
    try:
        version = importlib.metadata.version("pytest-asyncio")
    except importlib.metadata.PackageNotFoundError:
        return
    if tuple(int(part) for part in version.split(".")[:2]) < (0, 23):
        plugin = importlib.import_module("pytest_asyncio.plugin")
        plugin.event_loop = pytest.fixture(scope=scope)(_event_loop)  # type: ignore[attr-defined]


def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def determine_pool_scope(fixture_name: str, config: pytest.Config) -> Scope:
    """The scope of the pool fixtures, for use as ``pytest.fixture(scope=determine_pool_scope)``."""
    del fixture_name
    option = config.getoption(_OPTION, None)
    if option is None and pool_api(config) == 5:
        try:
            option = config.getini("asyncio_default_fixture_loop_scope")
        except (KeyError, ValueError):
            option = None
    return cast(Scope, option or "function")


def pool_api(config: pytest.Config) -> int:
    """Which API the pools have: 4 or 5."""
    return int(config.getini(_INI))


def __getattr__(name: str) -> Any:
    # For those who import fixtures by name. As members, pytest would find them here.
    if name.startswith(("http_pool_", "mock_pool_", "_pool_factory")):
        return getattr(importlib.import_module(_FIXTURES), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
