"""Many messages between two of our pools through a network that fails all the time."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fault_proxy
import pytest
from fault_proxy import FaultProxy
from genuine_process import free_ports
from party_certificates import Authority, common_name
from pools import MIB, end, introduce, listening, memory, port_of, two

from convelo import Pool
from convelo.exceptions import ReceiveTimeout

PROXY = Path(fault_proxy.__file__)

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    authority = Authority(tmp_path_factory.mktemp("tls"), common_name("faults"))
    return [authority.issue(name, number) for number, name in enumerate(("alice", "bob"), 2)]


@contextmanager
def proxy_process(target: int, *options: str) -> Iterator[tuple[int, dict[str, int]]]:
    """A proxy on another core. Its counts are there when the block has ended."""
    counts: dict[str, int] = {}
    process = subprocess.Popen(
        [sys.executable, str(PROXY), "--target", str(target), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), counts
        out, _ = process.communicate("", timeout=20)
        counts.update(json.loads(out))
    finally:
        process.kill()
        process.wait()


async def stream_of(
    sender: Pool, receiver: Pool, lanes: int, per_lane: int, make: Any = None
) -> None:
    """Sends numbered messages in lanes and checks that each lane arrives whole and in order.

    Lane 0 uses default ids; an even lane one id for all its messages; an odd one an id for each.
    """

    def message_id(lane: int, number: int) -> str | None:
        if lane == 0:
            return None
        return f"lane {lane}" if lane % 2 == 0 else f"lane {lane}, {number}"

    make = make or (lambda lane, number: (lane, number))

    async def send(lane: int) -> None:
        for number in range(per_lane):
            await sender.send("bob", make(lane, number), message_id(lane, number))

    async def receive(lane: int) -> None:
        for number in range(per_lane):
            arrived = await receiver.recv("alice", message_id(lane, number))
            assert arrived == make(lane, number), f"lane {lane}: {number} expected"

    work = [send(lane) for lane in range(lanes)] + [receive(lane) for lane in range(lanes)]
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)
    # What came twice would be left over.
    await asyncio.sleep(0.3)
    assert list(receiver.pool_handlers["alice"].buffer) == []
    for lane in range(lanes):
        with pytest.raises(ReceiveTimeout):
            await receiver.recv("alice", message_id(lane, per_lane - 1 if lane else 0), timeout=0)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_100000_messages_none_lost_none_twice_none_reordered() -> None:
    alice, bob = listening(), listening()
    options = ["--seed", "11"]
    for fault in fault_proxy.FAULTS:
        options += [f"--{fault.replace('_', '-')}", "0.0008"]
    with proxy_process(port_of(bob), *options) as (port, counts):
        introduce(alice, "bob", port)
        introduce(bob, "alice", port_of(alice))
        try:
            await stream_of(alice, bob, lanes=100, per_lane=1000)
        finally:
            await end(alice, bob)
    assert counts["requests"] >= 100_000
    for fault in fault_proxy.FAULTS:
        assert counts[fault] > 25, f"{fault}: {counts}"


@pytest.mark.timeout(120)
async def test_10000_messages_in_both_directions() -> None:
    faults = dict.fromkeys(fault_proxy.FAULTS, 0.004)
    own = free_ports(2)
    to_alice, to_bob = (FaultProxy(port, faults, seed=seed) for seed, port in enumerate(own))
    # Both know each other under the ports of the proxies, as behind mapped ports.
    ports = [await to_alice.start(), await to_bob.start()]
    alice, bob = Pool(), Pool()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        alice.add_http_server(port=own[0], addr="127.0.0.1", external_port=ports[0])
        bob.add_http_server(port=own[1], addr="127.0.0.1", external_port=ports[1])
    introduce(alice, "bob", ports[1])
    introduce(bob, "alice", ports[0])
    sent = {name: [0] * 10 for name in ("alice", "bob")}

    async def talk(pool: Pool, me: str, other: str, lane: int) -> None:
        for number in range(500):
            await pool.send(other, (me, lane, number), f"lane {lane}")
            assert await pool.recv(other, f"lane {lane}") == (other, lane, number)
            sent[me][lane] += 1

    try:
        async with asyncio.TaskGroup() as group:
            for lane in range(10):
                group.create_task(talk(alice, "alice", "bob", lane))
                group.create_task(talk(bob, "bob", "alice", lane))
    finally:
        await end(alice, bob)
        await to_bob.stop()
        await to_alice.stop()
    assert sent == {name: [500] * 10 for name in ("alice", "bob")}
    assert to_bob.counts[fault_proxy.REPLAY] > 0 < to_alice.counts[fault_proxy.DROP_RESPONSE]


@pytest.mark.timeout(120)
async def test_tls_connections_that_are_cut(certificates: list[dict[str, str]]) -> None:
    alice, bob = (listening(tls) for tls in certificates)
    with proxy_process(port_of(bob), "--bytes-until-cut", "60000") as (port, counts):
        introduce(alice, "bob", port, certificates[1])
        introduce(bob, "alice", port_of(alice), certificates[0])
        try:
            await stream_of(alice, bob, lanes=20, per_lane=500)
        finally:
            await end(alice, bob)
    assert counts["cuts"] > 10


@pytest.mark.timeout(120)
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
async def test_large_messages_go_on_where_they_were_cut(
    secured: bool, certificates: list[dict[str, str]]
) -> None:
    """Connections live for 20 MB on average: sent from the start each time, 40 MB would take many
    attempts, and the network would carry a multiple of it."""
    tls = certificates if secured else [None, None]  # type: ignore[list-item]
    alice, bob = (listening(one) for one in tls)
    content = random.Random(5).randbytes(1000) * 40_000
    with proxy_process(port_of(bob), "--bytes-until-cut", "20000000", "--seed", "2") as (
        port,
        counts,
    ):
        introduce(alice, "bob", port, tls[1])
        introduce(bob, "alice", port_of(alice), tls[0])
        try:
            for number in range(8):
                sending = asyncio.create_task(alice.send("bob", content, number))
                assert await bob.recv("alice", number) == content
                await sending
        finally:
            await end(alice, bob)
    assert counts["cuts"] > 3


@pytest.mark.timeout(120)
async def test_16_parties_all_to_all() -> None:
    pools = [listening() for _ in range(16)]
    for me, pool in enumerate(pools):
        for other, peer in enumerate(pools):
            if other != me:
                introduce(pool, f"party {other}", port_of(peer))

    async def take_part(me: int, pool: Pool) -> None:
        others = [f"party {other}" for other in range(16) if other != me]
        for number in range(20):
            await pool.broadcast((me, number, b"x" * 1000), f"round {number}")
            received = await pool.recv_all(others, f"round {number}")
            assert received == [
                (f"party {other}", (other, number, b"x" * 1000))
                for other in range(16)
                if other != me
            ]
            for name in others:
                await pool.send(name, (me, number))
            for name in others:
                assert await pool.recv(name) == (int(name.split()[1]), number)

    try:
        async with asyncio.TaskGroup() as group:
            for me, pool in enumerate(pools):
                group.create_task(take_part(me, pool))
    finally:
        await end(*pools)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_no_growth_over_a_million_messages() -> None:
    count, warm = 1_000_000, 100_000
    in_flight = 128
    async with two() as (alice, bob):
        numbers = iter(range(count))
        memory_after_warming = 0

        async def send() -> None:
            for number in numbers:
                await alice.send("bob", b"x" * 100, number)

        async def receive() -> None:
            nonlocal memory_after_warming
            for number in range(count):
                await bob.recv("alice", number)
                if number == warm:
                    memory_after_warming = memory()

        async with asyncio.TaskGroup() as group:
            group.create_task(receive())
            for _ in range(in_flight):
                group.create_task(send())
        growth = memory() - memory_after_warming
    # 900,000 messages later: a leak of 16 bytes each would be 14 MB.
    assert growth < 8 * MIB, f"grew by {growth / MIB:.1f} MiB"


async def test_cutting_everything_while_a_receive_waits() -> None:
    alice, bob = listening(), listening()
    proxy = FaultProxy(port_of(bob))
    introduce(alice, "bob", await proxy.start())
    introduce(bob, "alice", port_of(alice))
    try:
        await alice.send("bob", "before")
        assert await bob.recv("alice") == "before"
        waiting = asyncio.create_task(bob.recv("alice"))
        for _ in range(5):
            await asyncio.sleep(0.02)
            proxy.cut_all()
        await alice.send("bob", "after")
        assert await waiting == "after"
    finally:
        await end(alice, bob)
        await proxy.stop()
