"""``python -m convelo.pki``."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from convelo import pki


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "convelo.pki", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("authority", "party", "identity", "fingerprint"):
        assert command in done.stdout


def test_an_authority_its_parties_and_their_fingerprints(tmp_path: Path) -> None:
    done = run("authority", "--out", str(tmp_path / "new"), "Alice", "Bob")
    assert done.returncode == 0, done.stderr
    again = run("fingerprint", str(tmp_path / "new" / "Alice.crt"))
    assert again.stdout.split()[0] == done.stdout.split()[0]
    assert done.stdout.split()[0].startswith("sha256:")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "ca.crt", "ca.key", "Alice.crt", "Alice.key", "Bob.crt", "Bob.key",
    }  # fmt: skip
    assert run("party", "--out", str(tmp_path / "new"), "Carol").returncode == 0
    assert (tmp_path / "new" / "Carol.key").exists()


def test_private_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    pki.new_authority(tmp_path)
    pki.issue(tmp_path, "Alice")
    pki.new_identity(tmp_path, "Bob")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert {name: mode for name, mode in modes.items() if not name.endswith(".crt")} == {
        "ca.key": 0o600, "Alice.key": 0o600, "Bob.pem": 0o600,
    }  # fmt: skip
    for path in tmp_path.glob("*.crt"):
        assert b"PRIVATE" not in path.read_bytes()


def test_nothing_is_overwritten_unless_told_so(tmp_path: Path) -> None:
    pki.new_identity(tmp_path, "Alice")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = run("identity", "--out", str(tmp_path), "Alice")
    assert done.returncode == 1
    assert "Alice.pem exists already; --force" in done.stderr
    (tmp_path / "Alice.pem").unlink()
    with pytest.raises(FileExistsError, match=r"Alice\.crt"):
        pki.new_identity(tmp_path, "Alice")
    assert {path.name for path in tmp_path.iterdir()} == {"Alice.crt"}
    assert run("identity", "--force", "--out", str(tmp_path), "Alice").returncode == 0
    assert (tmp_path / "Alice.crt").read_bytes() != before["Alice.crt"]
    assert {path.name for path in tmp_path.iterdir()} == {"Alice.crt", "Alice.pem"}


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "ca", "x" * 65, "a b"])
def test_names_that_cannot_be_files(tmp_path: Path, name: str) -> None:
    pki.new_authority(tmp_path)
    for make in (pki.issue, pki.new_identity):
        with pytest.raises(ValueError, match="cannot be the name"):
            make(tmp_path, name)
    assert len(list(tmp_path.iterdir())) == 2


def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no certificate")
    for arguments in (
        ("party", "--out", str(tmp_path), "Alice"),
        ("fingerprint", str(tmp_path / "text")),
        ("fingerprint", str(tmp_path / "absent")),
    ):
        done = run(*arguments)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr
    assert run("authority", "--days", "0").returncode == 2
