"""Ids, prefixes, groups and orders of starting, with every genuine version."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sample_values
from genuine_process import GenuinePeer, PeerFailed
from interop_support import VERSIONS, api_of, facade_of
from pool_party import Party
from raw_http import body_5, post

every_version = pytest.mark.parametrize("version", VERSIONS)
plain_and_tls = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
FOUR = tuple(version for version in VERSIONS if api_of(version) == 4)

NetworkOf = Callable[[bool], Any]


@asynccontextmanager
async def linked(
    net: Any, version: str, ours: Party | None = None
) -> AsyncIterator[tuple[Party, GenuinePeer]]:
    theirs = net.genuine(version)
    ours = ours or net.ours(facade_of(version), api_of(version))
    try:
        await theirs.start()
        await ours.start()
        yield ours, theirs
    finally:
        await theirs.stop()
        await ours.stop()


@every_version
@plain_and_tls
def test_default_ids_count_in_both_directions(
    version: str, tls: bool, network: NetworkOf, run: Any
) -> None:
    async def exchange() -> None:
        async with linked(network(tls), version) as (ours, theirs):
            sent = theirs.call("send_numbers", to="ours", count=50)
            received = theirs.call("recv_numbers", of="ours", count=50)
            for number in range(50):
                await ours.send("theirs", number)
            assert [await ours.recv("theirs") for _ in range(50)] == list(range(50))
            assert await received == list(range(50))
            await sent

    run(exchange())


@every_version
def test_chosen_ids_arrive_in_any_order(version: str, network: NetworkOf, run: Any) -> None:
    ids: list[int | str] = ["a", "42", "\u00fc", "with space", "x" * 200]
    if api_of(version) == 4:
        ids += [0, 42, -7, 2**63 - 1]

    async def exchange() -> None:
        async with linked(network(False), version) as (ours, theirs):
            for position, message_id in enumerate(ids):
                await ours.send("theirs", position, message_id)
                await theirs.send("ours", "int", message_id)
            for position, message_id in reversed(list(enumerate(ids))):
                wanted = sample_values.describe(position)
                assert await theirs.recv("ours", message_id) == wanted
                assert await ours.recv("theirs", message_id) == 5

    run(exchange())


@pytest.mark.parametrize("version", FOUR)
def test_prefix(version: str, network: NetworkOf, run: Any) -> None:
    async def exchange() -> None:
        async with linked(network(False), version) as (ours, theirs):
            ours.pool.update_msg_prefix("round one/")
            await theirs.call("prefix", prefix="round one/")
            await ours.send("theirs", "first", "a")
            await ours.send("theirs", "second")
            await theirs.send("ours", "str", 7)
            assert await theirs.recv("ours", "a") == ["str", "first"]
            # The default id counts on; with a chosen one it was advanced too.
            assert await theirs.recv("ours") == ["str", "second"]
            assert await ours.recv("theirs", 7) == "hello"

    run(exchange())


@every_version
@plain_and_tls
def test_broadcast_and_recv_all_of_three(
    version: str, tls: bool, network: NetworkOf, run: Any
) -> None:
    async def exchange() -> None:
        net = network(tls)
        ours = net.ours(facade_of(version), api_of(version), count=3)
        peers = [net.genuine(version, index, 3) for index in (1, 2)]
        try:
            await asyncio.gather(*(peer.start() for peer in peers))
            await ours.start()
            await ours.broadcast(["to", "all"], "b")
            await asyncio.gather(
                peers[0].call("broadcast", value="dict", id="b", to=["ours", "others"]),
                peers[1].call("broadcast", value="tuple", id="b", to=["ours", "theirs"]),
            )
            received = await ours.recv_all("b")
            values = sample_values.VALUES
            assert received == [("others", values["tuple"]()), ("theirs", values["dict"]())]
            wanted = [
                ["others", sample_values.describe(values["tuple"]())],
                ["ours", sample_values.describe(["to", "all"])],
            ]
            assert await peers[0].call("recv_all", id="b", of=["others", "ours"]) == wanted
        finally:
            await asyncio.gather(*(peer.stop() for peer in peers))
            await ours.stop()

    run(exchange())


@pytest.mark.parametrize("version", FOUR)
@plain_and_tls
def test_we_start_and_send_first(version: str, tls: bool, network: NetworkOf, run: Any) -> None:
    async def exchange() -> None:
        net = network(tls)
        theirs, ours = net.genuine(version), net.ours(facade_of(version), 4)
        try:
            await theirs.spawn()
            await ours.start()
            sending = asyncio.create_task(ours.send("theirs", "early"))
            await asyncio.sleep(1.0)
            assert not sending.done()
            await theirs.start()
            assert await theirs.recv("ours") == ["str", "early"]
            await asyncio.wait_for(sending, 20)
        finally:
            await theirs.stop()
            await ours.stop()

    run(exchange())


@pytest.mark.parametrize("version", FOUR)
@plain_and_tls
def test_genuine_starts_and_sends_first(
    version: str, tls: bool, network: NetworkOf, run: Any
) -> None:
    async def exchange() -> None:
        net = network(tls)
        theirs, ours = net.genuine(version), net.ours(facade_of(version), 4)
        try:
            await theirs.start()
            sending = theirs.call("send", to="ours", value="str", id=None)
            await asyncio.sleep(0.7)
            await ours.start()
            assert await ours.recv("theirs") == "hello"
            await asyncio.wait_for(sending, 20)
        finally:
            await theirs.stop()
            await ours.stop()

    run(exchange())


def test_version_5_comes_up_within_our_retries(network: NetworkOf, run: Any) -> None:
    async def exchange() -> None:
        net = network(False)
        theirs, ours = net.genuine("5.0.4"), net.ours("convelo.compat.tno5", 5, tries=60)
        try:
            await theirs.spawn()
            await ours.start()
            sending = asyncio.create_task(ours.send("theirs", "early"))
            await asyncio.sleep(0.3)
            await theirs.start()
            assert await theirs.recv("ours") == ["str", "early"]
            await asyncio.wait_for(sending, 20)
        finally:
            await theirs.stop()
            await ours.stop()

    run(exchange())


def test_4_api_with_a_peer_that_is_set_to_wire_5(network: NetworkOf, run: Any) -> None:
    """A pool of the 4.x API reaches users of 5.0.4, which the genuine package cannot."""

    async def exchange() -> None:
        net = network(False)
        ours = net.ours("convelo.compat.tno", 4, wires={"theirs": 5})
        async with linked(net, "5.0.4", ours) as (_, theirs):
            for name in ("str", "bytes", "int_big", "tuple", "numpy_matrix", "mpz", "class"):
                await ours.send("theirs", sample_values.VALUES[name](), name)
                arrived = await theirs.recv("ours", name)
                assert arrived[0] != "unexpected"
                await theirs.send("ours", name, name)
                await ours.recv("theirs", name)
            await ours.send("theirs", "by default id")
            assert await theirs.recv("ours") == ["str", "by default id"]
            await theirs.send("ours", "str")
            assert await ours.recv("theirs") == "hello"

    run(exchange())


def test_a_version_5_peer_taken_for_version_4_is_a_clear_error(
    network: NetworkOf, run: Any
) -> None:
    async def exchange() -> str:
        net = network(False)
        ours = net.ours("convelo.compat.tno", 4)
        async with linked(net, "5.0.4", ours) as (_, _theirs):
            began = time.monotonic()
            with pytest.raises(Exception) as caught:
                await ours.send("theirs", {"any": "value"}, "a", retries=3)
            assert time.monotonic() - began < 10
            return str(caught.value)

    text = run(exchange())
    assert "theirs" in text
    assert "wire=5" in text


def test_messages_of_a_version_5_peer_taken_for_version_4_are_noticed(
    network: NetworkOf, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Either the genuine sender is told, or our log says what to set."""

    async def exchange() -> str:
        net = network(False)
        ours = net.ours("convelo.compat.tno", 4)
        async with linked(net, "5.0.4", ours) as (_, theirs):
            try:
                await theirs.send("ours", "dict")
            except PeerFailed as failed:
                return str(failed)
            await asyncio.sleep(0.3)
            return "\n".join(record.getMessage() for record in caplog.records)

    with caplog.at_level(logging.WARNING):
        assert "wire=5" in run(exchange())


@pytest.mark.parametrize("version", FOUR)
def test_a_registered_name_with_another_certificate_is_refused(
    version: str, network: NetworkOf, run: Any, certificates: list[dict[str, str]]
) -> None:
    """The peer holds a certificate of our authority, but not the one that we know it by."""

    async def exchange() -> None:
        net = network(True)
        theirs, ours = net.genuine(version), net.ours(facade_of(version), 4)
        port, _ = ours.peers["theirs"]
        ours.peers["theirs"] = (port, certificates[2]["cert"])
        try:
            await theirs.start()
            await ours.start()
            with pytest.raises(Exception) as caught:
                await asyncio.wait_for(ours.send("theirs", "secret", "a", retries=2), 15)
            assert "theirs" in str(caught.value)
            assert not isinstance(caught.value, TimeoutError)
        finally:
            await theirs.stop()
            await ours.stop()

    run(exchange())


@pytest.mark.parametrize("module", ["genuine", "convelo.compat.tno5"])
def test_version_5_refuses_a_peer_without_a_certificate_over_tls(
    module: str, network: NetworkOf, certificates: list[dict[str, str]], run: Any
) -> None:
    """Whoever it is, and the peer itself as well."""

    async def exchange() -> None:
        net = network(True)
        net.unpinned = True
        party = net.genuine("5.0.4", 0) if module == "genuine" else net.ours(module, 5)
        try:
            await party.start()
            for tls in certificates[1:]:
                sender = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                sender.check_hostname = False
                sender.verify_mode = ssl.CERT_NONE
                sender.load_cert_chain(tls["cert"], tls["key"])
                port, peer_port = net.ports[:2]
                status, _ = await post(port, body_5("forged", "a"), peer_port, tls=sender)
                assert status == 401
        finally:
            await party.stop()

    run(exchange())
