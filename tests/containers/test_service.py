"""The image of the measured program: in a TDX guest's form, as there is no SGX where this is tested."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import USER, Images, Site, program
from engine import Container, Engine, until

TABLES = {"alice": ["car", "cat", "dog", "train"], "bob": ["bus", "car", "cat", "tram"]}


@pytest.fixture
def device(site: Site) -> Iterator[Path]:
    """What stands in for Gramine's device, quoting on the site's platform."""
    folder = site.home / "device"
    folder.mkdir()
    os.chown(folder, USER, USER)
    process = subprocess.Popen([str(program("examples") / "device"), str(site.home / "platform"), str(folder)])
    try:
        until("the device is there", (folder / "attestation_type").exists)
        yield folder
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.tables(TABLES)
def test_the_measured_program_serves_a_job_and_says_when_it_is_ready(site: Site, device: Path) -> None:
    (first, second) = site.networks.values()
    options = ["--network", first, "--network-alias", "service", "--volume", f"{device}:/dev/attestation"]
    service = site.engine.run("service", site.images.service, options=[*options, "--health-interval", "1s"])
    site.engine("network", "connect", "--alias", "service", second, service.name)
    until("the service is healthy", lambda: health(service) == "healthy")
    site.finish({name: site.provider(name) for name in site.tables})
    service.stop()
    service.ends(0)


def test_outside_an_enclave_the_measured_program_says_so(engine: Engine, images: Images) -> None:
    said = engine.run("service", images.service).ends(1)
    assert "gramine-sgx" in said and "/dev/attestation" in said, said


def test_arguments_reach_the_program_where_they_are_not_measured(engine: Engine, images: Images) -> None:
    assert "usage: convelo-service" in engine.run("service", images.service, "--wrong").ends(2).lower()


def test_a_signed_enclave_without_its_devices_says_what_to_mount(
    engine: Engine, images: Images, tmp_path: Path
) -> None:
    manifest = tmp_path / "convelo-service.manifest.sgx"
    manifest.write_text("")
    mount = ["--volume", f"{manifest}:/opt/convelo/convelo-service.manifest.sgx:ro"]
    said = engine.run("service", images.service, options=mount).ends(1)
    assert "/dev/sgx_enclave is missing: start the container with --device /dev/sgx_enclave" in said
    said = engine.run("service", images.service, "0.0.0.0:7443", options=mount).ends(1)
    assert "arguments are part of the measurement" in said


def health(service: Container) -> str:
    return str(service.state()["Health"]["Status"])
