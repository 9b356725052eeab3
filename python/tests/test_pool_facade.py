"""The pool of the 4.8 API: its calls, and what they leave behind when they fail."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import random
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from convelo import (
    BodyError,
    MessageTooLarge,
    PeerUnreachable,
    Pool,
    PoolClosed,
    QueueFull,
    ReceiveTimeout,
    RepetitionError,
    SendError,
    SendTimeout,
    Serialization,
    ShutdownError,
    _pool,
    pki,
)
from convelo.compat.tno import serialization
from convelo.compat.tno.httphandlers import HTTPClient, ParkedMessage

Duo = tuple[Pool, Pool]
Connect = Callable[..., Duo]


async def free_port() -> int:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    return port


async def lonely(**arguments: Any) -> Pool:
    """A pool whose peer ``bob`` is not there."""
    pool = Pool(**arguments)
    pool.add_http_server(0, "127.0.0.1")
    pool.add_http_client("bob", "127.0.0.1", await free_port())
    return pool


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    pki.new_authority(directory)
    for name in ("alice", "bob"):
        pki.issue(directory, name)
        pki.new_identity(directory, f"{name}_own")
    return directory


class Box:
    """A class with serialization logic that sees where a message goes and comes from."""

    seen: list[Any] = []

    def __init__(self, content: Any) -> None:
        self.content = content

    def serialize(self, *, destination: Any, **_kwargs: Any) -> dict[str, Any]:
        self.seen.append(destination)
        return {"content": self.content}

    @staticmethod
    def deserialize(obj: dict[str, Any], *, origin: Any, **_kwargs: Any) -> Box:
        Box.seen.append(origin)
        if obj["content"] == "bad":
            raise RuntimeError("bad content")
        return Box(obj["content"])


@pytest.fixture
def boxes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(serialization, "SERIALIZER_FUNCS", serialization.SERIALIZER_FUNCS.copy())
    monkeypatch.setattr(
        serialization, "DESERIALIZER_FUNCS", serialization.DESERIALIZER_FUNCS.copy()
    )
    Serialization.register_class(Box)
    monkeypatch.setattr(Box, "seen", [])
    return Box.seen


async def test_send_and_recv_in_both_directions(duo: Duo) -> None:
    alice, bob = duo
    await alice.send("bob", {"a": [1, (2, None)]})
    await bob.send("alice", "answer", "with id")
    assert await bob.recv("alice") == {"a": [1, (2, None)]}
    assert await alice.recv("bob", "with id") == "answer"


async def test_send_is_a_coroutine_and_arecv_a_future_or_the_message(duo: Duo) -> None:
    alice, bob = duo
    sending, future = alice.send("bob", 1), bob.arecv("alice")
    assert asyncio.iscoroutine(sending)
    assert asyncio.isfuture(future)
    await sending
    assert future.result() == 1
    await alice.send("bob", None)
    assert bob.arecv("alice") is None


async def test_a_future_is_done_before_its_send_returns(duo: Duo) -> None:
    alice, bob = duo
    for number in range(50):
        future = bob.arecv("alice", f"{number}")
        await alice.send("bob", number, f"{number}")
        assert future.result() == number


async def test_chosen_ids_count_too(duo: Duo) -> None:
    """As in the genuine package: the default id is the number of messages before."""
    alice, bob = duo
    await alice.send("bob", "first", "chosen")
    await alice.broadcast("second", "also chosen")
    await alice.send("bob", "third")
    assert set(bob.pool_handlers["alice"].buffer) == {"chosen", "also chosen", 2}
    assert alice.pool_handlers["bob"].msg_send_counter == 3
    assert await bob.recv("alice", "chosen") == "first"
    assert await bob.recv("alice", "also chosen") == "second"
    assert await bob.recv("alice", timeout=5) == "third"


async def test_messages_to_a_new_peer_keep_the_order_of_their_calls(connect: Connect) -> None:
    alice, bob = connect()
    tasks = []
    for number in range(0, 60, 3):
        alice.asend("bob", number)
        tasks.append(asyncio.create_task(alice.send("bob", number + 1)))
        await asyncio.sleep(0)
        alice.asend("bob", number + 2)
    assert [await bob.recv("alice", timeout=5) for _ in range(60)] == list(range(60))
    await asyncio.gather(*tasks)


async def test_a_cancelled_turn_does_not_hold_the_next(connect: Connect) -> None:
    alice = await lonely()
    port = alice.pool_handlers["bob"].port
    first = asyncio.create_task(alice.send("bob", "cancelled"))
    await asyncio.sleep(0)
    second = asyncio.create_task(alice.send("bob", "sent"))
    await asyncio.sleep(0.05)
    first.cancel()
    bob = Pool()
    bob.add_http_server(port, "127.0.0.1")
    bob.add_http_client("alice", "127.0.0.1", alice.http_server.port)
    await second
    assert await bob.recv("alice", timeout=5) == "sent"
    await asyncio.gather(alice.shutdown(), bob.shutdown())


async def test_recv_that_is_cancelled_leaves_no_trace(duo: Duo) -> None:
    alice, bob = duo
    for _ in range(5):
        receiving = asyncio.create_task(bob.recv("alice"))
        await asyncio.sleep(0)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        bob.arecv("alice").cancel()
        await asyncio.sleep(0)
    assert bob.pool_handlers["alice"].msg_recv_counter == 0
    await alice.send("bob", "here")
    assert await bob.recv("alice", timeout=5) == "here"


async def test_a_cancelled_receive_gives_its_id_back_at_once(duo: Duo) -> None:
    alice, bob = duo
    receiving, future = asyncio.create_task(bob.recv("alice")), None
    await asyncio.sleep(0)
    receiving.cancel()
    future = bob.arecv("alice")
    future.cancel()
    await alice.send("bob", "here")
    assert await bob.recv("alice", timeout=5) == "here"


async def test_receives_are_cancelled_while_their_messages_arrive(duo: Duo) -> None:
    alice, bob = duo
    chance = random.Random(5)
    received: list[int] = []
    count = 400

    async def send_all() -> None:
        for number in range(count):
            await alice.send("bob", number)

    sending = asyncio.create_task(send_all())
    while len(received) < count:
        receiving = asyncio.create_task(bob.recv("alice", timeout=10))
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait((receiving,))
        if not receiving.cancelled():
            received.append(receiving.result())
    await sending
    assert received == list(range(count))


async def test_timeouts_while_messages_arrive(duo: Duo) -> None:
    alice, bob = duo
    chance = random.Random(6)
    count = 200
    received: list[int] = []

    async def send_all() -> None:
        for number in range(count):
            await asyncio.sleep(chance.random() / 500)
            await alice.send("bob", number, "same")

    sending = asyncio.create_task(send_all())
    while len(received) < count:
        try:
            received.append(await bob.recv("alice", "same", timeout=chance.random() / 500))
        except ReceiveTimeout as error:
            assert (error.peer, error.message_id) == ("alice", "same")
    await sending
    assert received == list(range(count))


async def test_recv_all_takes_all_or_none(http_pool_trio: tuple[Pool, Pool, Pool]) -> None:
    alice, bob, carol = http_pool_trio
    await bob.send("local0", "of bob")
    with pytest.raises(ReceiveTimeout, match="'local2'") as caught:
        await alice.recv_all(timeout=0.05)
    assert "local1" not in str(caught.value)
    waiting = asyncio.create_task(alice.recv_all(["local1", "local2"]))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await carol.send("local0", "of carol")
    assert await alice.recv_all(timeout=5) == [("local1", "of bob"), ("local2", "of carol")]


async def test_arecv_all_and_recv_all_keep_the_order(
    http_pool_group_factory: Callable[[int], tuple[Pool, ...]],
) -> None:
    pools = http_pool_group_factory(4)
    await asyncio.gather(*(pool.send("local0", i, "id") for i, pool in enumerate(pools) if i))
    assert pools[0].arecv_all(["local3", "local1"], "id") == (("local3", 3), ("local1", 1))
    assert await pools[0].recv_all(["local2"], "id") == [("local2", 2)]


async def test_what_cannot_be_decoded_is_gone_and_named(duo: Duo, boxes: list[Any]) -> None:
    alice, bob = duo
    await alice.send("bob", Box("bad"), "the id")
    await alice.send("bob", Box("good"))
    with pytest.raises(BodyError, match="'the id' from 'alice'.*bad content") as caught:
        await bob.recv("alice", "the id")
    assert (caught.value.peer, caught.value.message_id) == ("alice", "the id")
    assert (await bob.recv("alice", timeout=5)).content == "good"


async def test_serializers_learn_destination_and_origin(duo: Duo, boxes: list[Any]) -> None:
    alice, bob = duo
    await alice.send("bob", Box(1))
    await bob.recv("alice")
    assert boxes == [alice.pool_handlers["bob"], bob.pool_handlers["alice"]]
    boxes.clear()
    await alice.broadcast(Box(2), "id")
    assert boxes == [[alice.pool_handlers["bob"]]]


async def test_what_cannot_be_packed_does_not_advance(duo: Duo) -> None:
    alice, bob = duo
    for broken in (object(), {1, 2}, [Decimal(1)]):
        with pytest.raises(TypeError):
            await alice.send("bob", broken)
        with pytest.raises(TypeError):
            alice.asend("bob", broken)
        with pytest.raises(TypeError):
            await alice.broadcast(broken, "id")
        with pytest.raises(TypeError):
            alice.async_broadcast(broken, "id")
    await alice.send("bob", 1)
    assert await bob.recv("alice", timeout=5) == 1


async def test_asend_packs_at_once(connect: Connect) -> None:
    for wire in (None, 4):
        alice, bob = connect(wire)
        for _ in range(2):
            changing, data = [1, [2]], bytearray(b"x" * 10_000)
            large = bytearray(b"x" * 1_000_000)
            assert alice.asend("bob", changing) is None
            alice.asend("bob", data)
            alice.asend("bob", large)
            changing.append(3)
            data[:] = b"y" * len(data)
            large[:] = b"y" * len(large)
            assert await bob.recv("alice", timeout=5) == [1, [2]]
            assert await bob.recv("alice", timeout=5) == b"x" * 10_000
            assert await bob.recv("alice", timeout=5) == b"x" * 1_000_000


async def test_shutdown_sends_what_was_not_awaited(connect: Connect) -> None:
    alice, bob = connect()
    for number in range(200):
        alice.asend("bob", number)
    await alice.shutdown()
    assert [await bob.recv("alice", timeout=5) for _ in range(200)] == list(range(200))


async def test_shutdown_names_what_was_lost() -> None:
    alice = await lonely(max_retries=0)
    alice.asend("bob", 1, "first")
    alice.asend("bob", 2, "second")
    with pytest.raises(ShutdownError, match="2 messages") as caught:
        await alice.shutdown()
    assert len(caught.value.lost) == 2
    assert "'first' to 'bob'" in caught.value.lost[0]
    await alice.shutdown()


async def test_shutdown_names_what_it_had_no_time_for() -> None:
    alice = await lonely()
    alice.asend("bob", 1, "first")
    with pytest.raises(ShutdownError, match="'first' to 'bob'"):
        await alice.shutdown(flush=0.05)


async def test_a_hook_gets_the_errors_instead() -> None:
    errors: list[Exception] = []
    alice = await lonely(max_retries=0, on_error=errors.append)
    alice.asend("bob", 1, "first")
    alice.async_broadcast(1, "to all")
    await alice.shutdown()
    assert [type(error) for error in errors] == [PeerUnreachable, PeerUnreachable]
    assert [error.message_id for error in errors] == ["first", "to all"]


@pytest.mark.parametrize("wire", [None, 2, 4])
@pytest.mark.parametrize("ending", ["shutdown", "abort"])
async def test_a_full_queue_is_refused_and_ends_in_time(wire: int | None, ending: str) -> None:
    queue = 32_768
    errors: list[Exception] = []
    alice = Pool(on_error=errors.append)
    alice.add_http_server(0, "127.0.0.1")
    alice.add_http_client("bob", "127.0.0.1", await free_port(), wire=wire)
    for _ in range(queue):
        alice.asend("bob", None)
    with pytest.raises(QueueFull, match="32768 messages"):
        await alice.send("bob", None)
    began = time.monotonic()
    if ending == "abort":
        alice.abort()
    else:
        await alice.shutdown(flush=0.2)
    while len(errors) < queue and time.monotonic() - began < 20:
        await asyncio.sleep(0.05)
    assert time.monotonic() - began < 20
    assert len(errors) == queue
    assert {type(error) for error in errors} == {PoolClosed}


async def test_own_shutdown_ends_what_waits(duo: Duo) -> None:
    _, bob = duo
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
    with pytest.raises(PoolClosed):
        await bob.broadcast(1, "id")


async def test_a_pool_can_be_used_again_after_shutdown(connect: Connect) -> None:
    alice, bob = connect()
    port = bob.http_server.port
    await bob.shutdown()
    bob.add_http_server(port, "127.0.0.1")
    bob.add_http_client("alice", "127.0.0.1", alice.http_server.port)
    await bob.send("alice", "again")
    assert await alice.recv("bob", timeout=5) == "again"


async def test_async_with_ends_the_pool_and_keeps_the_error() -> None:
    async with Pool() as pool:
        pool.add_http_server(0, "127.0.0.1")
        port = pool.http_server.port
    with pytest.raises(KeyError) as caught:
        async with await lonely() as pool:
            pool.asend("bob", 1, "first")
            raise KeyError("why")
    assert any("'first' to 'bob'" in note for note in caught.value.__notes__)
    async with Pool() as pool:
        pool.add_http_server(port, "127.0.0.1")


async def test_bounded_sends_raise_typed_errors() -> None:
    async with await lonely(timeout=0.2, max_retries=0) as alice:
        with pytest.raises(PeerUnreachable, match="'first'") as caught:
            await alice.send("bob", 1, "first")
        assert isinstance(caught.value, ConnectionError)
        assert (caught.value.peer, caught.value.message_id) == ("bob", "first")
        assert not caught.value.maybe_delivered

    held: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    async with Pool(timeout=0.2, max_retries=0) as alice:
        alice.add_http_server(0, "127.0.0.1")
        alice.add_http_client("bob", "127.0.0.1", silent.sockets[0].getsockname()[1], wire=4)
        with pytest.raises(SendTimeout) as timed_out:
            await alice.send("bob", 1, "first")
        assert isinstance(timed_out.value, TimeoutError)
        assert timed_out.value.maybe_delivered
    silent.close()
    for writer in held:
        writer.close()


async def test_timeouts_of_aiohttp_are_understood() -> None:
    class ClientTimeout:
        total = 0.5

    async with await lonely(timeout=ClientTimeout()) as alice:
        assert isinstance(alice.default_timeout, ClientTimeout)
        with pytest.raises(SendError):
            await alice.send("bob", 1, timeout=ClientTimeout(), max_retries=0)
    for bad in ("5", True, object()):
        with pytest.raises(TypeError, match="timeout"):
            Pool(timeout=bad)
    with pytest.raises(ValueError, match="past"):
        Pool(timeout=-1)


async def test_names_that_are_not_known() -> None:
    pool = Pool()
    with pytest.raises(AttributeError):
        pool.asend("bob", 1)
    with pytest.raises(AttributeError):
        pool.arecv("bob")
    async with await lonely() as alice:
        for work in (
            alice.send("carol", 1),
            alice.recv("carol"),
            alice.recv_all(["carol"]),
            alice.broadcast(1, "id", ["carol"]),
        ):
            with pytest.raises(AttributeError, match='"carol".*"bob"'):
                await work


async def test_client_and_server_in_any_order() -> None:
    alice, bob = Pool(), Pool()
    port = await free_port()
    alice.add_http_client("bob", "127.0.0.1", port)
    bob.add_http_server(port, "127.0.0.1")
    alice.add_http_server(0, "127.0.0.1")
    assert alice.http_server is not None
    bob.add_http_client("alice", "127.0.0.1", alice.http_server.port)
    async with alice, bob:
        await alice.send("bob", [1])
        await bob.send("alice", (2,))
        assert await bob.recv("alice") == [1]
        assert await alice.recv("bob") == (2,)
        with pytest.raises(RepetitionError):
            alice.add_http_server(0, "127.0.0.1")


async def test_a_port_that_was_taken_leaves_the_peers_known() -> None:
    async with Pool() as other, Pool() as alice, Pool() as bob:
        other.add_http_server(0, "127.0.0.1")
        bob.add_http_server(0, "127.0.0.1")
        assert other.http_server is not None and bob.http_server is not None
        alice.add_http_client("bob", "127.0.0.1", bob.http_server.port)
        with pytest.raises(OSError, match="has that port"):
            alice.add_http_server(other.http_server.port, "127.0.0.1")
        alice.add_http_server(0, "127.0.0.1")
        assert alice.http_server is not None
        bob.add_http_client("alice", "127.0.0.1", alice.http_server.port)
        await alice.send("bob", 1)
        assert await bob.recv("alice") == 1


async def test_a_cell_that_is_run_again_is_told_to_shut_its_pool_down() -> None:
    first = Pool()
    first.add_http_server(0, "127.0.0.1")
    assert first.http_server is not None
    port = first.http_server.port
    advice = r"a pool of this process has that port; shutdown\(\) it"
    with pytest.raises(OSError, match=advice) as caught:
        Pool().add_http_server(port, "127.0.0.1")
    assert caught.value.errno == errno.EADDRINUSE
    await first.shutdown()
    async with Pool() as second:
        second.add_http_server(port, "127.0.0.1")


async def test_a_port_of_somebody_else_is_not_blamed_on_a_pool() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    with pytest.raises(OSError, match="in use") as caught:
        Pool().add_http_server(server.sockets[0].getsockname()[1], "127.0.0.1")
    assert "this process" not in str(caught.value)
    server.close()


async def test_a_pool_says_where_it_listens_and_who_its_peers_are() -> None:
    pool = Pool()
    assert repr(pool) == "<convelo.Pool that does not listen yet; peers: none>"
    pool.add_http_client("Bob", "bob.example.org", 8061)
    pool.add_http_server(0, "127.0.0.1")
    assert pool.http_server is not None
    assert repr(pool) == (
        f"<convelo.Pool on 127.0.0.1:{pool.http_server.port}, plain HTTP; "
        "peers: 'Bob' at bob.example.org:8061>"
    )
    await pool.shutdown()
    assert repr(pool) == "<convelo.Pool that was shut down>"


async def test_a_receive_of_a_type(duo: Duo) -> None:
    alice, bob = duo
    for message in ({"a": 1}, [1], 2.5):
        await alice.send("bob", message)
    assert (await bob.recv("alice", type=dict))["a"] == 1
    with pytest.raises(BodyError, match="message 1 from 'alice' is list, expected dict") as caught:
        await bob.recv("alice", type=dict)
    assert (caught.value.peer, caught.value.message_id) == ("alice", 1)
    for wrong in (list[int], "float", 1):
        with pytest.raises(TypeError, match="takes a class"):
            await bob.recv("alice", type=wrong)
    assert await bob.recv("alice", type=float) == 2.5


async def test_prefixes_are_part_of_the_id(duo: Duo) -> None:
    alice, bob = duo
    for pool in duo:
        pool.update_msg_prefix("session-")
    await alice.send("bob", "default")
    await alice.send("bob", "chosen", "id")
    assert set(bob.pool_handlers["alice"].buffer) == {"session-0", "session-id"}
    assert await bob.recv("alice", timeout=5) == "default"
    assert await bob.recv("alice", "id", timeout=5) == "chosen"
    bob.update_msg_prefix(None)
    assert bob.pool_handlers["alice"].msg_prefix is None


async def test_a_broadcast_with_different_prefixes(
    http_pool_trio: tuple[Pool, Pool, Pool],
) -> None:
    alice = http_pool_trio[0]
    alice.pool_handlers["local1"].msg_prefix = "other"
    with pytest.raises(ValueError, match="'local1': 'other'"):
        await alice.broadcast(1, "id")
    with pytest.raises(ValueError, match="prefixes"):
        alice.async_broadcast(1, "id")


async def test_a_broadcast_says_who_did_not_get_it(duo: Duo) -> None:
    alice, bob = duo
    alice.add_http_client("carol", "127.0.0.1", await free_port())
    alice.add_http_client("dave", "127.0.0.1", await free_port())
    with pytest.raises(PeerUnreachable, match="carol") as caught:
        await alice.broadcast("hello", "id", max_retries=0)
    assert any("dave" in note for note in caught.value.__notes__)
    assert await bob.recv("alice", "id", timeout=5) == "hello"


async def test_a_broadcast_that_is_refused_does_not_hold_the_next(
    http_pool_trio: tuple[Pool, Pool, Pool],
) -> None:
    alice, bob, carol = http_pool_trio
    await alice.send("local2", "the wire of one is known now")
    with pytest.raises(TypeError, match="message id"):
        await alice.broadcast(1, 1.5, ["local1", "local2"])  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        await alice.broadcast("hello", "id")
    assert await bob.recv("local0", "id", timeout=5) == "hello"
    assert await carol.recv("local0", "id", timeout=5) == "hello"


async def test_the_buffer_shows_what_was_not_received(duo: Duo) -> None:
    alice, bob = duo
    await alice.send("bob", 1, "b")
    await alice.send("bob", 2, "a")
    buffer = bob.pool_handlers["alice"].buffer
    assert set(buffer) == {"b", "a"}
    assert (len(buffer), "a" in buffer, "c" in buffer) == (2, True, False)
    assert isinstance(buffer["a"], ParkedMessage)
    with pytest.raises(KeyError):
        buffer["c"]
    await bob.recv("alice", "a")
    assert list(buffer) == ["b"]


async def test_attributes_that_programs_read(connect: Connect) -> None:
    alice, bob = connect()
    client = alice.pool_handlers["bob"]
    assert (client.addr, client.port, client.use_pickle) == (
        "127.0.0.1", bob.http_server.port, False,
    )  # fmt: skip
    assert alice.handlers_lookup[f"127.0.0.1:{client.port}"] is client
    assert client == HTTPClient(bob, "127.0.0.1", client.port)
    assert client != HTTPClient(bob, "127.0.0.2", client.port)
    assert client != "bob"
    server = alice.http_server
    assert (server.addr, server.external_port) == ("127.0.0.1", server.port)
    assert server.site._reuse_port
    assert await server.server_task is None
    assert alice.loop is asyncio.get_running_loop()
    assert (Pool.get_port(None), Pool.create_ssl_context(None, None)) == (80, None)


async def test_the_port_by_which_peers_know_us_can_be_another() -> None:
    pool = Pool()
    with pytest.warns(DeprecationWarning, match="external_port"):
        pool.add_http_server(0, "127.0.0.1", external_port=61000)
    assert pool.http_server.external_port == 61000
    await pool.shutdown()


async def test_an_address_that_is_taken_is_an_error_at_once(connect: Connect) -> None:
    alice, bob = connect()
    pool = Pool()
    with pytest.raises(OSError, match=str(alice.http_server.port)):
        pool.add_http_server(alice.http_server.port, "127.0.0.1")
    with pytest.raises(RepetitionError):
        bob.add_http_server(0, "127.0.0.1")
    pool.add_http_server(0, "127.0.0.1")
    await pool.shutdown()


async def test_a_client_that_is_added_again_is_replaced(connect: Connect) -> None:
    alice, bob = connect()
    await alice.send("bob", 1)
    bob.add_http_client("alice", "127.0.0.1", alice.http_server.port)
    await alice.send("bob", 2, "after")
    assert await bob.recv("alice", "after", timeout=5) == 2
    assert list(bob.pool_handlers) == ["alice"]


async def test_tls_with_certificates(certificates: Path) -> None:
    paths = {
        name: (certificates / f"{name}.key", certificates / f"{name}.crt")
        for name in ("alice", "bob")
    }
    der = ssl.PEM_cert_to_DER_cert(paths["bob"][1].read_text())
    for how in ({"cert": paths["bob"][1]}, {"cert": der, "type": 2}, {"cert": der}, {"key": ""}):
        alice, bob = (Pool(*paths[name], certificates / "ca.crt") for name in ("alice", "bob"))
        for pool in (alice, bob):
            pool.add_http_server(0, "127.0.0.1")
        if "key" in how:
            how["key"] = bob.fingerprint
        alice.add_http_client("bob", "127.0.0.1", bob.http_server.port, **how)
        bob.add_http_client(
            "alice", "127.0.0.1", alice.http_server.port, str(paths["alice"][1]), type=1
        )
        await alice.send("bob", "hello")
        assert await bob.recv("alice", timeout=5) == "hello"
        await asyncio.gather(alice.shutdown(), bob.shutdown())
    context = Pool.create_ssl_context(*paths["alice"], certificates / "ca.crt", server=True)
    assert (context.verify_mode, Pool.get_port(context)) == (ssl.CERT_REQUIRED, 443)


async def test_identities_without_an_authority(certificates: Path) -> None:
    alice = Pool(identity=certificates / "alice_own.pem")
    bob = Pool(identity=str(certificates / "bob_own.pem"))
    for pool in (alice, bob):
        pool.add_http_server(0, "127.0.0.1")
    alice.add_http_client("bob", "127.0.0.1", bob.http_server.port, key=bob.fingerprint)
    bob.add_http_client(
        "alice", "127.0.0.1", alice.http_server.port, certificates / "alice_own.crt"
    )
    await alice.send("bob", "hello")
    assert await bob.recv("alice", timeout=5) == "hello"
    with pytest.raises(ValueError, match="neither"):
        alice.add_http_client("carol", "127.0.0.1", 1)
    await asyncio.gather(alice.shutdown(), bob.shutdown())


def test_arguments_that_contradict_each_other(certificates: Path) -> None:
    with pytest.raises(ValueError, match="identity"):
        Pool(identity=certificates / "alice_own.pem", ca_cert=certificates / "ca.crt")
    with pytest.raises(ValueError, match="needs key and cert"):
        Pool(ca_cert=certificates / "ca.crt").add_http_server(0)
    plain = Pool()
    plain.add_http_server(0, "127.0.0.1")
    with pytest.raises(ValueError, match="no TLS"):
        plain.add_http_client("bob", "127.0.0.1", 1, certificates / "bob.crt")
    with pytest.raises(TypeError, match="'typo'"):
        plain.add_http_client("bob", "127.0.0.1", 1, typo=1)
    plain.abort()


async def test_log_lines_that_people_look_for(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="tno.mpc.communication.httphandlers"):
        alice, bob = connect()
        await alice.send("bob", 1)
        await bob.recv("alice")
    lines = [record.getMessage() for record in caplog.records]
    assert f"Serving on 127.0.0.1:{alice.http_server.port}" in lines
    assert f"Received message from 127.0.0.1:{alice.http_server.port}" in lines
    assert all(
        record.name.startswith("tno.mpc.communication.")
        for record in caplog.records
        if record.name != "asyncio"
    )


async def test_plain_http_is_named_insecure_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pool, "_warned_of_plain_http", False)
    for _ in range(2):
        async with await lonely() as pool:
            with pytest.raises(SendError):
                await pool.send("bob", 1, max_retries=0)
    warnings = [record for record in caplog.records if "plain HTTP" in record.getMessage()]
    assert [record.levelname for record in warnings] == ["WARNING"]


async def test_arrays_can_be_writable(connect: Connect) -> None:
    numpy = pytest.importorskip("numpy")
    for writable in (False, True):
        alice, bob = connect(writable_arrays=writable)
        await alice.send("bob", numpy.arange(10_000))
        assert (await bob.recv("alice", timeout=5)).flags.writeable is writable


def test_one_pool_in_several_loops_and_a_thread(connect: Connect) -> None:
    alice, bob = connect()

    async def greet(number: int) -> None:
        alice.asend("bob", number)
        assert await bob.recv("alice", timeout=5) == number

    def use() -> None:
        for number in range(3):
            asyncio.run(greet(number))
        done.append(True)

    done: list[bool] = []
    thread = threading.Thread(target=use)
    thread.start()
    thread.join(30)
    asyncio.run(greet(3))
    assert done == [True]


def test_calls_without_a_running_loop(connect: Connect) -> None:
    alice, bob = connect()
    loop = asyncio.new_event_loop()
    alice.loop = bob.loop = loop
    alice.asend("bob", 1)
    future = bob.arecv("alice")
    assert loop.run_until_complete(asyncio.wait_for(future, 5)) == 1
    for pool in (alice, bob):
        loop.run_until_complete(pool.shutdown())
    loop.close()


def test_uvloop(connect: Connect) -> None:
    uvloop = pytest.importorskip("uvloop")
    alice, bob = connect()

    async def greet() -> None:
        await alice.send("bob", bytes(100_000))
        assert len(await bob.recv("alice", timeout=5)) == 100_000
        with pytest.raises(ReceiveTimeout):
            await bob.recv("alice", timeout=0.01)

    uvloop.run(greet())


@pytest.mark.parametrize("rows", [3, 100_000])
async def test_frames_arrive_as_frames(duo: Duo, rows: int) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    alice, bob = duo
    frame = pandas.DataFrame({"number": range(rows), "text": [str(row) for row in range(rows)]})
    for value, equal in (
        (frame, pandas.testing.assert_frame_equal),
        (frame["text"], pandas.testing.assert_series_equal),
    ):
        await alice.send("bob", value)
        equal(await bob.recv("alice"), value)


async def test_a_pool_that_nobody_refers_to_says_that_it_ends() -> None:
    pool = Pool()
    pool.add_http_server(0, "127.0.0.1")
    assert pool.http_server is not None
    port = pool.http_server.port
    pool.add_http_client("peer", "127.0.0.1", 1)
    with pytest.warns(ResourceWarning, match=f"never shut down: .* port {port}"):
        del pool
        gc.collect()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_pool_of_5_that_nobody_refers_to_says_that_it_ends() -> None:
    from convelo.compat import tno5

    communicator = tno5.HttpCommunicator("127.0.0.1", 0)
    pool = tno5.Pool("alice", communicator)
    await pool.initialize()
    port = communicator.port
    with pytest.warns(ResourceWarning, match=f"never shut down: .* port {port}"):
        del pool, communicator
        gc.collect()


async def test_a_pool_that_was_shut_down_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for ended in (True, False):
            pool = Pool()
            pool.add_http_server(0, "127.0.0.1")
            if ended:
                await pool.shutdown()
            else:
                pool.abort()
            del pool
            gc.collect()


async def test_the_default_limit_of_a_message_is_the_mailboxs(connect: Connect) -> None:
    alice, bob = connect(mailbox_limit=1 << 20)
    with pytest.raises(MessageTooLarge, match=str(1 << 20)):
        await alice.send("bob", bytes(1 << 20))
    await alice.send("bob", bytes(1000))
    assert await bob.recv("alice") == bytes(1000)
    alice, bob = connect(mailbox_limit=1 << 20, message_limit=4 << 20)
    await alice.send("bob", bytes(2 << 20))
    assert await bob.recv("alice") == bytes(2 << 20)
