"""What is in the images, and what is not."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from conftest import REPOSITORY, USER, Images, program
from engine import Engine, text_of

MEBIBYTE = 1 << 20

#: The largest image of a provider, and what each may add to program and base.
PROVIDER_BYTES = 60_000_000
BESIDE_PROGRAM = {"provider": 10 * MEBIBYTE, "trying": MEBIBYTE, "service": MEBIBYTE}


@pytest.mark.parametrize("role", BESIDE_PROGRAM)
def test_an_image_says_how_it_is_run(engine: Engine, images: Images, role: str) -> None:
    config = engine.inspect(getattr(images, role))["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] in (["/opt/convelo/convelo"], ["/opt/convelo/start"])
    for name in ("title", "description", "version", "revision", "licenses"):
        assert config["Labels"][f"org.opencontainers.image.{name}"]
    version = text_of([str(program("convelo")), "--version"]).split()[1]
    assert config["Labels"]["org.opencontainers.image.version"] == version
    checked = config.get("Healthcheck", {}).get("Test", ["NONE"])
    assert checked == (["CMD", "/opt/convelo/ready", "7480", "/ready"] if role == "service" else ["NONE"])


@pytest.mark.parametrize("role", BESIDE_PROGRAM)
def test_an_image_adds_little_to_its_program(engine: Engine, images: Images, role: str, tmp_path: Path) -> None:
    name = "convelo-service" if role == "service" else "convelo"
    text_of(["strip", "-o", str(tmp_path / name), str(program(name))])
    size = engine.inspect(getattr(images, role))["Size"]
    base = 0 if role == "provider" else engine.inspect(images.base)["Size"]
    beside = size - base - (tmp_path / name).stat().st_size
    print(f"{role}: {size} bytes, {beside} of them beside base and program")
    assert beside <= BESIDE_PROGRAM[role]
    shipped = program("convelo").parents[1] / "dist/convelo"
    if role == "provider" and shipped.exists():
        text_of(["strip", "-o", str(tmp_path / "shipped"), str(shipped)])
        assert beside + (tmp_path / "shipped").stat().st_size <= PROVIDER_BYTES


def test_a_provider_is_a_program_and_its_libraries(engine: Engine, images: Images) -> None:
    with files(engine, images.provider) as image:
        names = {member.name for member in image if member.isfile()}
        made_by_engine = {".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"}
        programs = {name for name in names if not re.search(r"\.so[.0-9]*$", name)} - made_by_engine
        notes = {name for name in programs if name.startswith("var/lib/dpkg/status.d/")}
        assert notes == {"var/lib/dpkg/status.d/libc6", "var/lib/dpkg/status.d/libgcc-s1"}
        assert programs - notes == {
            "opt/convelo/convelo",
            "opt/convelo/doc/LICENSE",
            "opt/convelo/doc/convelo.cdx.json",
            "etc/group",
            "etc/nsswitch.conf",
            "etc/os-release",
            "etc/passwd",
        }
        data = image.getmember("data/")
        assert (data.uid, data.gid) == (USER, USER)


@pytest.mark.parametrize("role", BESIDE_PROGRAM)
def test_an_image_lists_what_its_program_is_made_of(engine: Engine, images: Images, role: str) -> None:
    listed_in = "convelo-service.cdx.json" if role == "service" else "doc/convelo.cdx.json"
    with files(engine, getattr(images, role)) as image:
        file = image.extractfile(f"opt/convelo/{listed_in}")
        assert file is not None
        listed = json.load(file)
    assert listed["bomFormat"] == "CycloneDX"
    crates = {one["name"] for one in listed["components"]}
    assert {"rustls", "tokio", "convelo-psi"} <= crates
    assert ("convelo-simulator" in crates) == (role != "service")


def test_nobody_but_root_can_change_a_program(engine: Engine, images: Images) -> None:
    for role in BESIDE_PROGRAM:
        with files(engine, getattr(images, role)) as image:
            for member in image:
                if member.name.startswith("opt/"):
                    assert (member.uid, member.issym() or member.mode & 0o022) in ((0, 0), (0, True)), member.name
                assert not (member.isfile() and member.uid == USER), member.name


def test_a_key_never_gets_into_a_layer(engine: Engine, images: Images, tmp_path: Path) -> None:
    context = tmp_path / "context"
    shutil.copytree(REPOSITORY / "deploy/images", context / "deploy/images")
    shutil.copy(REPOSITORY / "LICENSE", context)
    (context / "enclave").mkdir()
    for name in ("convelo-service", "convelo-service.cdx.json"):
        (context / "enclave" / name).write_text("")
    key = f"-----BEGIN RSA {'PRIVATE'} KEY-----\n"
    (context / "enclave/signing.pem").write_text(key)
    with pytest.raises(AssertionError, match="a private key is among the enclave's files"):
        engine.build(context, "service", {"BASE": images.base, "GRAMINE": "none"})
    (context / "enclave/signing.pem").unlink()
    with pytest.raises(AssertionError, match=r"convelo-service\.manifest\.sgx is missing: .*build\.sh makes it"):
        engine.build(context, "service", {"BASE": images.base})


def files(engine: Engine, image: str) -> tarfile.TarFile:
    """All files of an image."""
    name = engine.name("files")
    engine("create", "--name", name, "--label", engine.label, image)
    exported = subprocess.run(["docker", "export", name], capture_output=True, timeout=60, check=True)
    return tarfile.open(fileobj=io.BytesIO(exported.stdout))


def test_the_script_of_the_replaced_system_runs_a_provider(engine: Engine, images: Images, tmp_path: Path) -> None:
    engine("tag", images.provider, f"convelo/provider:{engine.owner}")
    home = tmp_path / "alice"
    home.mkdir()
    os.chown(home, 4321, 4321)
    script = str(REPOSITORY / "deploy/images/start_container.sh")
    name = engine.name("data_provider1")
    said = text_of([script, "--data", str(home), name, "192.0.2.7", engine.owner, "--", "keygen", "alice"])
    assert 'name = "alice"' in said
    key = (home / "alice.key").stat()
    assert (key.st_uid, key.st_mode & 0o777) == (4321, 0o600)
    assert name not in engine("ps", "--all", "--format", "{{.Names}}")
