"""What the genuine package does wrong, row by row, and is right here.

The rows are those of the table in docs/pool-migration.md. What needs a network that misbehaves is
in the tests of the transport.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from decimal import Decimal

import pytest

from convelo import (
    AmbiguousDict,
    MessageTooLarge,
    PeerRefused,
    PeerUnreachable,
    Pool,
    PoolClosed,
    SendError,
    ShutdownError,
)
from convelo.compat.tno import pool as pool_module

Duo = tuple[Pool, Pool]


async def free_port() -> int:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    return port


async def test_row_3_one_id_sent_twice_before_recv(duo: Duo) -> None:
    alice, bob = duo
    sent = asyncio.gather(alice.send("bob", 1, "same"), alice.send("bob", 2, "same"))
    assert [await bob.recv("alice", "same"), await bob.recv("alice", "same")] == [1, 2]
    await sent


async def test_row_4_receiver_not_up_is_waited_for_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    alice, bob = Pool(), Pool()
    port = await free_port()
    alice.add_http_server(0, "127.0.0.1")
    alice.add_http_client("bob", "127.0.0.1", port)
    sending = asyncio.create_task(alice.send("bob", "early"))
    await asyncio.sleep(0.5)
    assert not sending.done()
    bob.add_http_server(port, "127.0.0.1")
    bob.add_http_client("alice", "127.0.0.1", alice.http_server.port)
    assert await bob.recv("alice", timeout=10) == "early"
    await sending
    await asyncio.gather(alice.shutdown(), bob.shutdown())
    assert len([record for record in caplog.records if "bob" in record.getMessage()]) <= 1


async def test_row_5_used_up_retries_raise() -> None:
    async with Pool(max_retries=0) as alice:
        alice.add_http_server(0, "127.0.0.1")
        alice.add_http_client("bob", "127.0.0.1", await free_port())
        with pytest.raises(PeerUnreachable, match="bob") as caught:
            await alice.send("bob", 1, "first")
        assert caught.value.peer == "bob"
        assert not caught.value.maybe_delivered
        assert isinstance(caught.value, ConnectionError)


async def test_row_6_a_peer_that_does_not_know_us_is_an_error_at_once() -> None:
    async with Pool() as alice, Pool() as bob:
        for pool in (alice, bob):
            pool.add_http_server(0, "127.0.0.1")
        alice.add_http_client("bob", "127.0.0.1", bob.http_server.port)
        async with asyncio.timeout(10):
            with pytest.raises(PeerRefused, match="bob"):
                await alice.send("bob", 1)


async def test_row_9_none_that_arrives_before_recv(duo: Duo) -> None:
    alice, bob = duo
    await alice.send("bob", None)
    assert await bob.recv("alice", timeout=5) is None
    await alice.send("bob", None, "named")
    future = bob.arecv("alice", "named")
    assert future is None


async def test_row_10_what_cannot_be_packed_does_not_advance(duo: Duo) -> None:
    alice, bob = duo
    await alice.send("bob", 0)
    for broken in (object(), {1, 2}, [Decimal(1)]):
        with pytest.raises(TypeError):
            await alice.send("bob", broken)
        with pytest.raises(TypeError):
            alice.asend("bob", broken)
        with pytest.raises(TypeError):
            await alice.broadcast(broken, "id")
    await alice.send("bob", 1)
    assert [await bob.recv("alice", timeout=5) for _ in range(2)] == [0, 1]


async def test_row_11_a_late_message_is_received_by_the_next_recv(duo: Duo) -> None:
    alice, bob = duo
    with pytest.raises(TimeoutError):
        await bob.recv("alice", timeout=0.01)
    with pytest.raises(asyncio.TimeoutError):
        await bob.recv("alice", "named", timeout=0.01)
    await alice.send("bob", "late")
    assert await bob.recv("alice", timeout=5) == "late"
    await alice.send("bob", "next")
    assert await bob.recv("alice", timeout=5) == "next"


async def test_row_12_recv_again_with_the_same_id_after_a_timeout(duo: Duo) -> None:
    alice, bob = duo
    for _ in range(3):
        with pytest.raises(TimeoutError, match="named"):
            await bob.recv("alice", "named", timeout=0.01)
    receiving = asyncio.create_task(bob.recv("alice", "named"))
    await asyncio.sleep(0.01)
    await alice.send("bob", "here", "named")
    assert await receiving == "here"
    # Three receives that came to nothing count as none.
    await alice.send("bob", "default")
    assert await bob.recv("alice", timeout=5) == "default"


async def test_row_13_two_concurrent_recv_of_one_id(duo: Duo) -> None:
    alice, bob = duo
    both = [asyncio.create_task(bob.recv("alice", "one")) for _ in range(2)]
    await asyncio.sleep(0.01)
    await alice.send("bob", "first", "one")
    done, waiting = await asyncio.wait(both, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == ["first"]
    await alice.send("bob", "second", "one")
    assert await waiting.pop() == "second"


async def test_row_15_asend_and_shutdown_delivers(duo: Duo) -> None:
    alice, bob = duo
    for number in range(100):
        alice.asend("bob", number)
    await alice.shutdown()
    assert [await bob.recv("alice", timeout=5) for _ in range(100)] == list(range(100))


async def test_row_15_a_lost_asend_is_named_at_shutdown() -> None:
    alice = Pool(max_retries=0)
    alice.add_http_server(0, "127.0.0.1")
    alice.add_http_client("bob", "127.0.0.1", await free_port())
    alice.asend("bob", 1, "first")
    alice.asend("bob", 2, "second")
    with pytest.raises(ShutdownError, match="2 messages") as caught:
        await alice.shutdown()
    assert len(caught.value.lost) == 2
    assert all("bob" in line for line in caught.value.lost)
    await alice.shutdown()


async def test_row_15_shutdown_names_what_it_had_no_time_for() -> None:
    alice = Pool()
    alice.add_http_server(0, "127.0.0.1")
    alice.add_http_client("bob", "127.0.0.1", await free_port())
    alice.asend("bob", 1, "first")
    with pytest.raises(ShutdownError, match="'first' to 'bob'"):
        await alice.shutdown(flush=0.05)


async def test_row_15_a_hook_gets_the_errors_instead() -> None:
    errors: list[Exception] = []
    alice = Pool(max_retries=0, on_error=errors.append)
    alice.add_http_server(0, "127.0.0.1")
    alice.add_http_client("bob", "127.0.0.1", await free_port())
    alice.asend("bob", 1)
    alice.async_broadcast(1, "to all")
    await alice.shutdown()
    assert len(errors) == 2
    assert all(isinstance(error, SendError) and error.peer == "bob" for error in errors)


async def test_row_16_own_shutdown_while_recv_waits(duo: Duo) -> None:
    alice, bob = duo
    receiving = [
        asyncio.create_task(bob.recv("alice")),
        asyncio.create_task(bob.recv_all(msg_id="named")),
        asyncio.ensure_future(bob.arecv("alice", "future")),
    ]
    await asyncio.sleep(0.01)
    await bob.shutdown()
    for task in receiving:
        with pytest.raises(PoolClosed):
            await task
    with pytest.raises(PoolClosed):
        await bob.send("alice", 1)
    with pytest.raises(PoolClosed):
        await bob.recv("alice")
    await alice.shutdown()


async def test_row_18_a_sender_waits_when_nobody_receives(connect: object) -> None:
    alice, bob = connect(mailbox_limit=1 << 20)  # type: ignore[operator]
    block = bytes(200_000)
    sending = [asyncio.create_task(alice.send("bob", block)) for _ in range(20)]
    await asyncio.sleep(0.5)
    assert 0 < sum(task.done() for task in sending) < 10
    for _ in sending:
        assert await bob.recv("alice", timeout=10) == block
    await asyncio.gather(*sending)


async def test_row_21_plain_http_is_named_insecure_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_said_unauthenticated", False)
    for _ in range(3):
        async with Pool() as pool:
            pool.add_http_server(0, "127.0.0.1")
    warnings = [record for record in caplog.records if "plain HTTP" in record.getMessage()]
    assert [record.levelname for record in warnings] == ["WARNING"]
    assert warnings[0].name.startswith("tno.mpc.communication.pool")


async def test_row_26_a_dict_with_type_and_data(connect: object) -> None:
    message = {"type": "tuple", "data": [1], "more": {"type": 1, "data": 2}}
    alice, bob = connect()  # type: ignore[operator]
    await alice.send("bob", message)
    assert await bob.recv("alice", timeout=5) == message
    alice, bob = connect(4)  # type: ignore[operator]
    with pytest.raises(AmbiguousDict):
        await alice.send("bob", message)
    await alice.send("bob", "next")
    assert await bob.recv("alice", timeout=5) == "next"


async def test_rows_27_and_28_numpy(connect: object) -> None:
    numpy = pytest.importorskip("numpy")
    arrays = [
        numpy.array([1, 2], ">i4"),
        numpy.arange(6.0).reshape(2, 3),
        numpy.asfortranarray(numpy.arange(6, dtype="u2").reshape(2, 3)),
        numpy.arange(10_000, dtype="f4")[::2],
        numpy.array(3),
        numpy.zeros((0, 4), "c16"),
    ]
    alice, bob = connect()  # type: ignore[operator]
    for array in arrays:
        await alice.send("bob", array)
        received = await bob.recv("alice", timeout=5)
        assert isinstance(received, numpy.ndarray)
        assert (received.dtype, received.shape) == (array.dtype, array.shape)
        assert (received == array).all()
    alice, bob = connect(4)  # type: ignore[operator]
    await alice.send("bob", arrays[0])
    assert await bob.recv("alice", timeout=5) == [1, 2]


async def test_row_28_arrays_can_be_writable(connect: object) -> None:
    numpy = pytest.importorskip("numpy")
    for writable in (False, True):
        alice, bob = connect(writable_arrays=writable)  # type: ignore[operator]
        await alice.send("bob", numpy.arange(10_000))
        assert (await bob.recv("alice", timeout=5)).flags.writeable is writable


def test_row_30_import_in_a_thread_without_side_effects() -> None:
    program = """
import json, logging, signal, ssl, sys, threading
before = (signal.getsignal(signal.SIGTERM), ssl.SSLContext.load_cert_chain)
thread = threading.Thread(target=lambda: __import__("convelo.compat.tno5"))
thread.start()
thread.join()
after = (signal.getsignal(signal.SIGTERM), ssl.SSLContext.load_cert_chain)
print(json.dumps({
    "imported": "convelo.compat.tno5" in sys.modules,
    "same": before == after,
    "handlers": len(logging.getLogger().handlers),
    "heavy": [n for n in ("numpy", "pandas", "aiohttp", "gmpy2", "torch") if n in sys.modules],
    "threads": threading.active_count(),
}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    found = json.loads(done.stdout)
    assert found.pop("heavy") is not None
    assert found == {"imported": True, "same": True, "handlers": 0, "threads": 1}


async def test_row_33_too_large_is_said_before_it_is_sent(connect: object) -> None:
    alice, bob = connect(message_limit=1 << 20)  # type: ignore[operator]
    with pytest.raises(MessageTooLarge, match="bob"):
        await alice.send("bob", bytes(2 << 20))
    await alice.send("bob", "next")
    assert await bob.recv("alice", timeout=5) == "next"


def test_row_34_a_pool_without_a_loop() -> None:
    def make_and_use() -> None:
        alice, bob = Pool(), Pool()
        for pool in (alice, bob):
            pool.add_http_server(0, "127.0.0.1")
        alice.add_http_client("bob", "127.0.0.1", bob.http_server.port)
        bob.add_http_client("alice", "127.0.0.1", alice.http_server.port)

        async def greet() -> None:
            await alice.send("bob", "hello")
            assert await bob.recv("alice") == "hello"

        # Several loops, one after the other.
        asyncio.run(greet())
        asyncio.run(greet())

        async def end() -> None:
            await asyncio.gather(alice.shutdown(), bob.shutdown())

        asyncio.run(end())
        results.append("done")

    results: list[str] = []
    thread = threading.Thread(target=make_and_use)
    thread.start()
    thread.join(30)
    assert results == ["done"]
