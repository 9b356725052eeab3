"""The pool without ``async``."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from convelo import BodyError, PeerUnreachable, PoolClosed, ReceiveTimeout, ShutdownError
from convelo.sync import Pool


@pytest.fixture
def duo() -> Iterator[tuple[Pool, Pool]]:
    with Pool() as alice, Pool() as bob:
        for pool in (alice, bob):
            pool.add_http_server(0, "127.0.0.1")
        alice.add_http_client("bob", "127.0.0.1", bob.http_server.port)
        bob.add_http_client("alice", "127.0.0.1", alice.http_server.port)
        yield alice, bob


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "convelo-pool"]


def test_a_receive_of_a_type() -> None:
    with Pool() as alice, Pool() as bob:
        for pool in (alice, bob):
            pool.add_http_server(0, "127.0.0.1")
        assert alice.http_server is not None and bob.http_server is not None
        alice.add_http_client("bob", "127.0.0.1", bob.http_server.port)
        bob.add_http_client("alice", "127.0.0.1", alice.http_server.port)
        alice.send("bob", [1])
        alice.send("bob", [2])
        assert bob.recv("alice", type=list)[0] == 1
        with pytest.raises(BodyError, match="is list, expected dict"):
            bob.recv("alice", type=dict)
        assert repr(bob).startswith("<convelo.sync.Pool on 127.0.0.1:")


def test_all_calls(duo: tuple[Pool, Pool]) -> None:
    alice, bob = duo
    alice.send("bob", 1)
    alice.asend("bob", 2)
    assert [bob.recv("alice"), bob.recv("alice", timeout=5)] == [1, 2]
    future = bob.arecv("alice", "named")
    alice.broadcast(3, "named")
    alice.async_broadcast(4, "also named")
    assert future.result(5) == 3
    assert bob.recv_all(msg_id="also named", timeout=5) == [("alice", 4)]
    bob.update_msg_prefix("p")
    alice.update_msg_prefix("p")
    alice.send("bob", 5, "x")
    assert list(bob.pool_handlers["alice"].buffer) == ["px"]
    assert bob.recv("alice", "x") == 5
    assert alice.fingerprint is None


def test_errors_and_timeouts(duo: tuple[Pool, Pool]) -> None:
    alice, bob = duo
    with pytest.raises(ReceiveTimeout):
        bob.recv("alice", timeout=0.01)
    with pytest.raises(TypeError):
        alice.asend("bob", object())
    future = bob.arecv("alice")
    assert future.cancel()
    alice.send("bob", "here")
    assert bob.recv("alice", timeout=5) == "here"


async def test_inside_of_a_running_loop(duo: tuple[Pool, Pool]) -> None:
    """As in a notebook."""
    assert asyncio.get_running_loop().is_running()
    alice, bob = duo
    alice.send("bob", "hello")
    assert bob.recv("alice") == "hello"


def test_from_several_threads(duo: tuple[Pool, Pool]) -> None:
    alice, bob = duo
    received: list[Any] = []

    def receive(name: str) -> None:
        received.extend(bob.recv("alice", f"{name}{i}", timeout=10) for i in range(50))

    receivers = [threading.Thread(target=receive, args=(name,)) for name in "ab"]
    for thread in receivers:
        thread.start()
    for i in range(50):
        alice.send("bob", i, f"a{i}")
        alice.send("bob", i, f"b{i}")
    for thread in receivers:
        thread.join(20)
    assert sorted(received) == sorted([*range(50), *range(50)])


def test_receives_are_cancelled_while_their_messages_arrive(duo: tuple[Pool, Pool]) -> None:
    alice, bob = duo
    chance = random.Random(7)
    received: list[Any] = []
    sender = threading.Thread(target=lambda: [alice.send("bob", i) for i in range(300)])
    sender.start()
    while len(received) < 300:
        future = bob.arecv("alice")
        if chance.random() < 0.5:
            time.sleep(chance.random() / 1000)
        if not future.cancel():
            received.append(future.result(10))
    sender.join(10)
    assert received == list(range(300))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, also if these tests run in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_receive_leaves_no_trace(duo: tuple[Pool, Pool]) -> None:
    alice, bob = duo

    def interrupt() -> None:
        time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        bob.recv("alice", timeout=20)
    thread.join()
    alice.send("bob", "still here")
    assert bob.recv("alice", timeout=5) == "still here"


def test_shutdown_ends_the_thread_and_names_what_was_lost() -> None:
    before = len(threads())
    pool = Pool(max_retries=0)
    pool.add_http_server(0, "127.0.0.1")
    pool.add_http_client("bob", "127.0.0.1", 1)
    assert len(threads()) == before + 1
    with pytest.raises(PeerUnreachable):
        pool.send("bob", 1)
    pool.asend("bob", 1, "lost")
    with pytest.raises(ShutdownError, match="lost"):
        pool.shutdown()
    pool.shutdown()
    assert len(threads()) == before
    with pytest.raises(PoolClosed):
        pool.recv("bob")


def test_a_forgotten_pool_ends_its_thread() -> None:
    before = len(threads())
    pool = Pool()
    assert len(threads()) == before + 1
    del pool
    gc.collect()
    deadline = time.monotonic() + 5
    while len(threads()) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(threads()) == before


def test_a_hook_that_waits_is_told_so() -> None:
    told: list[BaseException] = []

    def hook(error: Exception) -> None:
        try:
            pool.recv("bob")
        except RuntimeError as refusal:
            told.append(refusal)

    pool = Pool(max_retries=0, on_error=hook)
    pool.add_http_server(0, "127.0.0.1")
    pool.add_http_client("bob", "127.0.0.1", 1)
    pool.asend("bob", 1)
    pool.shutdown()
    assert len(told) == 1
