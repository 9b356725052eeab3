"""Links between our package, in this process, and genuine packages in processes of their own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "kit"))

import sample_values
from genuine_process import GenuinePeer, free_ports
from interop_support import GENUINE, api_of
from party_certificates import Authority, common_name
from pool_party import Party

SECONDS_PER_CALL = 90.0


def interpreter(version: str) -> Path:
    """The genuine package's Python. Without it the test is skipped, under xtask it fails."""
    given = os.environ.get("CONVELO_GENUINE")
    root = Path(__file__).parents[3]
    python = root / (given or "target/python") / f"genuine-{version}" / "bin" / "python"
    if not python.exists():
        reason = (
            f"{GENUINE} {version} is not installed in {python.parent.parent}: "
            "run cargo xtask python --genuine"
        )
        if given:
            pytest.fail(reason)
        pytest.skip(reason)
    return python


class Runner:
    """An event loop that lives through many tests and runs while one of them waits."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def __call__(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(asyncio.wait_for(work, SECONDS_PER_CALL))

    def close(self) -> None:
        self._runner.close()


@pytest.fixture(scope="session")
def run() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What parties 0, 1 and 2 present with TLS."""
    authority = Authority(tmp_path_factory.mktemp("tls"), common_name("interop authority"))
    return [authority.issue(f"party{index}", 1000 + index) for index in range(3)]


class Network:
    """Parties by name, each knowing all others; the first of them is ours.

    Attributes:
        ports: The parties', in order.
        unpinned: Whether nobody has the others' certificates.
    """

    def __init__(self, run: Runner, certificates: list[dict[str, str]] | None) -> None:
        self.run = run
        self._certificates = certificates
        self.ports = free_ports(3)
        self.unpinned = False
        self._names = ["ours", "theirs", "others"]

    def _options(self, index: int, count: int) -> dict[str, Any]:
        tls = self._certificates
        known = None if self.unpinned else tls
        peers = {
            self._names[other]: (self.ports[other], known[other]["cert"] if known else None)
            for other in range(count)
            if other != index
        }
        return {"port": self.ports[index], "peers": peers, "tls": tls[index] if tls else None}

    def ours(self, module: str, api: int, count: int = 2, **more: Any) -> Party:
        party = Party(module, api, **self._options(0, count), **more)
        party.register_classes()
        return party

    def genuine(self, version: str, index: int = 1, count: int = 2) -> GenuinePeer:
        return GenuinePeer(
            interpreter(version),
            module=GENUINE,
            api=api_of(version),
            **self._options(index, count),
        )


@pytest.fixture(scope="session")
def network(run: Runner, certificates: list[dict[str, str]]) -> Callable[[bool], Network]:
    """Makes a network with or without TLS."""
    return lambda tls: Network(run, certificates if tls else None)


class Expected:
    """What arrives when both parties are the genuine package. Asked once per session."""

    def __init__(self, network: Callable[[bool], Network], run: Runner) -> None:
        self._network, self._run = network, run
        self._known: dict[str, dict[str, Any]] = {}

    def of(self, version: str, name: str) -> Any:
        if version not in self._known:
            self._known[version] = self._run(self._ask(version))
        return self._known[version][name]

    async def _ask(self, version: str) -> dict[str, Any]:
        network = self._network(False)
        sender, receiver = network.genuine(version, 0), network.genuine(version, 1)
        arrived = {}
        try:
            await asyncio.gather(sender.start(), receiver.start())
            for name in sample_values.names(version):
                # None that is there before recv is lost by the 4.x line.
                coming = receiver.call("recv", of="ours", id=name, timeout=20)
                await asyncio.sleep(0.005 if name != "none" else 0.3)
                await sender.send("theirs", name, name)
                arrived[name] = await coming
        finally:
            await asyncio.gather(sender.stop(), receiver.stop())
        return arrived


@pytest.fixture(scope="session")
def expected(network: Callable[[bool], Network], run: Runner) -> Expected:
    return Expected(network, run)

