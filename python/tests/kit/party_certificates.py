"""Certificates for tests, made without our own code."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_USAGES = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
_SIGNING = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def common_name(text: str) -> x509.Name:
    """A name that begins with its CN, which is how the genuine package needs it."""
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def corporate_name(text: str) -> x509.Name:
    """A name as companies have it: country and organisation stand before the CN."""
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "NL"),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, text),
        ]
    )


class Authority:
    """A certificate authority that writes into a directory."""

    def __init__(self, directory: Path, name: x509.Name, file: str = "ca.crt") -> None:
        self.directory, self.name = directory, name
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(name, 1, self._key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        certificate = builder.add_extension(_SIGNING, True).sign(self._key, hashes.SHA256())
        self.path = directory / file
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, serial: int, key: Any) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )

    def issue(
        self,
        file: str,
        serial: int,
        hosts: Sequence[str] = ("localhost",),
        addresses: Sequence[str] = ("127.0.0.1",),
    ) -> dict[str, str]:
        """Writes ``<file>.pem`` and ``<file>.crt``; returns what ``Pool`` takes."""
        key = ec.generate_private_key(ec.SECP256R1())
        places: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        places += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        certificate = (
            self._builder(common_name(file), serial, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(x509.ExtendedKeyUsage(_USAGES), False)
            .add_extension(x509.SubjectAlternativeName(places), False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        paths = {"key": self.directory / f"{file}.pem", "cert": self.directory / f"{file}.crt"}
        paths["key"].write_bytes(private)
        paths["cert"].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return {name: str(path) for name, path in paths.items()} | {"ca_cert": str(self.path)}
