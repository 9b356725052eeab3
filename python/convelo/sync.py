"""The pool for code without ``async``: each call waits for the pool's own thread to do the work.

It also works where an event loop is already running, as in notebooks::

    from convelo.sync import Pool

    with Pool() as pool:
        pool.add_http_server(port=61001, addr="127.0.0.1")
        pool.add_http_client("Bob", "127.0.0.1", 61002)
        pool.send("Bob", "Hello")
        print(pool.recv("Bob"))
"""

from __future__ import annotations

import asyncio
import builtins
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from convelo._engine import Message
from convelo._peer import Peer, check_class, decode_all, give_back_all, receive_all
from convelo._pool import DEFAULT_FLUSH_SECONDS, DEFAULT_TIMEOUT_SECONDS
from convelo.compat.tno.httphandlers import HTTPClient, HTTPServer
from convelo.compat.tno.pool import Pool as AsyncPool
from convelo.exceptions import PoolClosed

__all__ = ["Pool"]

_Result = TypeVar("_Result")
_Value = TypeVar("_Value")
_Taken = Sequence[tuple[Peer, Message]]


class Pool:
    """Like :class:`convelo.Pool`, with calls that wait. Several threads may use it.

    It takes the arguments of :class:`convelo.Pool`. ``on_error`` is called in the pool's thread.
    """

    def __init__(
        self,
        key: Path | str | None = None,
        cert: Path | str | None = None,
        ca_cert: Path | str | None = None,
        timeout: Any = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = -1,
        *,
        identity: Path | str | None = None,
        message_limit: int | None = None,
        mailbox_limit: int | None = None,
        writable_arrays: bool = False,
        on_error: Callable[[Exception], object] | None = None,
    ) -> None:
        self._pool = AsyncPool(
            key,
            cert,
            ca_cert,
            timeout,
            max_retries,
            identity=identity,
            message_limit=message_limit,
            mailbox_limit=mailbox_limit,
            writable_arrays=writable_arrays,
            on_error=on_error,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run, args=(self._loop,), name="convelo-pool", daemon=True
        )
        self._thread.start()
        self._finalizer = weakref.finalize(self, _stop, self._loop)

    def __repr__(self) -> str:
        _, _, described = repr(self._pool).partition(" ")
        return f"<convelo.sync.Pool {described}"

    @property
    def http_server(self) -> HTTPServer | None:
        """The server, once there is one."""
        return self._pool.http_server

    @property
    def pool_handlers(self) -> dict[str, HTTPClient]:
        """The peers by name."""
        return self._pool.pool_handlers

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of our public key; ``None`` without TLS."""
        return self._pool.fingerprint

    def add_http_server(
        self, port: int | None = None, addr: str = "0.0.0.0", external_port: int | None = None
    ) -> None:
        """See :meth:`convelo.Pool.add_http_server`."""
        self._pool.add_http_server(port, addr, external_port)

    def add_http_client(
        self,
        name: str,
        addr: str,
        port: int | None = None,
        cert: Path | str | bytes | None = None,
        *,
        key: str | None = None,
        wire: int | None = None,
        **cert_kwargs: Any,
    ) -> None:
        """See :meth:`convelo.Pool.add_http_client`."""
        self._pool.add_http_client(name, addr, port, cert, key=key, wire=wire, **cert_kwargs)

    def send(
        self,
        handler_name: str,
        message: Any,
        msg_id: str | int | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> None:
        """Sends an object and returns when the peer has it; see :meth:`convelo.Pool.send`."""
        self._wait(self._pool.send(handler_name, message, msg_id, timeout, max_retries))

    def asend(
        self,
        handler_name: str,
        message: Any,
        msg_id: str | int | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> None:
        """Packs an object, and sends it in the background; see :meth:`convelo.Pool.asend`."""
        self._wait(
            _called(self._pool.asend, handler_name, message, msg_id, timeout, max_retries)
        )

    def broadcast(
        self,
        message: Any,
        msg_id: str | int,
        handler_names: Iterable[str] | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> None:
        """Sends an object to several peers; see :meth:`convelo.Pool.broadcast`."""
        self._wait(self._pool.broadcast(message, msg_id, handler_names, timeout, max_retries))

    def async_broadcast(
        self,
        message: Any,
        msg_id: str | int,
        handler_names: Iterable[str] | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> None:
        """Sends an object to several peers in the background."""
        self._wait(
            _called(
                self._pool.async_broadcast, message, msg_id, handler_names, timeout, max_retries
            )
        )

    @overload
    def recv(
        self,
        handler_name: str,
        msg_id: str | int | None = None,
        timeout: float | None = None,
        *,
        type: None = None,
    ) -> Any: ...
    @overload
    def recv(
        self,
        handler_name: str,
        msg_id: str | int | None = None,
        timeout: float | None = None,
        *,
        type: builtins.type[_Value],
    ) -> _Value: ...
    def recv(
        self,
        handler_name: str,
        msg_id: str | int | None = None,
        timeout: float | None = None,
        *,
        type: builtins.type[Any] | None = None,
    ) -> Any:
        """Receives an object; see :meth:`convelo.Pool.recv`. An interrupt loses nothing."""
        if type is None:
            return self._receive([handler_name], msg_id, timeout)[0]
        check_class(type)
        [(peer, message)] = self._take([handler_name], msg_id, timeout)
        return peer.decode_as(message, type)

    def arecv(self, handler_name: str, msg_id: str | int | None = None) -> Future[Any]:
        """Asks for an object; ``result()`` of the returned future waits for it.

        Cancelling the future withdraws the request.
        """
        promised: Future[Any] = Future()
        self._begin(
            promised, [handler_name], msg_id, None, lambda taken: self._decode(taken, msg_id)[0]
        )
        return promised

    def recv_all(
        self,
        handler_names: Iterable[str] | None = None,
        msg_id: str | int | None = None,
        timeout: float | None = None,
    ) -> list[tuple[str, Any]]:
        """Receives one object from each peer; see :meth:`convelo.Pool.recv_all`."""
        names = list(self._pool.pool_handlers if handler_names is None else handler_names)
        return list(zip(names, self._receive(names, msg_id, timeout), strict=True))

    def update_msg_prefix(self, msg_prefix: str | None) -> None:
        """See :meth:`convelo.Pool.update_msg_prefix`."""
        self._pool.update_msg_prefix(msg_prefix)

    def shutdown(self, flush: float = DEFAULT_FLUSH_SECONDS) -> None:
        """Ends the pool and its thread; see :meth:`convelo.Pool.shutdown`."""
        if self._loop.is_closed():
            return
        try:
            self._wait(self._pool.shutdown(flush))
        finally:
            self._finalizer()
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loop.is_closed():
            return
        try:
            self._wait(self._pool.__aexit__(exc_type, exc_value, traceback))
        finally:
            self._finalizer()
            self._thread.join()

    def _check(self) -> None:
        if self._loop.is_closed():
            raise PoolClosed("this pool was shut down")
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "this call would wait for the thread that it was made in: on_error must not wait"
            )

    def _wait(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        try:
            self._check()
        except BaseException:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return _outcome(future)
        except BaseException:
            # The caller was interrupted: withdraw what it was waiting for.
            future.cancel()
            raise

    def _receive(
        self, names: list[str], msg_id: int | str | None, timeout: float | None
    ) -> list[Any]:
        return self._decode(self._take(names, msg_id, timeout), msg_id)

    def _take(
        self, names: list[str], msg_id: int | str | None, timeout: float | None
    ) -> _Taken:
        promised: Future[_Taken] = Future()
        self._begin(promised, names, msg_id, timeout, lambda taken: taken)
        try:
            taken = _outcome(promised)
        except BaseException:
            if not promised.cancel() and promised.exception() is None:
                # An interrupt just after they arrived: the next call gets them.
                self._give_back(promised.result(), msg_id)
            raise
        return taken

    def _begin(
        self,
        promised: Future[_Result],
        names: list[str],
        msg_id: int | str | None,
        timeout: float | None,
        finish: Callable[[_Taken], _Result],
    ) -> None:
        self._check()

        async def work() -> None:
            try:
                handlers = [self._pool.handler(name) for name in names]
                taken = await receive_all(handlers, msg_id, timeout)
            except BaseException as error:
                if promised.set_running_or_notify_cancel():
                    promised.set_exception(error)
                return
            if not promised.set_running_or_notify_cancel():
                give_back_all(taken, msg_id)
                return
            try:
                promised.set_result(finish(taken))
            except BaseException as error:
                promised.set_exception(error)

        def start() -> None:
            if promised.cancelled():
                return
            task = self._loop.create_task(work())
            promised.add_done_callback(partial(self._withdraw, task))

        self._loop.call_soon_threadsafe(start)

    def _withdraw(self, task: asyncio.Task[None], promised: Future[Any]) -> None:
        if promised.cancelled() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(task.cancel)

    def _give_back(self, taken: _Taken, msg_id: int | str | None) -> None:
        self._loop.call_soon_threadsafe(give_back_all, taken, msg_id)

    def _decode(self, taken: _Taken, msg_id: int | str | None) -> list[Any]:
        return decode_all(taken, msg_id, self._give_back)


def _outcome(future: Future[_Result]) -> _Result:
    """Waits for a future, a second at a time.

    A signal that arrives just before a wait begins does not end that wait, so an interrupt is
    noticed after a second at the latest.
    """
    while True:
        try:
            return future.result(1)
        except TimeoutError:
            if future.done():
                return future.result()


async def _called(function: Callable[..., None], *arguments: Any) -> None:
    function(*arguments)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
