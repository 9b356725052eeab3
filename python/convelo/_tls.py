"""Certificates and contexts for mutual TLS, in the forms that callers of either API use."""

from __future__ import annotations

import ssl
from os import PathLike
from pathlib import Path

__all__ = ["StrOrBytesPath", "certificate_pem", "mutual_context"]

StrOrBytesPath = str | bytes | PathLike[str] | PathLike[bytes]

_FILETYPE_PEM = 1
_FILETYPE_ASN1 = 2


def certificate_pem(cert: Path | str | bytes, filetype: int | None) -> bytes:
    """A certificate as PEM.

    Args:
        cert: A path, or the bytes of the file.
        filetype: pyOpenSSL's ``FILETYPE_PEM`` (1) or ``FILETYPE_ASN1`` (2); by default detected.
    """
    content = cert if isinstance(cert, bytes) else Path(cert).read_bytes()
    if filetype is None:
        filetype = _FILETYPE_PEM if b"-----BEGIN" in content else _FILETYPE_ASN1
    if filetype == _FILETYPE_ASN1:
        return ssl.DER_cert_to_PEM_cert(content).encode()
    if filetype == _FILETYPE_PEM:
        return content
    raise ValueError(
        f"certificate type {filetype!r} is not known: expected FILETYPE_PEM ({_FILETYPE_PEM}) or "
        f"FILETYPE_ASN1 ({_FILETYPE_ASN1})"
    )


def mutual_context(
    key: StrOrBytesPath | None, cert: StrOrBytesPath, ca_cert: StrOrBytesPath, *, server: bool
) -> ssl.SSLContext:
    """An :mod:`ssl` context with the rules of a pool: each side must prove its certificate."""
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    context = ssl.create_default_context(purpose)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(ca_cert)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return context
