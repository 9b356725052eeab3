"""What a genuine suite needs of pytest, and what is left out of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from convelo.compat.tno5 import remember_ssl_files


class GenuineSuite:
    """A plugin for one run.

    Args:
        suite: Where the tests are.
        expected: How many there are; fewer are an error, so that a suite cannot vanish.
        left_out: Names of tests that are not run, and why.
        is_whole: Whether all tests are collected.
    """

    def __init__(
        self, suite: Path, expected: int, left_out: Mapping[str, str], *, is_whole: bool
    ) -> None:
        self._expected = expected
        self._left_out = left_out
        self._is_whole = is_whole

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        if self._is_whole and len(items) < self._expected:
            raise pytest.UsageError(f"{len(items)} tests instead of {self._expected} were found")
        unknown = set(self._left_out) - {item.name for item in items}
        if self._is_whole and unknown:
            raise pytest.UsageError(f"left out, but not there: {', '.join(sorted(unknown))}")
        for item in items:
            if item.name in self._left_out:
                item.add_marker(pytest.mark.skip(reason=self._left_out[item.name]))

    @pytest.fixture(scope="session", autouse=True)
    def _remembered(self) -> Iterator[None]:
        # The suite of 5.0.4 makes contexts of Python's ssl.
        with remember_ssl_files():
            yield

    @pytest.fixture
    def _enable_port_reuse(self) -> Callable[[], contextlib.AbstractContextManager[None]]:
        # There it patches aiohttp; here a port is free as soon as it is closed.
        return contextlib.nullcontext
