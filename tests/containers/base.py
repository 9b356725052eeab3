"""The base of the images, made of Debian's packages, since a machine may reach no registry of images."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

#: The release that the Dockerfiles name.
RELEASE = "bookworm"

#: debootstrap fetches some fifty packages and unpacks them.
PATIENCE = 400

#: What no program of the images reads.
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "var/cache/apt", "var/lib/apt")


class NoBase(Exception):
    """The base cannot be made on this machine."""


def archive(directory: Path) -> Path:
    """The archive of the base's root directory, which is made once and kept in a directory."""
    archived = directory / f"{RELEASE}.tar"
    if not archived.exists():
        _make(archived)
    return archived


def _make(archived: Path) -> None:
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise NoBase("a base is made by debootstrap, as root: install it (apt-get install debootstrap)")
    root = archived.with_suffix(f".{os.getpid()}")
    try:
        root.mkdir(parents=True)
        command = ["debootstrap", "--variant=minbase", RELEASE, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode != 0:
            last = " ".join(done.stdout.splitlines()[-2:] + done.stderr.splitlines()[-2:])
            raise NoBase(f"debootstrap cannot make one: {last}")
        for left_out in LEFT_OUT:
            shutil.rmtree(root / left_out, ignore_errors=True)
        made = root.with_suffix(".new")
        with tarfile.open(made, "w") as tar:
            tar.add(root, arcname=".")
        made.rename(archived)
    except subprocess.TimeoutExpired as error:
        raise NoBase(f"debootstrap has not made one within {PATIENCE} s") from error
    finally:
        _remove(root)


def _remove(root: Path) -> None:
    """Removes a root directory. Had debootstrap been stopped, its mounts would still be there."""
    for mount in ("proc", "sys"):
        with contextlib.suppress(OSError):
            if (root / mount).is_mount():
                subprocess.run(["umount", str(root / mount)], timeout=20, check=False)
    if not any((root / mount).is_mount() for mount in ("proc", "sys")):
        shutil.rmtree(root, ignore_errors=True)
