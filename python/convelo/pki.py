"""Makes keys and certificates for the parties of a pool.

::

    python -m convelo.pki authority Alice Bob    # ca.crt, and Alice.key, Alice.crt, Bob.key, ...
    python -m convelo.pki party Carol            # one more, with the same authority
    python -m convelo.pki identity Alice         # self-signed: Alice.pem, and Alice.crt to share
    python -m convelo.pki fingerprint Alice.crt  # SHA-256 of the public key, to pin it

Anyone who runs ``authority`` briefly holds every party's private key: use it for tests, or in groups
that trust one of their members with that. With ``identity``, each party makes its own key and
shares only the certificate or its fingerprint.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from convelo._convelo import key_fingerprint, make_authority, make_certificate, make_identity

__all__ = ["issue", "main", "new_authority", "new_identity"]

DEFAULT_DAYS = 365
_AUTHORITY = "ca"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def new_authority(
    directory: Path | str, *, common_name: str = "Pool", days: int = DEFAULT_DAYS, force: bool = False
) -> None:
    """Writes ``ca.key`` and ``ca.crt``, a certificate authority, into ``directory``.

    Args:
        directory: Created if it does not exist.
        common_name: The authority's name. Two authorities that trust each other need two names.
        days: How many days it is valid.
        force: Whether to replace existing files.

    Raises:
        FileExistsError: A file exists already.
    """
    key, certificate = make_authority(common_name, days)
    _write(Path(directory), {f"{_AUTHORITY}.key": key, f"{_AUTHORITY}.crt": certificate}, force)


def issue(
    directory: Path | str,
    name: str,
    *,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    days: int = DEFAULT_DAYS,
    force: bool = False,
) -> str:
    """Writes ``<name>.key`` and ``<name>.crt``, certified by the authority in ``directory``.

    Args:
        directory: Where ``ca.key`` and ``ca.crt`` are.
        name: The party's name; letters, digits and ``_.-``, at most 64.
        hosts: Host names and addresses for the certificate. Pools do not check them.
        days: How many days it is valid.
        force: Whether to replace existing files.

    Returns:
        The fingerprint of the party's public key.

    Raises:
        FileExistsError: A file exists already.
        FileNotFoundError: There is no authority.
        ValueError: The name cannot be a file's.
    """
    directory = Path(directory)
    _check_name(name)
    authority_key = (directory / f"{_AUTHORITY}.key").read_bytes()
    authority = (directory / f"{_AUTHORITY}.crt").read_bytes()
    key, certificate = make_certificate(authority_key, authority, name, hosts, days)
    _write(directory, {f"{name}.key": key, f"{name}.crt": certificate}, force)
    return key_fingerprint(certificate)


def new_identity(
    directory: Path | str, name: str, *, days: int = DEFAULT_DAYS, force: bool = False
) -> str:
    """Writes ``<name>.pem`` (private key and self-signed certificate) and ``<name>.crt``.

    Returns:
        The fingerprint of the public key, which peers pin.

    Raises:
        FileExistsError: A file exists already.
        ValueError: The name cannot be a file's.
    """
    _check_name(name)
    key, certificate, fingerprint = make_identity(name, days)
    _write(
        Path(directory), {f"{name}.pem": key + certificate, f"{name}.crt": certificate}, force
    )
    return fingerprint


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name == _AUTHORITY:
        raise ValueError(
            f"'{name}' cannot be the name of a party's files: use up to 64 letters, digits, "
            f"'_', '-' and '.', and not '{_AUTHORITY}'"
        )


def _write(directory: Path, files: dict[str, bytes], force: bool) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if not force:
        for name in files:
            if (directory / name).exists():
                raise FileExistsError(
                    f"{directory / name} exists already; --force replaces it"
                )
    for name, content in files.items():
        public = name.endswith(".crt")
        # Created with mode 0600, so that others can never read a key, not even for a moment.
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            if public:
                os.chmod(temporary, 0o644)
            if force:
                os.replace(temporary, directory / name)
            else:
                # Unlike replace, link fails if another process was faster.
                os.link(temporary, directory / name)
                os.unlink(temporary)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m convelo.pki",
        description="Makes keys and certificates for the parties of a pool.",
    )
    parser.set_defaults(force=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    authority = commands.add_parser(
        "authority", help="make a certificate authority, and certificates for named parties"
    )
    authority.add_argument("parties", nargs="*", metavar="NAME", help="a party to certify")
    authority.add_argument("--common-name", default="Pool", help="the authority's name (Pool)")
    party = commands.add_parser("party", help="certify more parties with an existing authority")
    party.add_argument("parties", nargs="+", metavar="NAME", help="a party to certify")
    for command in (authority, party):
        command.add_argument(
            "--host",
            action="append",
            metavar="HOST",
            help="a host name or address in the certificates (localhost, 127.0.0.1)",
        )
    identity = commands.add_parser("identity", help="make self-signed identities")
    identity.add_argument("parties", nargs="+", metavar="NAME", help="whose identity")
    for command in (authority, party, identity):
        command.add_argument(
            "--days", type=_days, default=DEFAULT_DAYS, help=f"days of validity ({DEFAULT_DAYS})"
        )
        command.add_argument(
            "--out", type=Path, default=Path(), metavar="DIRECTORY", help="where the files go (.)"
        )
        command.add_argument("--force", action="store_true", help="replace existing files")
    fingerprint = commands.add_parser("fingerprint", help="print the fingerprints of certificates")
    fingerprint.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a PEM file")
    options = parser.parse_args(arguments)
    try:
        _obey(options)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


def _obey(options: argparse.Namespace) -> None:
    if options.command == "fingerprint":
        for file in options.files:
            print(f"{key_fingerprint(file.read_bytes())}  {file}")
        return
    for name in options.parties:
        _check_name(name)
    if options.command == "identity":
        for name in options.parties:
            fingerprint = new_identity(
                options.out, name, days=options.days, force=options.force
            )
            print(f"{fingerprint}  {name}")
        return
    if options.command == "authority":
        new_authority(
            options.out, common_name=options.common_name, days=options.days, force=options.force
        )
    hosts = options.host or ("localhost", "127.0.0.1")
    for name in options.parties:
        fingerprint = issue(
            options.out, name, hosts=hosts, days=options.days, force=options.force
        )
        print(f"{fingerprint}  {name}")


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= 36500:
        raise argparse.ArgumentTypeError("expected between 1 and 36500 days")
    return days


if __name__ == "__main__":
    sys.exit(main())
