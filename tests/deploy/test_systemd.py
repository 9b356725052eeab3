"""deploy/systemd: units that systemd accepts, and how exposed it says that they are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
UNITS = REPOSITORY / "deploy/systemd"

#: What ``systemd-analyze security`` of systemd 252 says of each, in tenths; deploy/systemd/README.md has it too.
EXPOSURE = {
    "convelo-serve.service": 12,
    "convelo-service-gramine.service": 19,
    "convelo-provider@.service": 12,
}

#: How much more another version of systemd may say, which looks at other things.
TOLERANCE = 5

#: Programs of the hosts that the units are for.
PROGRAMS = ("/opt/convelo/convelo", "/usr/bin/gramine-sgx", "/usr/bin/curl")


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("not tested: systemd-analyze is not installed (Debian's package systemd has it)")
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def copied(unit: str, place: Path) -> Path:
    """The unit with programs that this machine has, since systemd looks whether they are there."""
    text = (UNITS / unit).read_text()
    for program in PROGRAMS:
        text = text.replace(f"={program} ", "=/bin/true ")
    copy = place / unit
    copy.write_text(text)
    return copy


def exposure(unit: Path) -> int:
    done = analyze("security", "--offline=true", str(unit))
    found = re.search(r"Overall exposure level for \S+: (\d+)\.(\d)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return int(found[1]) * 10 + int(found[2])


def settings(unit: str) -> list[tuple[str, str]]:
    lines = (UNITS / unit).read_text().splitlines()
    return [(name, value) for line in lines if re.match(r"\w+=", line) for name, _, value in [line.partition("=")]]


def test_every_service_has_a_figure() -> None:
    assert {path.name for path in UNITS.glob("*.service")} == EXPOSURE.keys()


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.iterdir() if path.suffix in {".service", ".timer"}))
def test_systemd_accepts_the_units(unit: str, tmp_path: Path) -> None:
    if unit.endswith(".timer"):
        copied(unit.replace(".timer", ".service"), tmp_path)
    done = analyze("verify", str(copied(unit, tmp_path)))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_systemd_does_not_accept_is_found(tmp_path: Path) -> None:
    for good, bad in [
        ("Restart=on-failure", "Restart=sometimes"),
        ("ProtectHome=yes", "ProtectHouse=yes"),
        ("SystemCallFilter=@system-service", "SystemCallFilter=@systems"),
        ("=/bin/true ", "=/opt/nothing "),
    ]:
        unit = copied("convelo-serve.service", tmp_path)
        text = unit.read_text()
        assert good in text
        unit.write_text(text.replace(good, bad))
        done = analyze("verify", str(unit))
        assert done.stdout + done.stderr != "", bad


@pytest.mark.parametrize("unit", EXPOSURE)
def test_how_exposed_the_services_are(unit: str, tmp_path: Path) -> None:
    assert exposure(copied(unit, tmp_path)) <= EXPOSURE[unit] + TOLERANCE
    figure = f"| `{unit}` | {EXPOSURE[unit] / 10} |"
    assert figure in (UNITS / "README.md").read_text()


def test_a_protection_that_is_missing_is_found(tmp_path: Path) -> None:
    good = exposure(copied("convelo-serve.service", tmp_path))
    for line in ("CapabilityBoundingSet=\n", "User=convelo\n", "ProtectSystem=strict\n"):
        unit = copied("convelo-serve.service", tmp_path)
        unit.write_text(unit.read_text().replace(line, ""))
        assert exposure(unit) > good, line


@pytest.mark.parametrize("unit", EXPOSURE)
def test_no_setting_stands_twice_by_accident(unit: str) -> None:
    lists = {"SystemCallFilter", "SocketBindAllow", "Environment"}
    names = [name for name, _ in settings(unit) if name not in lists]
    assert sorted(set(names)) == sorted(names)


def test_the_drop_in_for_tdx_changes_what_the_unit_sets() -> None:
    of_unit = {name for name, _ in settings("convelo-serve.service")}
    assert {name for name, _ in settings("tdx.conf")} <= of_unit


@pytest.mark.skipif("CONVELO_TESTS_BINARY" not in os.environ, reason="CONVELO_TESTS_BINARY names no program")
@pytest.mark.parametrize(
    ("unit", "command"),
    [("convelo-serve.service", "serve"), ("tdx.conf", "serve"), ("convelo-provider@.service", "run")],
)
def test_the_program_knows_the_options_of_the_units(unit: str, command: str) -> None:
    program = os.environ["CONVELO_TESTS_BINARY"]
    done = subprocess.run([program, command, "--help"], capture_output=True, text=True, timeout=30, check=True)
    lines = [value for name, value in settings(unit) if name in {"Environment", "ExecStart"}]
    options = {option for line in lines for option in re.findall(r"(?<![\w-])--[a-z-]+", line)}
    assert options
    assert {option for option in options if not re.search(rf"{option}\b", done.stdout)} == set()


@pytest.mark.parametrize("unit", EXPOSURE)
def test_the_ports_are_the_same_everywhere(unit: str) -> None:
    text = (UNITS / unit).read_text()
    allowed = set(re.findall(r"SocketBindAllow=tcp:(\d+)", text))
    listening = set(re.findall(r"--(?:listen|status)=[\d.]+:(\d+)", text))
    assert allowed == (set() if unit.startswith("convelo-provider") else {"7443", "7480"})
    assert listening <= allowed
