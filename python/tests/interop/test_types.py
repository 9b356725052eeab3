"""Every type, to and from every genuine version, plain and with mutual TLS.

What must arrive is what arrives between two genuine parties of that version.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sample_values
from genuine_process import GenuinePeer
from interop_support import VERSIONS, api_of, facade_of
from pool_party import Party

CASES = [
    pytest.param(version, tls, name, id=f"{version}-{'tls' if tls else 'plain'}-{name}")
    for version in VERSIONS
    for tls in (False, True)
    for name in sample_values.names(version)
]
every_case = pytest.mark.parametrize(("version", "tls", "name"), CASES)


class Links:
    """A party of ours and a genuine one per version, made when first asked for."""

    def __init__(self, network: Callable[[bool], Any], run: Any) -> None:
        self._network, self._run = network, run
        self._known: dict[tuple[str, bool], tuple[Party, GenuinePeer]] = {}

    def of(self, version: str, tls: bool) -> tuple[Party, GenuinePeer]:
        known = self._known.get((version, tls))
        if known is None:
            net = self._network(tls)
            theirs = net.genuine(version)
            ours = net.ours(facade_of(version), api_of(version))
            # Kept before it works, so that it is stopped in any case.
            known = self._known[version, tls] = ours, theirs
            self._run(theirs.start())
            self._run(ours.start())
        return known

    def stop(self) -> None:
        for ours, theirs in self._known.values():
            self._run(theirs.stop())
            self._run(ours.stop())


@pytest.fixture(scope="module")
def links(network: Callable[[bool], Any], run: Any) -> Iterator[Links]:
    made = Links(network, run)
    yield made
    made.stop()


@every_case
def test_ours_to_genuine(
    version: str, tls: bool, name: str, links: Links, expected: Any, run: Any
) -> None:
    wanted = expected.of(version, name)
    ours, theirs = links.of(version, tls)

    async def exchange() -> Any:
        coming = theirs.call("recv", of="ours", id=f"to {name}", timeout=20)
        if name == "none":
            # Genuine 4.x loses a None that is there before recv.
            await asyncio.sleep(0.3)
        await ours.send("theirs", sample_values.VALUES[name](), f"to {name}")
        return await coming

    assert run(exchange()) == wanted


@every_case
def test_genuine_to_ours(
    version: str, tls: bool, name: str, links: Links, expected: Any, run: Any
) -> None:
    wanted = expected.of(version, name)
    ours, theirs = links.of(version, tls)

    async def exchange() -> Any:
        await theirs.send("ours", name, f"from {name}")
        return await ours.recv("theirs", f"from {name}")

    arrived = sample_values.describe(run(exchange()))
    # Through JSON, as what the genuine process says.
    assert json.loads(json.dumps(arrived)) == wanted
