"""Images built here, of programs that are built already, and jobs between containers of them."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import base
from engine import RUNNING, Container, Engine, NoEngine, text_of

REPOSITORY = Path(__file__).resolve().parents[2]

#: The user of the images.
USER = 10001

#: What is not tested on this machine, and why.
NOT_TESTED = pytest.StashKey[set[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "tables(ids): the ids of each provider of the site")
    config.stash[NOT_TESTED] = set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test waits for the images of all."""
    for item in items:
        item.add_marker(pytest.mark.timeout(1500))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for what in config.stash[NOT_TESTED]:
        terminalreporter.write_line(f"NOT TESTED: {what}", red=True, bold=True)


def not_tested(config: pytest.Config, what: str) -> NoReturn:
    """Skips a test, and says so in a line of its own at the end."""
    config.stash[NOT_TESTED].add(what)
    pytest.skip(what)


@dataclass(frozen=True)
class Images:
    """What the tests run."""

    engine: Engine
    base: str
    provider: str
    trying: str
    service: str


def program(name: str) -> Path:
    """A program under test, beside the one that the variable names."""
    return Path(os.environ["CONVELO_TESTS_BINARY"]).with_name(name)


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """The images, built by their Dockerfiles from programs of this build, without symbols."""
    try:
        engine = Engine()
        engine.remove_left()
        archive = base.archive(program("convelo").parents[1] / "containers")
    except (NoEngine, base.NoBase) as error:
        not_tested(request.config, f"containers: {error}")
    try:
        yield build(engine, archive, tmp_path_factory.mktemp("context"))
    finally:
        engine.remove_own()


def build(engine: Engine, archive: Path, home: Path) -> Images:
    parties = context(home, "prebuilt", "convelo-cli", "convelo")
    enclave = context(home, "enclave", "convelo-service", "convelo-service")
    root = engine.import_base(archive)
    arguments = {"BUILDER": root, "BASE": root}
    with ThreadPoolExecutor() as pool:
        service = pool.submit(engine.build, enclave, "service", {"BASE": root, "GRAMINE": "none"})
        # One after the other: they begin alike, and the builder keeps what it has.
        provider = engine.build(parties, "provider", arguments)
        trying = engine.build(parties, "try", arguments)
        return Images(engine, root, provider, trying, service.result())


def context(home: Path, directory: str, package: str, name: str) -> Path:
    """What an image is built from: what its Dockerfile copies, and a program in place of the sources."""
    made = home / name
    shutil.copytree(REPOSITORY / "deploy/images", made / "deploy/images")
    shutil.copy(REPOSITORY / "LICENSE", made)
    (made / directory).mkdir()
    text_of(["strip", "-o", str(made / directory / name), str(program(name))])
    sbom = str(made / directory / f"{name}.cdx.json")
    text_of([str(program("xtask")), "sbom", "--package", package, "--output", sbom])
    return made


@pytest.fixture
def engine(images: Images) -> Iterator[Engine]:
    """The engine, from which all containers, networks and volumes of a test go afterwards."""
    try:
        yield images.engine
    finally:
        images.engine.remove_own(RUNNING)


Ids = Sequence[str]


@dataclass
class Site:
    """A simulated platform, a service, and providers, each on a private network with the service."""

    images: Images
    home: Path
    tables: Mapping[str, Ids]
    networks: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> None:
        self.convelo("simulator", "new", "platform")
        parties = []
        for name, ids in self.tables.items():
            directory = self.home / name
            directory.mkdir()
            key = re.search(r"sha256:[0-9a-f]{64}", self.convelo("keygen", name, "--output", f"{name}/{name}.key"))
            assert key is not None
            parties += ["--party", f"{name}={key[0]}"]
            (directory / "ids.csv").write_text("id\n" + "".join(f"{one}\n" for one in ids))
            self.networks[name] = self.engine.network(name)
        self.convelo("init", "job.toml", "--policy", "platform/policy.toml", "--service", "service:7443", *parties)
        job = (self.home / "job.toml").read_text().replace('normalise = ["email"]', 'normalise = ["trim"]')
        for name in self.tables:
            (self.home / name / "job.toml").write_text(job)
            shutil.copy(self.home / "platform/collateral.json", self.home / name)
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, USER, USER)

    @property
    def engine(self) -> Engine:
        return self.images.engine

    def convelo(self, *arguments: str) -> str:
        """Runs the program on this machine."""
        done = subprocess.run(
            [str(program("convelo")), *arguments],
            cwd=self.home, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def service(self, *more: str) -> Container:
        """Starts the service, in every provider's network."""
        (first, *others) = self.networks.values()
        options = ["--network", first, "--network-alias", "service"]
        options += ["--volume", f"{self.home}/platform:/data/platform:ro"]
        command = ["serve", "--simulated", "/data/platform", *more]
        service = self.engine.run("service", self.images.trying, *command, options=options)
        for other in others:
            self.engine("network", "connect", "--alias", "service", other, service.name)
        service.wait_for("listening on")
        return service

    def provider(self, name: str, *more: str) -> Container:
        """Starts a provider."""
        options = ["--network", self.networks[name], "--volume", f"{self.home}/{name}:/data"]
        command = ["run", "job.toml", "--as", name, "--input", "ids.csv", "--key", "id", "--force"]
        command += ["--output", "matched.csv", "--insecure-simulated", *more]
        return self.engine.run(name, self.images.provider, *command, options=options)

    def bystander(self, name: str) -> Container:
        """Starts a container in a provider's network that does nothing."""
        options = ["--network", self.networks[name], "--entrypoint", "sleep"]
        return self.engine.run("bystander", self.images.trying, "infinity", options=options)

    def check_result(self, name: str) -> None:
        """Compares a provider's rows with those that all tables have, and verifies its receipt."""
        common = set.intersection(*(set(ids) for ids in self.tables.values()))
        with (self.home / name / "matched.csv").open(newline="") as file:
            rows = [row for (row,) in csv.reader(file)]
        assert rows == ["id", *(one for one in self.tables[name] if one in common)]
        receipts = sorted((self.home / name).glob("*.receipt*.json"))
        assert receipts, name
        said = self.convelo("receipt", "verify", str(receipts[-1]), "--job", f"{name}/job.toml")
        assert "SIMULATED" in said

    def finish(self, providers: Mapping[str, Container]) -> None:
        """Waits until these providers, which are all, have the right results."""
        for name, container in providers.items():
            container.ends(0)
            self.check_result(name)


@pytest.fixture
def site(engine: Engine, images: Images, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """A site with the tables that the test is marked with."""
    marker = request.node.get_closest_marker("tables")
    site = Site(images, tmp_path, marker.args[0])
    site.prepare()
    return site
