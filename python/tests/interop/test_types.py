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

LINKS = [(version, tls) for version in VERSIONS for tls in (False, True)]
CASES = [
    # pytest keeps a link open while its parameter is the same object.
    pytest.param(link, name, id=f"{link[0]}-{'tls' if link[1] else 'plain'}-{name}")
    for link in LINKS
    for name in sample_values.names(link[0])
]


class Link:
    def __init__(self, version: str, ours: Party, theirs: GenuinePeer) -> None:
        self.version, self.ours, self.theirs = version, ours, theirs


@pytest.fixture(scope="module")
def link(
    request: pytest.FixtureRequest, network: Callable[[bool], Any], run: Any
) -> Iterator[Link]:
    version, tls = request.param
    net = network(tls)
    theirs = net.genuine(version)
    ours = net.ours(facade_of(version), api_of(version))

    async def start() -> None:
        await theirs.start()
        await ours.start()

    async def stop() -> None:
        await theirs.stop()
        await ours.stop()

    run(start())
    yield Link(version, ours, theirs)
    run(stop())


@pytest.mark.parametrize(("link", "name"), CASES, indirect=["link"])
def test_ours_to_genuine(link: Link, name: str, expected: Any, run: Any) -> None:
    wanted = expected.of(link.version, name)

    async def exchange() -> Any:
        coming = link.theirs.call("recv", of="ours", id=f"to {name}", timeout=20)
        if name == "none":
            # Genuine 4.x loses a None that is there before recv.
            await asyncio.sleep(0.3)
        await link.ours.send("theirs", sample_values.VALUES[name](), f"to {name}")
        return await coming

    assert run(exchange()) == wanted


@pytest.mark.parametrize(("link", "name"), CASES, indirect=["link"])
def test_genuine_to_ours(link: Link, name: str, expected: Any, run: Any) -> None:
    wanted = expected.of(link.version, name)

    async def exchange() -> Any:
        await link.theirs.send("ours", name, f"from {name}")
        return await link.ours.recv("theirs", f"from {name}")

    arrived = sample_values.describe(run(exchange()))
    # Through JSON, as what the genuine process says.
    assert jsonified(arrived) == wanted


def jsonified(value: Any) -> Any:
    return json.loads(json.dumps(value))
