"""The pool of the 5.0 API."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from convelo import Pool as Pool4
from convelo import pki
from convelo.compat import tno5
from convelo.compat.tno5 import (
    CommunicationError,
    DefaultPacker,
    HttpCommunicator,
    HttpConnection,
    MockCommunicator,
    MockConnection,
    Packer,
    Pool,
    create_ssl_context,
    remember_ssl_files,
)
from convelo.compat.tno5.communicators.communicator import CommunicatorState, IllegalStateAction

Duo = tuple[Pool, Pool]


@asynccontextmanager
async def over_http(
    make: Callable[..., HttpCommunicator] = HttpCommunicator,
    packer: Packer | None = None,
    wire: int | None = None,
    timeout: float | None = 3,
    **arguments: Any,
) -> AsyncIterator[Duo]:
    communicators = [make("127.0.0.1", 0, **arguments) for _ in range(2)]
    pools = [Pool(f"local{i}", c, packer, timeout=timeout) for i, c in enumerate(communicators)]
    for communicator in communicators:
        communicator.listen()
    pools[0].add_client("local1", HttpConnection("127.0.0.1", communicators[1].port, wire=wire))
    pools[1].add_client("local0", HttpConnection("127.0.0.1", communicators[0].port, wire=wire))
    async with pools[0], pools[1]:
        yield pools[0], pools[1]


@asynccontextmanager
async def by_mock(packer: Packer | None = None, timeout: float | None = 3) -> AsyncIterator[Duo]:
    communicators = [MockCommunicator(f"local{i}") for i in range(2)]
    pools = [Pool(f"local{i}", c, packer, timeout=timeout) for i, c in enumerate(communicators)]
    pools[0].add_client("local1", MockConnection(communicators[1]))
    pools[1].add_client("local0", MockConnection(communicators[0]))
    async with pools[0], pools[1]:
        yield pools[0], pools[1]


KINDS = {
    "second wire": over_http,
    "compatible wire": lambda **a: over_http(wire=5, **a),
    "mock": by_mock,
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


@every_kind
async def test_send_recv_and_broadcast(make: Any) -> None:
    async with make() as (alice, bob):
        await alice.send("local1", {"a": [1, (2, None)]})
        await alice.send("local1", "named", "id")
        await alice.broadcast("to all", "all")
        assert await bob.recv("local0", "") == {"a": [1, (2, None)]}
        assert await bob.recv("local0", "id") == "named"
        assert await bob.recv_all(msg_id="all") == [("local0", "to all")]


@every_kind
async def test_default_ids_are_texts_and_count_all_messages(make: Any) -> None:
    async with make() as (alice, bob):
        await alice.send("local1", 0, "chosen")
        await alice.send("local1", 1)
        assert await bob.recv("local0", "chosen") == 0
        assert await bob.recv("local0", "1") == 1
        assert bob._clients["local0"].msg_recv_counter == 2
        assert alice._clients["local1"].msg_send_counter == 2
        assert alice._clients["local1"].total_bytes_sent > 0
        assert bob._clients["local0"].total_bytes_recv > 0


@every_kind
async def test_a_late_message_is_received_by_the_next_recv(make: Any) -> None:
    async with make(timeout=0.05) as (alice, bob):
        for msg_id in (None, "named"):
            with pytest.raises(CommunicationError, match="'local0' did not arrive within 0.05"):
                await bob.recv("local0", msg_id)
            with pytest.raises(CommunicationError, match="0.01"):
                await bob.recv("local0", msg_id, timeout=0.01)
            receiving = asyncio.create_task(bob.recv("local0", msg_id))
            await asyncio.sleep(0)
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            await alice.send("local1", "late", msg_id)
            assert await bob.recv("local0", msg_id, timeout=5) == "late"


@every_kind
async def test_one_id_sent_twice_and_received_twice_at_once(make: Any) -> None:
    async with make() as (alice, bob):
        await asyncio.gather(*(alice.send("local1", i, "same") for i in range(3)))
        assert [await bob.recv("local0", "same") for _ in range(3)] == [0, 1, 2]
        waiting = [asyncio.create_task(bob.recv("local0", "later")) for _ in range(2)]
        await asyncio.sleep(0.01)
        for i in range(2):
            await alice.send("local1", i, "later")
        assert await asyncio.gather(*waiting) == [0, 1]


@every_kind
async def test_what_cannot_be_packed_does_not_advance(make: Any) -> None:
    async with make() as (alice, bob):
        for _ in range(2):
            with pytest.raises(TypeError):
                await alice.send("local1", object())
        await alice.send("local1", "next")
        assert await bob.recv("local0") == "next"


@every_kind
async def test_recv_all_takes_all_or_none(make: Any) -> None:
    async with make() as (alice, bob):
        await alice.send("local1", "first", "id")
        bob._clients["nobody"] = bob._clients["local0"]
        del bob._clients["nobody"]
        with pytest.raises(CommunicationError):
            await bob.recv_all(["local0", "local0"], "id", timeout=0.05)
        assert await bob.recv("local0", "id") == "first"


@every_kind
async def test_own_shutdown_ends_what_waits(make: Any) -> None:
    async with make(timeout=None) as (alice, bob):
        receiving = asyncio.create_task(bob.recv("local0"))
        await asyncio.sleep(0.01)
        await bob.shutdown()
        with pytest.raises(CommunicationError):
            await receiving
        with pytest.raises((IllegalStateAction, CommunicationError)):
            await bob.recv("local0")
        bob.communicator._state = CommunicatorState.STARTED
        del alice
        bob.communicator._shutdown = _nothing  # type: ignore[method-assign]


async def _nothing() -> None:
    pass


async def test_the_life_of_a_pool() -> None:
    communicator = HttpCommunicator("127.0.0.1", 0)
    pool = Pool("alice", communicator)
    pool.add_client("bob", HttpConnection("127.0.0.1", 1))
    for work in (pool.send("bob", 1), pool.recv("bob"), pool.shutdown()):
        with pytest.raises(IllegalStateAction):
            await work
    with pytest.raises(KeyError, match="bob"):
        pool.add_client("bob", HttpConnection("127.0.0.1", 2))
    async with pool:
        assert communicator.port > 0
        with pytest.raises(IllegalStateAction, match="STARTED"):
            await pool.initialize()
        with pytest.raises(IllegalStateAction):
            pool.add_client("carol", HttpConnection("127.0.0.1", 2))
        assert pool.clients == {"bob"}
        for work in (pool.send("carol", 1), pool.recv("carol"), pool.broadcast(1, "", ["carol"])):
            with pytest.raises(KeyError, match="carol"):
                await work
    with pytest.raises(IllegalStateAction, match="STOPPED"):
        await pool.send("bob", 1)


async def test_an_address_that_is_taken_can_be_tried_again() -> None:
    first = HttpCommunicator("127.0.0.1", 0)
    second = Pool("bob", HttpCommunicator("127.0.0.1", 0))
    async with Pool("alice", first):
        second.communicator.port = first.port
        with pytest.raises(OSError, match=str(first.port)):
            await second.initialize()
    async with second:
        _, writer = await asyncio.open_connection("127.0.0.1", first.port)
        writer.close()


async def test_an_absent_peer_is_an_error_after_the_tries() -> None:
    communicator = HttpCommunicator("127.0.0.1", 0, conn_retry_max=2, conn_retry_delay=1)
    pool = Pool("alice", communicator)
    pool.add_client("bob", HttpConnection("127.0.0.1", 1))
    async with pool:
        began = asyncio.get_running_loop().time()
        with pytest.raises(CommunicationError, match="'bob'"):
            await pool.send("bob", 1)
        assert 0.5 < asyncio.get_running_loop().time() - began < 10


async def test_both_apis_talk_to_each_other() -> None:
    communicator = HttpCommunicator("127.0.0.1", 0)
    new, old = Pool("new", communicator), Pool4()
    old.add_http_server(0, "127.0.0.1")
    new.add_client("old", HttpConnection("127.0.0.1", old.http_server.port))
    async with new, old:
        old.add_http_client("new", "127.0.0.1", communicator.port)
        await new.send("old", [1, 2], "id")
        assert await old.recv("new", "id", timeout=5) == [1, 2]
        await old.send("new", (1, 2), "id")
        assert await new.recv("old", "id") == (1, 2)


class ShoutingPacker(DefaultPacker):
    """A packer of one's own."""

    def pack(self, content: Any, msg_id: str) -> bytes:
        return super().pack(str(content).upper(), msg_id)


@pytest.mark.parametrize("make", [over_http, by_mock])
async def test_a_packer_of_ones_own(make: Any) -> None:
    async with make(packer=ShoutingPacker()) as (alice, bob):
        await alice.send("local1", "hello")
        await alice.send("local1", "again")
        assert [await bob.recv("local0"), await bob.recv("local0")] == ["HELLO", "AGAIN"]


async def test_a_communicator_of_ones_own() -> None:
    sent: list[bytes] = []

    class Counting(HttpCommunicator):
        async def _send(self, recipient: HttpConnection, packet: bytes) -> None:
            sent.append(packet)
            await super()._send(recipient, packet)

    async with over_http(Counting) as (alice, bob):
        await alice.send("local1", "hello")
        assert await bob.recv("local0") == "hello"
        with pytest.raises(CommunicationError, match="not arbitrary packets"):
            await alice.communicator.send("local1", b"\x01")
    assert len(sent) == 2
    with pytest.raises(CommunicationError, match="inside a Pool"):
        await HttpCommunicator("127.0.0.1", 0).initialize()


async def test_numpy_warns_where_it_may_arrive_as_lists() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(3)
    async with over_http(wire=5) as (alice, bob):
        with pytest.warns(tno5.exceptions.NumpySerializationWarning):
            await alice.send("local1", array)
        assert await bob.recv("local0") == [0, 1, 2]
    async with over_http() as (alice, bob):
        await alice.send("local1", array)
        assert isinstance(await bob.recv("local0"), numpy.ndarray)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    pki.new_authority(directory)
    for name in ("local0", "local1"):
        pki.issue(directory, name)
    return directory


def ordinary_context(directory: Path, name: str, purpose: ssl.Purpose) -> ssl.SSLContext:
    context = ssl.create_default_context(purpose)
    context.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
    context.load_verify_locations(str(directory / "ca.crt"))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("remembered", [False, True])
async def test_tls(certificates: Path, remembered: bool) -> None:
    communicators = []
    for name in ("local0", "local1"):
        if remembered:
            with remember_ssl_files():
                client = ordinary_context(certificates, name, ssl.Purpose.SERVER_AUTH)
                server = ordinary_context(certificates, name, ssl.Purpose.CLIENT_AUTH)
        else:
            files = [certificates / f"{name}.key", certificates / f"{name}.crt"]
            client = create_ssl_context(*files, certificates / "ca.crt")
            server = create_ssl_context(*files, certificates / "ca.crt", server=True)
        communicators.append(HttpCommunicator("127.0.0.1", 0, client, server))
    if remembered:
        assert communicators[0].use_ssl
    pools = [Pool(f"local{i}", c) for i, c in enumerate(communicators)]
    for communicator in communicators:
        communicator.listen()
    for i, pool in enumerate(pools):
        other = f"local{1 - i}"
        connection = HttpConnection(
            "127.0.0.1", communicators[1 - i].port, certificates / f"{other}.crt"
        )
        assert connection.network_id.startswith("Pool:")
        pool.add_client(other, connection)
    async with pools[0], pools[1]:
        await pools[0].send("local1", "secret")
        assert await pools[1].recv("local0") == "secret"


def test_contexts_whose_files_are_not_known(certificates: Path) -> None:
    before = ssl.SSLContext.load_cert_chain
    context = ordinary_context(certificates, "local0", ssl.Purpose.SERVER_AUTH)
    with pytest.raises(ValueError, match="create_ssl_context"):
        HttpCommunicator("127.0.0.1", 0, context, context)
    with pytest.raises(ValueError, match="both the client and server"):
        HttpCommunicator("127.0.0.1", 0, context)
    with remember_ssl_files():
        assert ssl.SSLContext.load_cert_chain is not before
        incomplete = ssl.create_default_context()
        incomplete.load_cert_chain(certificates / "local0.crt", certificates / "local0.key")
        other = ordinary_context(certificates, "local1", ssl.Purpose.CLIENT_AUTH)
    assert ssl.SSLContext.load_cert_chain is before
    with pytest.raises(ValueError, match="load_verify_locations"):
        HttpCommunicator("127.0.0.1", 0, incomplete, incomplete)
    known = create_ssl_context(
        certificates / "local0.key", certificates / "local0.crt", certificates / "ca.crt"
    )
    with pytest.raises(ValueError, match="different"):
        HttpCommunicator("127.0.0.1", 0, known, other)
    with pytest.raises(ValueError, match="no TLS"):
        communicator = HttpCommunicator("127.0.0.1", 0)
        pool = Pool("alice", communicator)
        pool.add_client("bob", HttpConnection("127.0.0.1", 1, certificates / "local1.crt"))
        communicator.listen()


def test_the_module_that_remembers_is_the_same_api() -> None:
    program = """
import ssl
before = ssl.SSLContext.load_cert_chain
import convelo.compat.tno5
assert ssl.SSLContext.load_cert_chain is before
import convelo.compat.tno5.remembered as module
assert ssl.SSLContext.load_cert_chain is not before
assert module.Pool is convelo.compat.tno5.Pool and module.__version__ == "5.0.4"
"""
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)


def test_the_names_of_the_package() -> None:
    for name in (
        "Pool Communicator HttpCommunicator HttpConnection MockCommunicator MockConnection Packer "
        "DefaultPacker Serializer SupportsSerialization AnnotationError CommunicationError "
        "OptionalImportError RepetitionError __version__"
    ).split():
        assert hasattr(tno5, name)
