"""Peers of which nobody has said which certificate or key they have, with TLS.

Mallory is another member of the authority, or a party of the same pool.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from genuine_process import free_ports
from party_certificates import Authority, common_name
from pools import end, introduce, listening, port_of
from raw_http import body_4, body_5, post

from convelo import PeerNotAuthenticated, PeerRestarted, Pool, ReceiveTimeout
from convelo.compat import tno5

pytestmark = pytest.mark.asyncio

Tls = dict[str, str]


class Parties:
    """Certificates of one authority: of Alice, Bob and Mallory, all at the same host."""

    def __init__(self, directory: Path) -> None:
        self._authority = Authority(directory, common_name("authority"))
        self.alice, self.bob, self.mallory = (
            self._authority.issue(name, 10 + number)
            for number, name in enumerate(("alice", "bob", "mallory"))
        )

    def elsewhere(self, name: str) -> Tls:
        """A party at another host than all others."""
        return self._authority.issue(f"{name}-elsewhere", 20, ("example.org",), ("192.0.2.1",))


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    return Parties(tmp_path)


def context(tls: Tls) -> ssl.SSLContext:
    """What a sender with this certificate presents; it accepts every server."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.load_cert_chain(tls["cert"], tls["key"])
    return made


async def forge(port: int, tls: Tls, server_port: int, message_id: str, **more: Any) -> int:
    """Sends a message to ``port`` as the party that listens on ``server_port``."""
    body = body_4("forged", message_id)
    status, _ = await post(port, body, server_port, tls=context(tls), **more)
    return status


@asynccontextmanager
async def alice_unpinned(parties: Parties) -> AsyncIterator[tuple[Pool, Pool]]:
    """Alice and Bob, who knows Alice by address, port and authority."""
    alice, bob = listening(parties.alice), listening(parties.bob)
    introduce(alice, "bob", port_of(bob), parties.bob)
    introduce(bob, "alice", port_of(alice))
    try:
        yield alice, bob
    finally:
        await end(alice, bob)


def lines_about(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if all(word in line for word in words)]


async def test_the_documented_form_of_4_goes_on_working(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = listening(parties.alice), listening(parties.bob)
    introduce(alice, "bob", port_of(bob))
    introduce(bob, "alice", port_of(alice))
    assert len(lines_about(caplog, "is registered without a certificate")) == 2
    await alice.send("bob", "hello")
    await bob.send("alice", "hello back")
    assert (await bob.recv("alice"), await alice.recv("bob")) == ("hello", "hello back")
    await end(alice, bob)


async def test_member_of_the_authority_that_speaks_first_does_not_lock_the_peer_out(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    mallory = parties.elsewhere("mallory")
    async with alice_unpinned(parties) as (alice, bob):
        await forge(port_of(bob), mallory, port_of(alice), "a")
        await asyncio.wait_for(alice.send("bob", "it is me", "a"), 20)
        assert await bob.recv("alice", "a", timeout=20) == "it is me"
        assert lines_about(caplog, "alice", "another party proves better")
        assert await forge(port_of(bob), mallory, port_of(alice), "a") == 401
        with pytest.raises(ReceiveTimeout):
            await bob.recv("alice", "a", timeout=0.3)


async def test_what_a_displaced_party_sent_is_not_taken_for_the_peers(parties: Parties) -> None:
    mallory = parties.elsewhere("mallory")
    async with alice_unpinned(parties) as (alice, bob):
        assert await forge(port_of(bob), mallory, port_of(alice), "a") == 200
        assert await bob.recv("alice", "a") == "forged"
        assert await forge(port_of(bob), mallory, port_of(alice), "b") == 200
        await asyncio.wait_for(alice.send("bob", "it is me", "b"), 20)
        # Bob has taken a message that was not Alice's: he is told, whatever he does next.
        with pytest.raises(PeerRestarted, match="with another party"):
            await bob.recv("alice", "b")
        assert await bob.recv("alice", "b", timeout=20) == "it is me"


async def test_a_receive_that_waits_outlives_a_member_that_speaks_first(parties: Parties) -> None:
    async with alice_unpinned(parties) as (alice, bob):
        receiving = asyncio.create_task(bob.recv("alice"))
        await asyncio.sleep(0)
        await forge(port_of(bob), parties.elsewhere("mallory"), port_of(alice), "a")
        await asyncio.wait_for(alice.send("bob", "it is me"), 20)
        assert await asyncio.wait_for(receiving, 20) == "it is me"


async def test_a_later_mismatch_is_named(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    async with alice_unpinned(parties) as (alice, bob):
        await alice.send("bob", "it is me", "a")
        assert await bob.recv("alice", "a") == "it is me"
        for mallory in (parties.mallory, parties.elsewhere("mallory")):
            assert await forge(port_of(bob), mallory, port_of(alice), "b") == 401
        assert alice.fingerprint is not None
        named = lines_about(caplog, "alice", alice.fingerprint, "CN=mallory")
        assert len(named) == 2
        with pytest.raises(ReceiveTimeout):
            await bob.recv("alice", "b", timeout=0.3)


async def test_member_of_the_authority_at_another_address(parties: Parties) -> None:
    async with alice_unpinned(parties) as (alice, bob):
        status = await forge(
            port_of(bob), parties.mallory, port_of(alice), "a", source="127.0.0.2"
        )
        assert status == 401
        await alice.send("bob", "it is me", "a")
        assert await bob.recv("alice", "a") == "it is me"


async def test_party_with_a_certificate_that_poses_as_one_without(parties: Parties) -> None:
    async with alice_unpinned(parties) as (alice, bob):
        introduce(bob, "mallory", *free_ports(1), tls=parties.mallory)
        assert await forge(port_of(bob), parties.mallory, port_of(alice), "a") == 200
        assert await bob.recv("mallory", "a") == "forged"
        await asyncio.wait_for(alice.send("bob", "it is me", "a"), 20)
        assert await bob.recv("alice", "a", timeout=20) == "it is me"


async def test_party_without_a_certificate_that_poses_as_its_neighbour(parties: Parties) -> None:
    async with alice_unpinned(parties) as (alice, bob):
        (port,) = free_ports(1)
        introduce(bob, "mallory", port)
        assert await forge(port_of(bob), parties.mallory, port, "a") == 200
        await forge(port_of(bob), parties.mallory, port_of(alice), "a")
        await asyncio.wait_for(alice.send("bob", "it is me", "a"), 20)
        assert await bob.recv("alice", "a", timeout=20) == "it is me"
        assert await bob.recv("mallory", "a") == "forged"


async def test_member_of_the_authority_that_answers_at_the_peers_address(
    parties: Parties,
) -> None:
    (port,) = free_ports(1)
    bob = listening(parties.bob)
    introduce(bob, "alice", port)
    mallory = listening(parties.elsewhere("mallory"), port=port)
    introduce(mallory, "bob", port_of(bob), parties.bob)
    await bob.send("alice", "for Alice", "a")
    assert await mallory.recv("bob", "a") == "for Alice"
    await end(mallory)
    alice = listening(parties.alice, port=port)
    introduce(alice, "bob", port_of(bob), parties.bob)
    await asyncio.wait_for(alice.send("bob", "it is me", "a"), 20)
    # Bob has sent something that Alice never got: he is told.
    with pytest.raises(PeerRestarted, match="with another party"):
        await bob.send("alice", "for Alice", "b")
    await asyncio.wait_for(bob.send("alice", "for Alice", "b"), 20)
    assert await alice.recv("bob", "b") == "for Alice"
    assert await bob.recv("alice", "a") == "it is me"
    await end(alice)
    mallory = listening(parties.elsewhere("mallory"), port=port)
    introduce(mallory, "bob", port_of(bob), parties.bob)
    with pytest.raises(PeerNotAuthenticated, match="alice"):
        await asyncio.wait_for(bob.send("alice", "for Alice", "c"), 20)
    await end(mallory, bob)


async def test_a_peer_that_is_registered_again_may_have_another_key(parties: Parties) -> None:
    async with alice_unpinned(parties) as (alice, bob):
        await alice.send("bob", "it is me", "a")
        introduce(bob, "alice", port_of(alice))
        assert await forge(port_of(bob), parties.mallory, port_of(alice), "a") == 200


# The 5.0 API


def communicator(tls: Tls | None) -> tno5.HttpCommunicator:
    if tls is None:
        return tno5.HttpCommunicator("127.0.0.1", 0)
    files = tls["key"], tls["cert"], tls["ca_cert"]
    client = tno5.create_ssl_context(*files)
    server = tno5.create_ssl_context(*files, server=True)
    return tno5.HttpCommunicator("127.0.0.1", 0, client, server)


async def test_a_peer_of_5_without_a_certificate_is_nobody(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = communicator(parties.alice), communicator(parties.bob)
    alice.listen()
    bob.listen()
    pools = tno5.Pool("alice", alice), tno5.Pool("bob", bob, timeout=0.5)
    pools[0].add_client("bob", tno5.HttpConnection("127.0.0.1", bob.port, parties.bob["cert"]))
    pools[1].add_client("alice", tno5.HttpConnection("127.0.0.1", alice.port))
    assert not caplog.records
    async with pools[0], pools[1]:
        warned = lines_about(caplog, "'alice' is registered without a certificate")
        assert len(warned) == 1
        assert "nothing is accepted from it" in warned[0]
        for tls in (parties.mallory, parties.alice):
            body = body_5("forged", "a")
            status, _ = await post(bob.port, body, alice.port, tls=context(tls))
            assert status == 401
        assert lines_about(caplog, "alice", "CN=mallory", "refused")
        with pytest.raises(PeerNotAuthenticated, match="401"):
            await pools[0].send("bob", "hello")
        with pytest.raises(tno5.CommunicationError):
            await pools[1].recv("alice")


async def test_to_a_peer_of_5_without_a_certificate_one_can_send(parties: Parties) -> None:
    alice, bob = communicator(parties.alice), communicator(parties.bob)
    alice.listen()
    bob.listen()
    pools = tno5.Pool("alice", alice), tno5.Pool("bob", bob)
    pools[0].add_client("bob", tno5.HttpConnection("127.0.0.1", bob.port, parties.bob["cert"]))
    pools[1].add_client("alice", tno5.HttpConnection("127.0.0.1", alice.port))
    async with pools[0], pools[1]:
        await pools[1].send("alice", "hello")
        assert await pools[0].recv("bob") == "hello"


async def test_a_peer_of_5_that_may_be_the_first_party(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = communicator(parties.alice), communicator(parties.bob)
    alice.listen()
    bob.listen()
    pools = tno5.Pool("alice", alice), tno5.Pool("bob", bob)
    pools[0].add_client("bob", tno5.HttpConnection("127.0.0.1", bob.port, parties.bob["cert"]))
    first = tno5.HttpConnection("127.0.0.1", alice.port, trust_first=True)
    pools[1].add_client("alice", first)
    async with pools[0], pools[1]:
        assert lines_about(caplog, "'alice' is registered without a certificate", "the first party")
        await pools[0].send("bob", "hello")
        assert await pools[1].recv("alice") == "hello"
        body = body_5("forged", "a")
        status, _ = await post(bob.port, body, alice.port, tls=context(parties.mallory))
        assert status == 401


async def test_trust_first_contradicts_a_certificate_and_plain_http(parties: Parties) -> None:
    for pinned in ({"cert": parties.alice["cert"]}, {"key": "sha256:" + "0" * 64}):
        with pytest.raises(ValueError, match="trust_first"):
            tno5.HttpConnection("127.0.0.1", 1, trust_first=True, **pinned)
    pool = tno5.Pool("bob", communicator(None))
    pool.add_client("alice", tno5.HttpConnection("127.0.0.1", 1, trust_first=True))
    with pytest.raises(ValueError, match="no TLS"):
        await pool.initialize()


async def test_5_warns_of_plain_http_when_it_is_initialized(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("convelo._pool._warned_of_plain_http", False)
    pool = tno5.Pool("bob", communicator(None))
    await pool.initialize()
    with caplog.at_level(logging.WARNING):
        assert len(lines_about(caplog, "plain HTTP")) == 1
    await pool.shutdown()
