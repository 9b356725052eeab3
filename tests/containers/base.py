"""The base of the images, made of Debian's packages, since a machine may reach no registry of images."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

#: The release that the Dockerfiles name.
RELEASE = "bookworm"

#: Some dozens of packages are fetched and unpacked.
PATIENCE = 400

#: What no program of the images reads.
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "var/cache/apt", "var/lib/apt")


#: What a machine needs that has no base yet.
INSTALL = "install mmdebstrap (apt-get install mmdebstrap), which makes the base of the images"


class NoBase(Exception):
    """The base cannot be made on this machine; says what to install, on one line."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{' '.join(why.split())}: {INSTALL}")


def archive(directory: Path) -> Path:
    """The archive of the base's root directory, which is made once and kept in a directory."""
    archived = directory / f"{RELEASE}.tar"
    if archived.exists():
        return archived
    made = directory / f"{RELEASE}.{os.getpid()}.tar"
    directory.mkdir(parents=True, exist_ok=True)
    try:
        if shutil.which("mmdebstrap"):
            # It needs no root: without, it takes a user namespace.
            without = [f"--dpkgopt=path-exclude=/{path}/*" for path in LEFT_OUT if path.startswith("usr")]
            _run(["mmdebstrap", "--quiet", "--variant=essential", *without, RELEASE, str(made)])
        elif os.geteuid() != 0:
            raise NoBase("mmdebstrap is not installed, and only root can run debootstrap")
        elif shutil.which("debootstrap"):
            _with_debootstrap(["debootstrap"], made.with_suffix(""), made)
        else:
            with tempfile.TemporaryDirectory() as home:
                _with_debootstrap(_fetched_debootstrap(Path(home)), made.with_suffix(""), made)
        return made.rename(archived)
    finally:
        made.unlink(missing_ok=True)


def _fetched_debootstrap(home: Path) -> list[str]:
    """debootstrap, a script, out of its package: nothing is installed, and no list of the system changes.

    To fetch it takes no root; to run it does.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NoBase("neither mmdebstrap nor debootstrap is installed, and there is no apt-get to fetch one")
    for kept in ("lists", "cache"):
        (home / kept / "partial").mkdir(parents=True)
    apt = ["apt-get", f"-oDir::State::Lists={home}/lists", f"-oDir::Cache={home}/cache", "-oAPT::Sandbox::User=root"]
    # Lists that the system has, perhaps of a mirror of its own, are enough where they name the package.
    if _fails(["apt-get", "--quiet=2", "download", "debootstrap"], home):
        _run([*apt, "--quiet=2", "update"])
        _run([*apt, "--quiet=2", "download", "debootstrap"], home)
    fetched = sorted(home.glob("debootstrap_*.deb"))
    if not fetched:
        raise NoBase("apt-get has fetched no package debootstrap")
    _run(["dpkg-deb", "--extract", str(fetched[0]), str(home / "tool")])
    tool = home / "tool/usr"
    return ["env", f"DEBOOTSTRAP_DIR={tool}/share/debootstrap", "sh", f"{tool}/sbin/debootstrap"]


def _with_debootstrap(debootstrap: Sequence[str], root: Path, made: Path) -> None:
    try:
        _run([*debootstrap, "--variant=minbase", RELEASE, str(root)])
        for left_out in LEFT_OUT:
            shutil.rmtree(root / left_out, ignore_errors=True)
        with tarfile.open(made, "w") as tar:
            tar.add(root, arcname=".")
    finally:
        # Had it been stopped, its mounts would still be there.
        mounts = [root / name for name in ("proc", "sys") if (root / name).is_mount()]
        for mount in mounts:
            subprocess.run(["umount", str(mount)], timeout=20, check=False)
        if not any(mount.is_mount() for mount in mounts):
            shutil.rmtree(root, ignore_errors=True)


def _fails(command: Sequence[str], directory: Path) -> bool:
    try:
        _run(command, directory)
    except NoBase:
        return True
    return False


def _run(command: Sequence[str], directory: Path | None = None) -> None:
    """Runs what makes a base. That it fails is a matter of network and packages, not of ours."""
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except OSError as error:
        raise NoBase(f"{command[0]} cannot be started: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise NoBase(f"{command[0]} has not made a base within {PATIENCE} s") from error
    if done.returncode != 0:
        last = " ".join(done.stdout.splitlines()[-2:] + done.stderr.splitlines()[-2:])
        raise NoBase(f"{command[0]} cannot make a base: {last}")
