"""How tests/containers makes the base of the images, where tools are missing; nothing is fetched."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def loaded() -> ModuleType:
    found = importlib.util.spec_from_file_location("base_of_images", REPOSITORY / "tests/containers/base.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


base = loaded()

#: Downloads a package like Debian's, whose debootstrap makes a root directory with one file.
APT_GET = """#!/bin/sh
case "$*" in
*download*)
    [ -e "$FAKE/no-lists" ] && case "$*" in *Dir::State::Lists*) ;; *) exit 100 ;; esac
    touch debootstrap_1.0_all.deb ;;
*update*) touch "$FAKE/updated" ;;
esac
"""
DPKG_DEB = """#!/bin/sh
mkdir -p "$3/usr/sbin" "$3/usr/share/debootstrap"
echo 'mkdir -p "$3" && echo "$DEBOOTSTRAP_DIR" > "$3/made-by"' > "$3/usr/sbin/debootstrap"
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all of PATH, with what every machine has."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("sh", "env", "mkdir", "touch", "umount"):
        found = shutil.which(name)
        assert found is not None, name
        (place / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return place


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def refused(directory: Path) -> str:
    with pytest.raises(base.NoBase) as error:
        base.archive(directory)
    said = str(error.value)
    assert "\n" not in said and "install mmdebstrap" in said
    assert list(directory.glob("*")) == []
    return said


@pytest.mark.parametrize("lists", ["of the system", "of its own"])
def test_debootstrap_is_fetched_where_it_is_not_installed(tools: Path, tmp_path: Path, lists: str) -> None:
    script(tools / "apt-get", APT_GET)
    script(tools / "dpkg-deb", DPKG_DEB)
    if lists == "of its own":
        (tmp_path / "no-lists").touch()
    made = base.archive(tmp_path / "kept")
    assert made.name == "bookworm.tar" and made.stat().st_size > 0
    assert (tmp_path / "updated").exists() == (lists == "of its own")


def test_without_apt_one_line_says_what_to_install(tools: Path, tmp_path: Path) -> None:
    assert tools.exists()
    assert "there is no apt-get" in refused(tmp_path / "kept")


def test_a_package_that_cannot_be_fetched_is_one_line_too(tools: Path, tmp_path: Path) -> None:
    script(tools / "apt-get", "#!/bin/sh\necho one >&2\necho two >&2\nexit 100\n")
    script(tools / "dpkg-deb", DPKG_DEB)
    assert "apt-get cannot make a base: one two" in refused(tmp_path / "kept")
    script(tools / "apt-get", "#!/bin/sh\nexit 0\n")
    assert "apt-get has fetched no package" in refused(tmp_path / "kept")


def test_who_is_not_root_needs_mmdebstrap(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root can run debootstrap" in refused(tmp_path / "kept")
    script(tools / "mmdebstrap", '#!/bin/sh\nfor last; do :; done\necho made > "$last"\n')
    assert base.archive(tmp_path / "kept").read_text() == "made\n"
