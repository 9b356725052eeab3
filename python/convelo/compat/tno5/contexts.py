"""Which files an ``ssl.SSLContext`` was made of.

The 5.0 API wants contexts of Python's :mod:`ssl`. The transport here has TLS of its own and needs
the private key, which no context gives back. So the files have to be remembered when a context is
made: by :func:`create_ssl_context`, which makes one, or by :func:`remember_ssl_files` for those
that other code makes.
"""

from __future__ import annotations

import ssl
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["SslFiles", "create_ssl_context", "files_of", "remember_ssl_files"]

_Path = str | bytes | PathLike[str] | PathLike[bytes]


@dataclass(frozen=True)
class SslFiles:
    """The contents of the files of a context, PEM."""

    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    authorities: bytes = b""
    has_password: bool = False


_files: weakref.WeakKeyDictionary[ssl.SSLContext, SslFiles] = weakref.WeakKeyDictionary()


def create_ssl_context(
    key: _Path, cert: _Path, ca_cert: _Path, *, server: bool = False
) -> ssl.SSLContext:
    """A context for mutual TLS whose files are remembered.

    Args:
        key: Path of our private key, PEM.
        cert: Path of our certificate, PEM.
        ca_cert: Path of the authorities we trust, PEM.
        server: Whether it is for ``ssl_server_context`` (else ``ssl_client_context``).
    """
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    context = ssl.create_default_context(purpose)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(ca_cert)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    _files[context] = SslFiles(_read(cert), _read(key), _read(ca_cert))
    return context


class remember_ssl_files:
    """From now on, remembers the files that contexts of :mod:`ssl` are made of.

    It replaces ``ssl.SSLContext.load_cert_chain`` and ``load_verify_locations`` by functions that
    call them and note their arguments, until :meth:`stop`; as a context manager, to the end of the
    block. Private keys stay in memory as long as their contexts, where OpenSSL keeps them anyway.

    ::

        with remember_ssl_files():
            client_context, server_context = make_contexts()
    """

    def __init__(self) -> None:
        self._load_cert_chain: Callable[..., None] = ssl.SSLContext.load_cert_chain
        self._load_verify_locations: Callable[..., None] = ssl.SSLContext.load_verify_locations
        load_cert_chain, load_verify = self._load_cert_chain, self._load_verify_locations

        def remembering_chain(
            context: ssl.SSLContext,
            certfile: _Path,
            keyfile: _Path | None = None,
            password: Any = None,
        ) -> None:
            load_cert_chain(context, certfile, keyfile, password)
            _files[context] = replace(
                _files.get(context, SslFiles()),
                certificate=_read(certfile),
                key=_read(certfile if keyfile is None else keyfile),
                has_password=password is not None,
            )

        def remembering_verify(
            context: ssl.SSLContext,
            cafile: _Path | None = None,
            capath: _Path | None = None,
            cadata: Any = None,
        ) -> None:
            load_verify(context, cafile, capath, cadata)
            known = _files.get(context, SslFiles())
            added = _read(cafile) if cafile is not None else b""
            if isinstance(cadata, str):
                added += b"\n" + cadata.encode()
            elif cadata is not None:
                added += b"\n" + ssl.DER_cert_to_PEM_cert(bytes(cadata)).encode()
            _files[context] = replace(known, authorities=known.authorities + b"\n" + added)

        ssl.SSLContext.load_cert_chain = remembering_chain  # type: ignore[method-assign,assignment]
        ssl.SSLContext.load_verify_locations = remembering_verify  # type: ignore[method-assign,assignment]

    def stop(self) -> None:
        """Puts the functions of :mod:`ssl` back."""
        ssl.SSLContext.load_cert_chain = self._load_cert_chain  # type: ignore[method-assign]
        ssl.SSLContext.load_verify_locations = (  # type: ignore[method-assign]
            self._load_verify_locations
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def files_of(context: ssl.SSLContext) -> SslFiles:
    """The files of a context.

    Raises:
        ValueError: They are not known, or incomplete; the text says what to do.
    """
    files = _files.get(context)
    if files is None:
        raise ValueError(
            "the files of this ssl.SSLContext are not known, and it does not give its private key "
            "back: make it by convelo.compat.tno5.create_ssl_context(key, cert, ca_cert), or call "
            "convelo.compat.tno5.remember_ssl_files() before it is made"
        )
    if files.has_password:
        raise ValueError("the private key of this ssl.SSLContext is encrypted: decrypt its file")
    if files.certificate is None or files.key is None:
        raise ValueError("this ssl.SSLContext has no certificate of ours: call load_cert_chain")
    if not files.authorities.strip():
        raise ValueError(
            "this ssl.SSLContext has no authorities of ours: call load_verify_locations with the "
            "authority that certifies the parties (those of the system are not used)"
        )
    return files


def _read(path: _Path) -> bytes:
    plain = fspath(path)
    return Path(plain if isinstance(plain, str) else plain.decode()).read_bytes()
