"""Which files an ``ssl.SSLContext`` was made of.

The 5.0 API takes contexts of Python's :mod:`ssl`. The transport here has its own TLS and needs the
private key, which a context does not give back. So the files must be remembered when a context is
made: by :func:`create_ssl_context`, which makes one, or by :func:`remember_ssl_files` for contexts
that other code makes.
"""

from __future__ import annotations

import ssl
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from os import fspath
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from convelo._tls import StrOrBytesPath, mutual_context

__all__ = ["SslFiles", "create_ssl_context", "files_of", "remember_ssl_files"]


@dataclass(frozen=True)
class SslFiles:
    """The contents of the files of a context, PEM."""

    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    authorities: bytes = b""
    has_password: bool = False


_files: weakref.WeakKeyDictionary[ssl.SSLContext, SslFiles] = weakref.WeakKeyDictionary()


def create_ssl_context(
    key: StrOrBytesPath, cert: StrOrBytesPath, ca_cert: StrOrBytesPath, *, server: bool = False
) -> ssl.SSLContext:
    """A context for mutual TLS whose files are remembered.

    Args:
        key: Path of our private key, PEM.
        cert: Path of our certificate, PEM.
        ca_cert: Path of the authorities we trust, PEM.
        server: Whether it is for ``ssl_server_context`` (else ``ssl_client_context``).
    """
    context = mutual_context(key, cert, ca_cert, server=server)
    _files[context] = SslFiles(_read(cert), _read(key), _read(ca_cert))
    return context


class remember_ssl_files:
    """Remembers the files that contexts of :mod:`ssl` are made of from now on.

    It replaces ``ssl.SSLContext.load_cert_chain`` and ``load_verify_locations`` with functions that
    call them and note their arguments, until :meth:`stop`; as a context manager, until the end of
    the block. Private keys stay in memory as long as their contexts, and OpenSSL keeps them anyway.

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
            certfile: StrOrBytesPath,
            keyfile: StrOrBytesPath | None = None,
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
            cafile: StrOrBytesPath | None = None,
            capath: StrOrBytesPath | None = None,
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
            "back: make it with convelo.compat.tno5.create_ssl_context(key, cert, ca_cert), or "
            "call convelo.compat.tno5.remember_ssl_files() before it is made"
        )
    if files.has_password:
        raise ValueError("the private key of this ssl.SSLContext is encrypted: decrypt its file")
    if files.certificate is None or files.key is None:
        raise ValueError("this ssl.SSLContext lacks our certificate: call load_cert_chain")
    if not files.authorities.strip():
        raise ValueError(
            "this ssl.SSLContext trusts no authority: call load_verify_locations with the one that "
            "certifies the parties (the system's authorities are not used)"
        )
    return files


def _read(path: StrOrBytesPath) -> bytes:
    plain = fspath(path)
    return Path(plain if isinstance(plain, str) else plain.decode()).read_bytes()
