"""What goes wrong with the package that ours replaces, one test per situation.

The numbers are those of the project's list of such situations. All go through the public API and
real sockets; where the compatible wire is meant, the other side is written by hand (``raw_http``).
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import decimal
import gc
import io
import logging
import os
import pickle
import random
import ssl
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fault_proxy
import ormsgpack
import pytest
from fault_proxy import FaultProxy
from genuine_process import free_ports
from party_certificates import Authority, common_name, corporate_name
from pools import MIB, end, introduce, listening, memory, port_of, two
from raw_http import RESET, SILENCE, RawPeer, body_4, body_5, exchange, head, post, read_answer

from convelo import (
    AmbiguousDict,
    BodyError,
    MessageTooLarge,
    PeerLost,
    PeerNotAuthenticated,
    PeerRefused,
    PeerRestarted,
    PeerUnreachable,
    Pool,
    PoolClosed,
    ReceiveTimeout,
    SendError,
    SendTimeout,
    ShutdownError,
)

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def beside_genuine(
    responder: Any = None, **options: Any
) -> AsyncIterator[tuple[Pool, RawPeer]]:
    """Our pool, and a peer ``bob`` on the compatible wire."""
    bob = RawPeer(responder)
    await bob.start()
    pool = listening(**options)
    introduce(pool, "bob", bob.port)
    try:
        yield pool, bob
    finally:
        await end(pool)
        await bob.stop()


@asynccontextmanager
async def behind_proxy() -> AsyncIterator[tuple[Pool, Pool, FaultProxy]]:
    """Alice reaches Bob through a proxy, both ours."""
    alice, bob = listening(), listening()
    proxy = FaultProxy(port_of(bob))
    introduce(alice, "bob", await proxy.start())
    introduce(bob, "alice", port_of(alice))
    try:
        yield alice, bob, proxy
    finally:
        await end(alice, bob)
        await proxy.stop()


async def nothing_more(pool: Pool, name: str, message_id: int | str | None = None) -> None:
    with pytest.raises(ReceiveTimeout):
        await pool.recv(name, message_id, timeout=0.3)


async def test_row_01_first_response_lost_and_sent_again_before_recv() -> None:
    async with behind_proxy() as (alice, bob, proxy):
        proxy.next_faults.append(fault_proxy.DROP_RESPONSE)
        await alice.send("bob", "once", "a")
        assert proxy.counts[fault_proxy.DROP_RESPONSE] == 1
        assert await bob.recv("alice", "a") == "once"
        await nothing_more(bob, "alice", "a")


async def test_row_01_on_the_compatible_wire() -> None:
    async with beside_genuine() as (pool, bob):
        for _ in range(2):
            # The genuine sender tries again with the same bytes.
            assert (await post(port_of(pool), body_4("once", "a"), bob.port))[0] == 200
        assert await pool.recv("bob", "a") == "once"
        await nothing_more(pool, "bob", "a")


async def test_row_02_duplicate_after_recv() -> None:
    async with behind_proxy() as (alice, bob, proxy):
        proxy.next_faults.extend([fault_proxy.REPLAY, fault_proxy.DUPLICATE])
        for text in ("first", "second"):
            receiving = asyncio.create_task(bob.recv("alice", "a"))
            await alice.send("bob", text, "a")
            assert await receiving == text
        await nothing_more(bob, "alice", "a")
        assert proxy.counts[fault_proxy.REPLAY] == proxy.counts[fault_proxy.DUPLICATE] == 1


async def test_row_03_one_id_sent_twice_before_recv() -> None:
    async with two() as (alice, bob):
        sending = asyncio.gather(*(alice.send("bob", number, "same") for number in range(5)))
        assert [await bob.recv("alice", "same") for _ in range(5)] == list(range(5))
        await sending


async def test_row_03_on_the_compatible_wire() -> None:
    async with beside_genuine() as (pool, bob):
        for text in ("first", "second"):
            assert (await post(port_of(pool), body_4(text, "same"), bob.port))[0] == 200
        assert await pool.recv("bob", "same") == "first"
        assert await pool.recv("bob", "same") == "second"


async def test_row_04_receiver_not_up(caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    alice = listening()
    introduce(alice, "bob", port)
    with caplog.at_level(logging.INFO):
        sending = asyncio.create_task(alice.send("bob", "early"))
        await asyncio.sleep(2.5)
        assert not sending.done()
        bob = listening(port=port)
        introduce(bob, "alice", port_of(alice))
        assert await bob.recv("alice") == "early"
        await asyncio.wait_for(sending, 5)
    await end(alice, bob)
    mentions = [record for record in caplog.records if "'bob'" in record.getMessage()]
    assert len(mentions) <= 3, [record.getMessage() for record in mentions]
    assert not any(record.exc_info for record in caplog.records)


async def test_row_04_deadline() -> None:
    alice = listening()
    introduce(alice, "bob", free_ports(1)[0])
    began = time.monotonic()
    with pytest.raises((SendTimeout, PeerUnreachable), match="bob"):
        await alice.send("bob", "never", timeout=0.5, max_retries=2)
    assert time.monotonic() - began < 5
    await end(alice)


async def test_row_05_retries_used_up() -> None:
    alice = listening()
    introduce(alice, "bob", free_ports(1)[0])
    with pytest.raises(PeerUnreachable, match="bob") as caught:
        await alice.send("bob", "never", "the id", max_retries=1)
    assert caught.value.peer == "bob"
    assert caught.value.message_id == "the id"
    assert caught.value.maybe_delivered is False
    assert isinstance(caught.value, SendError)
    await end(alice)


@pytest.mark.parametrize("status", [401, 400, 404, 500])
async def test_row_06_peer_refuses(status: int) -> None:
    async with beside_genuine(lambda _body: status) as (pool, bob):
        began = time.monotonic()
        with pytest.raises((PeerRefused, PeerNotAuthenticated), match=f"'bob'.*{status}"):
            await pool.send("bob", "hello")
        assert time.monotonic() - began < 2
        assert bob.attempts == 1


async def test_row_06_a_stranger_is_told_how_to_register() -> None:
    alice, bob = listening(), listening()
    introduce(alice, "bob", port_of(bob))
    with pytest.raises(PeerNotAuthenticated, match=str(port_of(alice))) as caught:
        await asyncio.wait_for(alice.send("bob", "hello"), 10)
    assert "bob" in str(caught.value)
    assert "register" in str(caught.value)
    await end(alice, bob)


async def test_row_07_peer_resets_during_a_large_body() -> None:
    async with beside_genuine() as (pool, bob):
        bob.reset_after = MIB
        sending = asyncio.create_task(pool.send("bob", bytes(10 * MIB)))
        await asyncio.sleep(4)
        assert 2 <= bob.attempts <= 8
        bob.reset_after = None
        await asyncio.wait_for(sending, 10)
        assert len(bob.bodies) == 1
        bob.reset_after = MIB
        began = bob.attempts
        with pytest.raises(SendError, match="bob"):
            await asyncio.wait_for(pool.send("bob", bytes(10 * MIB), max_retries=2), 20)
        assert bob.attempts - began == 3


async def test_row_08_half_a_body() -> None:
    async with beside_genuine() as (pool, bob):
        whole = body_4(bytes(MIB), "a")
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(pool))
        writer.write(head(len(whole), bob.port) + whole[: len(whole) // 2])
        await writer.drain()
        writer.transport.abort()
        await nothing_more(pool, "bob", "a")
        assert (await post(port_of(pool), whole, bob.port))[0] == 200
        assert await pool.recv("bob", "a") == bytes(MIB)


async def test_row_09_none_arrives_before_recv() -> None:
    async with two() as (alice, bob):
        await alice.send("bob", None, "a")
        assert await asyncio.wait_for(bob.recv("alice", "a"), 5) is None
    async with beside_genuine() as (pool, raw):
        assert (await post(port_of(pool), body_4(None, "a"), raw.port))[0] == 200
        assert await asyncio.wait_for(pool.recv("bob", "a"), 5) is None


async def test_row_10_object_cannot_be_packed() -> None:
    async with two() as (alice, bob):
        await alice.send("bob", 0)
        with pytest.raises(TypeError):
            await alice.send("bob", object())
        await alice.send("bob", 1)
        assert [await bob.recv("alice"), await bob.recv("alice")] == [0, 1]
    async with beside_genuine() as (pool, raw):
        with pytest.raises(TypeError):
            await pool.send("bob", object())
        await pool.send("bob", "first")
        assert raw.messages == [{"object": "first", "id": 0}]


async def test_row_11_recv_times_out_and_the_message_comes_later() -> None:
    async with two() as (alice, bob):
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await bob.recv("alice", timeout=0.05)
        await alice.send("bob", "late")
        assert await asyncio.wait_for(bob.recv("alice"), 5) == "late"
        waiting = asyncio.create_task(bob.recv("alice"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await alice.send("bob", "later")
        assert await asyncio.wait_for(bob.recv("alice"), 5) == "later"


async def test_row_12_recv_again_with_the_same_id_after_a_timeout() -> None:
    async with two() as (alice, bob):
        with pytest.raises(TimeoutError):
            await bob.recv("alice", "a", timeout=0.05)
        waiting = asyncio.create_task(bob.recv("alice", "a"))
        await asyncio.sleep(0.05)
        await alice.send("bob", "hello", "a")
        assert await asyncio.wait_for(waiting, 5) == "hello"


async def test_row_13_two_receive_one_id_at_once() -> None:
    async with two() as (alice, bob):
        waiting = [asyncio.create_task(bob.recv("alice", "a")) for _ in range(2)]
        await asyncio.sleep(0.05)
        await alice.send("bob", "first", "a")
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == ["first"]
        await alice.send("bob", "second", "a")
        assert await asyncio.wait_for(pending.pop(), 5) == "second"


async def _unless_restarted(work: Any, told: list[bool]) -> Any:
    """Does it, and once more if it was told of the restart."""
    try:
        return await asyncio.wait_for(work(), 5)
    except PeerRestarted:
        told.append(True)
        return await asyncio.wait_for(work(), 5)


async def test_row_14_receiver_restarts() -> None:
    alice, bob = listening(), listening()
    port = port_of(bob)
    introduce(alice, "bob", port)
    introduce(bob, "alice", port_of(alice))
    for number in range(3):
        await alice.send("bob", number)
        await bob.send("alice", number)
        assert await alice.recv("bob") == await bob.recv("alice") == number
    waiting = asyncio.create_task(alice.recv("bob"))
    await asyncio.sleep(0.05)
    await end(bob)
    bob = listening(port=port)
    introduce(bob, "alice", port_of(alice))
    await bob.send("alice", "I am new")
    with pytest.raises((PeerRestarted, PeerLost), match="bob") as caught:
        await asyncio.wait_for(waiting, 30)
    told = [isinstance(caught.value, PeerRestarted)]
    received = await _unless_restarted(lambda: alice.recv("bob"), told)
    assert received == "I am new"
    await _unless_restarted(lambda: alice.send("bob", "welcome"), told)
    assert sum(told) <= 1
    assert await asyncio.wait_for(bob.recv("alice"), 5) == "welcome"
    await end(alice, bob)


async def test_row_14_sender_notices_the_restart() -> None:
    alice, bob = listening(), listening()
    port = port_of(bob)
    introduce(alice, "bob", port)
    introduce(bob, "alice", port_of(alice))
    for number in range(3):
        await alice.send("bob", number)
    await end(bob)
    bob = listening(port=port)
    introduce(bob, "alice", port_of(alice))
    # Told once, at most; then both count from 0.
    try:
        await asyncio.wait_for(alice.send("bob", "hello"), 10)
    except PeerRestarted as restarted:
        assert "bob" in str(restarted)
        await asyncio.wait_for(alice.send("bob", "hello"), 10)
    assert await asyncio.wait_for(bob.recv("alice"), 5) == "hello"
    await end(alice, bob)


async def test_row_15_asend_then_shutdown() -> None:
    alice, bob = listening(), listening()
    introduce(alice, "bob", port_of(bob))
    introduce(bob, "alice", port_of(alice))
    for number in range(100):
        alice.asend("bob", number)
    await alice.shutdown()
    assert [await bob.recv("alice") for _ in range(100)] == list(range(100))
    await end(bob)


async def test_row_15_asend_that_fails_is_known() -> None:
    async with two() as (alice, bob):
        with pytest.raises(TypeError):
            alice.asend("bob", object())
            await alice.shutdown()
    alice = listening()
    introduce(alice, "bob", free_ports(1)[0])
    alice.asend("bob", "never", "the id", max_retries=0)
    with pytest.raises(ShutdownError, match="bob") as caught:
        await alice.shutdown()
    assert len(caught.value.lost) == 1
    errors: list[Exception] = []
    alice = listening(on_error=errors.append)
    introduce(alice, "bob", free_ports(1)[0])
    alice.asend("bob", "never", max_retries=0)
    await alice.shutdown()
    assert [type(error) for error in errors] == [PeerUnreachable]
    del bob


async def test_row_16_own_pool_is_shut_down_while_recv_waits() -> None:
    async with two() as (alice, bob):
        waiting = asyncio.create_task(bob.recv("alice"))
        await asyncio.sleep(0.05)
        await bob.shutdown()
        with pytest.raises(PoolClosed):
            await asyncio.wait_for(waiting, 5)
        del alice


async def test_row_17_peer_goes_away_while_recv_waits() -> None:
    async with two() as (alice, bob):
        await alice.send("bob", "I am here")
        assert await bob.recv("alice") == "I am here"
        waiting = asyncio.create_task(bob.recv("alice"))
        await asyncio.sleep(0.05)
        await alice.shutdown()
        with pytest.raises(PeerLost, match="alice"):
            await asyncio.wait_for(waiting, 10)


PARTY = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from pools import introduce, listening

async def main():
    pool = listening(port=int(sys.argv[2]))
    introduce(pool, "bob", int(sys.argv[3]))
    await pool.send("bob", "I am here")
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_row_17_peer_is_killed_while_recv_waits() -> None:
    (port,) = free_ports(1)
    bob = listening()
    introduce(bob, "alice", port)
    kit = str(Path(fault_proxy.__file__).parent)
    arguments = [sys.executable, "-c", PARTY, kit, str(port), str(port_of(bob))]
    alice = await asyncio.create_subprocess_exec(*arguments)
    try:
        assert await asyncio.wait_for(bob.recv("alice"), 20) == "I am here"
        waiting = asyncio.create_task(bob.recv("alice"))
        await asyncio.sleep(0.1)
        alice.kill()
        with pytest.raises(PeerLost, match="alice"):
            await asyncio.wait_for(waiting, 40)
    finally:
        if alice.returncode is None:
            alice.kill()
        await alice.wait()
        await end(bob)


async def test_row_18_nobody_calls_recv() -> None:
    async with two(mailbox_limit=40 * MIB) as (alice, bob):
        content = random.Random(1).randbytes(10 * MIB)
        await alice.send("bob", 0, "ready")
        assert await bob.recv("alice", "ready") == 0
        before = memory()
        sending = [asyncio.create_task(alice.send("bob", content, n)) for n in range(20)]
        await asyncio.sleep(2)
        accepted = sum(task.done() for task in sending)
        assert 1 <= accepted <= 5
        assert memory() - before < 100 * MIB
        for number in range(20):
            assert await asyncio.wait_for(bob.recv("alice", number), 20) == content
        await asyncio.wait_for(asyncio.gather(*sending), 20)


async def test_row_18_on_the_compatible_wire() -> None:
    async with beside_genuine(mailbox_limit=25 * MIB) as (pool, bob):
        body = {n: body_4(bytes(10 * MIB), n) for n in range(4)}
        posts = [
            asyncio.create_task(post(port_of(pool), body[n], bob.port)) for n in range(4)
        ]
        await asyncio.sleep(1.5)
        assert sum(task.done() for task in posts) == 2
        for number in range(4):
            assert len(await asyncio.wait_for(pool.recv("bob", number), 20)) == 10 * MIB
        assert [(await task)[0] for task in posts] == [200] * 4


async def _post_while_it_is_read(port: int, size: int, server_port: int) -> tuple[int | None, int]:
    """Status of the answer, and how many bytes were taken from us until then.

    There is no status where the server ended the connection while we were still sending.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(read_answer(reader))
    sent = 0
    status = None
    try:
        writer.write(head(size, server_port))
        while sent < size and not answer.done():
            writer.write(bytes(64 << 10))
            sent += 64 << 10
            await asyncio.wait_for(writer.drain(), 10)
        status, _ = await answer
    except (OSError, asyncio.IncompleteReadError):
        await asyncio.gather(answer, return_exceptions=True)
    writer.transport.abort()
    return status, sent


async def test_row_19_unknown_peer_posts_200_mb() -> None:
    async with beside_genuine() as (pool, _):
        before = memory()
        status, sent = await _post_while_it_is_read(port_of(pool), 200 * MIB, 1)
        assert status in (401, None)
        assert sent < 50 * MIB
        assert memory() - before < 30 * MIB


async def test_row_19_known_peer_posts_more_than_the_limit() -> None:
    async with beside_genuine(message_limit=MIB) as (pool, bob):
        status, sent = await _post_while_it_is_read(port_of(pool), 200 * MIB, bob.port)
        assert status in (413, None)
        assert sent < 50 * MIB
        assert (await post(port_of(pool), body_4("small", "a"), bob.port))[0] == 200
        assert await pool.recv("bob", "a") == "small"


async def test_row_20_deflate_bomb() -> None:
    async with beside_genuine() as (pool, bob):
        bomb = zlib.compress(body_4(bytes(500 * MIB), "a"), 9)
        gc.collect()
        before = memory()
        for sender in (bob.port, 1):
            status, _ = await post(port_of(pool), bomb, sender, Content_Encoding="deflate")
            assert status in (401, 415)
        assert memory() - before < 30 * MIB
        await nothing_more(pool, "bob", "a")


def _logged_by(script: str) -> list[str]:
    """What a script of its own process logs, one line per record."""
    prelude = "import logging\nlogging.basicConfig(level=0, format='%(levelname)s %(message)s')\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stderr.splitlines()


async def test_row_21_plain_http_says_that_it_is_unauthenticated() -> None:
    lines = await asyncio.to_thread(
        _logged_by,
        """
        import asyncio
        from convelo import Pool
        async def main():
            for _ in range(3):
                pool = Pool()
                pool.add_http_server(port=0, addr="127.0.0.1")
                await pool.shutdown()
        asyncio.run(main())
        """,
    )
    warnings = [line for line in lines if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert "plain HTTP" in warnings[0]
    assert "Peers are told apart by address and port" in warnings[0]


async def test_row_21_with_keys_a_cookie_is_worth_nothing(tmp_path: Path) -> None:
    from convelo.pki import new_identity

    for name in ("alice", "bob", "mallory"):
        new_identity(tmp_path, name)
    alice = listening(identity=tmp_path / "alice.pem")
    bob = listening(identity=tmp_path / "bob.pem")
    introduce(alice, "bob", port_of(bob), key=bob.fingerprint)
    introduce(bob, "alice", port_of(alice), key=alice.fingerprint)
    await alice.send("bob", "it is me", "a")
    assert await bob.recv("alice", "a") == "it is me"
    context = _context({"cert": str(tmp_path / "mallory.pem")})
    with pytest.raises((OSError, asyncio.IncompleteReadError, _Refused)):
        await _refused(post(port_of(bob), body_4("fake", "b"), port_of(alice), tls=context))
    await nothing_more(bob, "alice", "b")
    await end(alice, bob)


class _Refused(Exception):
    """The server answered with a status other than 200."""


async def _refused(work: Any) -> None:
    status, _ = await work
    assert status != 200
    raise _Refused(status)


def _context(tls: dict[str, str]) -> ssl.SSLContext:
    """What an attacker with this certificate presents; it accepts every server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(tls["cert"], tls.get("key"))
    return context


async def test_row_22_tls_peer_without_a_certificate_is_the_first_that_comes(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path, common_name("authority"))
    tls = [authority.issue(name, 10 + n) for n, name in enumerate(("alice", "bob", "mallory"))]
    alice, bob = listening(tls[0]), listening(tls[1])
    introduce(alice, "bob", port_of(bob), tls[1])
    introduce(bob, "alice", port_of(alice))
    await alice.send("bob", "it is me", "a")
    assert await bob.recv("alice", "a") == "it is me"
    with pytest.raises((OSError, asyncio.IncompleteReadError, _Refused)):
        await _refused(
            post(port_of(bob), body_4("fake", "b"), port_of(alice), tls=_context(tls[2]))
        )
    await nothing_more(bob, "alice", "b")
    await end(alice, bob)


async def test_row_23_two_authorities_with_one_name_and_the_same_serial(tmp_path: Path) -> None:
    authorities = [Authority(tmp_path / str(n), common_name("authority")) for n in range(2)]
    alice_tls, mallory_tls = (authority.issue("alice", 77) for authority in authorities)
    bob_tls = authorities[0].issue("bob", 78)
    both = tmp_path / "both.crt"
    both.write_bytes(b"".join(authority.path.read_bytes() for authority in authorities))
    alice, bob = listening(alice_tls), listening(bob_tls | {"ca_cert": str(both)})
    introduce(alice, "bob", port_of(bob), bob_tls)
    introduce(bob, "alice", port_of(alice), alice_tls)
    with pytest.raises((OSError, asyncio.IncompleteReadError, _Refused)):
        await _refused(
            post(port_of(bob), body_4("fake", "a"), port_of(alice), tls=_context(mallory_tls))
        )
    await nothing_more(bob, "alice", "a")
    await alice.send("bob", "it is me", "a")
    assert await bob.recv("alice", "a") == "it is me"
    await end(alice, bob)


async def test_row_24_issuer_name_of_a_corporate_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path, corporate_name("authority"))
    tls = [authority.issue("alice", 10), authority.issue("bob", 11)]
    async with two(tls) as (alice, bob):
        await asyncio.wait_for(alice.send("bob", "hello", max_retries=0), 10)
        assert await bob.recv("alice") == "hello"


async def test_row_24_a_certificate_of_another_authority_is_named(tmp_path: Path) -> None:
    authorities = [Authority(tmp_path / str(n), common_name(f"authority {n}")) for n in range(2)]
    alice, bob = (
        listening(authority.issue(name, 10))
        for authority, name in zip(authorities, ("alice", "bob"), strict=True)
    )
    introduce(alice, "bob", port_of(bob), {"cert": str(tmp_path / "1" / "bob.crt")})
    introduce(bob, "alice", port_of(alice), {"cert": str(tmp_path / "0" / "alice.crt")})
    with pytest.raises(PeerNotAuthenticated, match="bob"):
        await asyncio.wait_for(alice.send("bob", "hello"), 10)
    await end(alice, bob)


def _garbage(server_port: int) -> list[bytes]:
    cookie = f"Cookie: server_port={server_port}\r\n".encode()
    chosen = random.Random(25)
    deep = b"\x82\xa6object" + b"\x91" * 1_000_000 + b"\xc0\xa2id\xa1a"

    def request(body: bytes, *lines: bytes) -> bytes:
        return head(len(body), server_port)[:-2] + b"".join(lines) + b"\r\n" + body

    return [
        b"\x16\x03\x01" + chosen.randbytes(300) + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"BREW / HTTP/1.1\r\n" + cookie + b"\r\n",
        b"POST / HTTP/1.1\r\n" + cookie + b"\r\n",
        b"POST / HTTP/1.1\r\n" + cookie + b"Content-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + cookie + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + cookie + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nA: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"A: a\r\n" * 10_000 + b"\r\n",
        request(b""),
        request(b"\xc1"),
        request(chosen.randbytes(1000)),
        request(b"\xdd\xff\xff\xff\xff"),
        request(b"\x82\xa6object\xc6\xff\xff\xff\xff\xa2id\xa1a"),
        request(deep),
        request(ormsgpack.packb({"object": 1})),
        request(ormsgpack.packb({"id": "a"})),
        request(ormsgpack.packb({"object": 1, "id": [1]})),
        request(body_4(1, "a"), b"x-pool-wire: 2\r\nx-pool-nonce: -1\r\n"),
        request(b"\xff" * 64, b"x-pool-wire: 2\r\nx-pool-epoch: 0000000000000001\r\n"),
    ]


async def test_row_25_garbage() -> None:
    async with beside_genuine() as (pool, bob):
        requests = _garbage(bob.port)
        gc.collect()
        before = memory()
        for position, request in enumerate(requests):
            try:
                status, _ = await exchange(port_of(pool), request)
            except (OSError, asyncio.IncompleteReadError):
                continue
            assert 400 <= status < 506 and status != 500, f"request {position}: {status}"
        assert memory() - before < 20 * MIB
        # It is still there for others.
        assert (await post(port_of(pool), body_4("good", "a"), bob.port))[0] == 200
        assert await pool.recv("bob", "a") == "good"


async def test_row_26_dict_with_the_keys_type_and_data() -> None:
    messages = [
        {"type": "tuple", "data": [1, 2]},
        {"type": "unheard of", "data": None},
        [{"a": {"type": "int", "data": b"\x01"}}],
        {"data": 1, "type": 2, "more": 3},
    ]
    async with two() as (alice, bob):
        for message in messages:
            await alice.send("bob", message)
            assert await bob.recv("alice") == message
    async with beside_genuine() as (pool, raw):
        for message in messages:
            with pytest.raises(AmbiguousDict):
                await pool.send("bob", message)
        await pool.send("bob", {"type": 1})
        assert raw.messages == [{"object": {"type": 1}, "id": 0}]


async def test_row_27_big_endian_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.array([1, 2], dtype=">i4")
    async with two() as (alice, bob):
        await alice.send("bob", array)
        arrived = await bob.recv("alice")
        assert arrived.tolist() == [1, 2]
        assert arrived.dtype == array.dtype
    async with beside_genuine() as (pool, raw):
        await pool.send("bob", array, "a")
        assert raw.messages == [{"object": [1, 2], "id": "a"}]


async def test_row_28_numpy_keeps_dtype_and_shape() -> None:
    numpy = pytest.importorskip("numpy")
    whole = numpy.arange(24.0).reshape(2, 3, 4)
    arrays = [
        whole,
        whole[:, ::2, 1:],
        numpy.asfortranarray(whole[0]),
        numpy.arange(5, dtype="u1"),
        numpy.arange(100_000, dtype="f4"),
        numpy.array(3.5),
        numpy.zeros((0, 7), dtype="i2"),
        numpy.array([1 + 2j, 3]),
        numpy.array(["2024-02-29", "NaT"], dtype="M8[D]"),
        numpy.array(["a", "bcd"]),
        numpy.array([True, False]),
    ]
    async with two() as (alice, bob):
        for array in arrays:
            await alice.send("bob", array)
            arrived = await bob.recv("alice")
            assert isinstance(arrived, numpy.ndarray)
            assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
            numpy.testing.assert_array_equal(arrived, array)


NamedPair = collections.namedtuple("NamedPair", "left right")


@dataclasses.dataclass
class Plain:
    value: int


async def test_row_29_types_without_serialization_logic() -> None:
    async with two() as (alice, bob):
        for value in ({1, 2}, frozenset(), decimal.Decimal("1.5"), 1j, NamedPair(1, 2), Plain(3)):
            with pytest.raises(TypeError, match=type(value).__name__):
                await alice.send("bob", value)
        await alice.send("bob", "and on")
        assert await bob.recv("alice") == "and on"


async def test_row_30_import_in_a_thread_without_side_effects() -> None:
    script = """
        import logging, signal, sys, threading
        before = {s: signal.getsignal(s) for s in signal.Signals if s not in (9, 19)}
        handlers = list(logging.getLogger().handlers)
        problems = []
        def work():
            try:
                import convelo, convelo.compat.tno, convelo.compat.tno5, convelo.sync
            except BaseException as error:
                problems.append(repr(error))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert not problems, problems
        assert before == {s: signal.getsignal(s) for s in before}
        assert handlers == logging.getLogger().handlers
        assert threading.active_count() == 1
    """
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


async def test_row_31_mpfr_nan_and_infinity_send_no_uninitialised_byte() -> None:
    gmpy2 = pytest.importorskip("gmpy2")
    async with beside_genuine() as (pool, raw):
        for text in ("nan", "inf", "-inf"):
            for _ in range(20):
                await pool.send("bob", gmpy2.mpfr(text), text)
        blobs = collections.defaultdict(set)
        for message in raw.messages:
            blobs[message["id"]].add(message["object"]["data"])
        assert {name: len(found) for name, found in blobs.items()} == {
            "nan": 1,
            "inf": 1,
            "-inf": 1,
        }
        assert all(blob[3] == 0 for found in blobs.values() for blob in found)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


async def test_row_32_pickle_from_the_network_is_not_loaded(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    payload = pickle.dumps(Trap(trap))
    async with beside_genuine() as (pool, bob):
        # A sender that has pickle switched on for its own messages does not unpickle ours.
        pool.pool_handlers["bob"].use_pickle = True
        for position, value in enumerate(
            [{"type": "Trap", "data": payload}, [{"type": "mpz", "data": payload}], payload]
        ):
            await post(port_of(pool), body_4(value, position), bob.port)
            try:
                await pool.recv("bob", position, timeout=0.5)
            except (BodyError, ReceiveTimeout, ValueError):
                pass
            assert not trap.exists()


def _available_memory() -> int:
    for line in io.StringIO(Path("/proc/meminfo").read_text()):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


async def test_row_33_four_gib_on_the_compatible_wire_is_a_clear_error() -> None:
    async with beside_genuine() as (pool, raw):
        # Pages that nobody touches take no memory.
        with pytest.raises((MessageTooLarge, TypeError, ValueError), match="4 GiB|4294967295|large"):
            await asyncio.wait_for(pool.send("bob", bytes(1 << 32), "a"), 30)
        await pool.send("bob", "and on")
        assert raw.messages == [{"object": "and on", "id": 0}]


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_row_33_more_than_four_gib_between_our_own() -> None:
    size = (1 << 32) + 5
    if _available_memory() < 2 * size:
        pytest.skip(f"needs {2 * size >> 30} GiB of memory")
    async with two(message_limit=2 * size) as (alice, bob):
        sending = asyncio.create_task(alice.send("bob", bytes(size)))
        arrived = await asyncio.wait_for(bob.recv("alice"), 120)
        await sending
        assert len(arrived) == size
        assert arrived[-1] == 0


async def test_row_34_pool_without_a_loop() -> None:
    script = """
        import asyncio, warnings
        warnings.simplefilter("error")
        from convelo import Pool
        alice, bob = Pool(), Pool()
        for pool in (alice, bob):
            pool.add_http_server(port=0, addr="127.0.0.1")
        alice.add_http_client("bob", "127.0.0.1", port=bob.http_server.port)
        bob.add_http_client("alice", "127.0.0.1", port=alice.http_server.port)
        async def main():
            await alice.send("bob", "hello")
            assert await bob.recv("alice") == "hello"
            await alice.shutdown()
            await bob.shutdown()
        asyncio.run(main())
    """
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def test_a_silent_peer_does_not_hold_a_bounded_send() -> None:
    """Beside the list: the body arrives and no answer ever comes."""
    async with beside_genuine(lambda _body: SILENCE) as (pool, _):
        with pytest.raises(SendTimeout) as caught:
            await asyncio.wait_for(pool.send("bob", "hello", timeout=0.5, max_retries=0), 10)
        assert caught.value.maybe_delivered is True


async def test_a_version_5_body_to_a_version_4_pool_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Beside the list: the genuine 4.x gives such bodies to the application without a word."""
    async with beside_genuine() as (pool, bob):
        with caplog.at_level(logging.WARNING):
            for number in "01":
                body = body_5({"a": "hello"}, number)
                assert (await post(port_of(pool), body, bob.port))[0] == 200
            await nothing_more(pool, "bob")
        hints = [record.getMessage() for record in caplog.records]
        assert sum("'bob'" in hint and "wire=5" in hint for hint in hints) == 1, hints


async def test_a_peer_that_resets_instead_of_answering_is_tried_again() -> None:
    """Beside the list."""
    answers = iter([RESET, 200])
    async with beside_genuine(lambda _body: next(answers)) as (pool, bob):
        await asyncio.wait_for(pool.send("bob", "hello", "a"), 10)
        assert bob.messages == [{"object": "hello", "id": "a"}] * 2
