"""The files of deploy/compose, as README.md there runs them."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import REPOSITORY, Images, not_tested, program
from engine import Engine, text_of

FILES = {2: ["compose.yaml"], 3: ["compose.yaml", "compose.three.yaml"]}
PROVIDERS = ("alice", "bob", "carol")


class Project:
    """The files with our images, labelled so that what they make is found."""

    def __init__(
        self, engine: Engine, images: Images, compose: Sequence[str], home: Path, files: Sequence[str]
    ) -> None:
        self.engine = engine
        self.directory = home / "compose"
        self.project = engine.name("compose").lower()
        self.environment = {"CONVELO_TRY_IMAGE": images.trying}
        shutil.copytree(REPOSITORY / "deploy/compose", self.directory)
        labels = {"labels": dict([engine.label.split("=")])}
        labelled: dict[str, dict[str, Any]] = {"services": {}, "networks": {}, "volumes": {}}
        for file in files:
            document = yaml.safe_load((self.directory / file).read_text())
            for kind, all_of_it in labelled.items():
                all_of_it.update(dict.fromkeys(document[kind], labels))
        (self.directory / "labels.yaml").write_text(json.dumps(labelled))
        self.command = [*compose, "--project-name", self.project]
        for file in (*files, "labels.yaml"):
            self.command += ["--file", file]

    def __call__(self, *arguments: str, patience: float = 120) -> str:
        environment = {**os.environ, **self.environment}
        return text_of([*self.command, *arguments], patience, cwd=self.directory, env=environment)

    def read(self, provider: str, name: str) -> str:
        """A file of a provider's volume, read by a container that has that volume and no other."""
        options = ["--rm", "--label", self.engine.label, "--volume", f"{self.project}_{provider}:/data:ro"]
        return self.engine("run", *options, "--entrypoint", "cat", self.environment["CONVELO_TRY_IMAGE"], name)


@pytest.fixture(scope="session")
def compose(images: Images, pytestconfig: pytest.Config) -> list[str]:
    """The command that reads compose files: a part of the engine's command line, or a program of its own."""
    for command in (["docker", "compose"], ["docker-compose"]):
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "version"], capture_output=True, timeout=30, check=False).returncode == 0:
                return command
    not_tested(pytestconfig, "deploy/compose: neither 'docker compose' nor 'docker-compose' is installed")


@pytest.fixture(params=FILES)
def project(
    request: pytest.FixtureRequest, engine: Engine, images: Images, compose: list[str], tmp_path: Path
) -> Iterator[Project]:
    project = Project(engine, images, compose, tmp_path, FILES[request.param])
    try:
        yield project
    finally:
        project("down", "--volumes", "--timeout", "5")


def test_a_run_ends_with_every_providers_result_and_receipt(project: Project, tmp_path: Path) -> None:
    said = project("up", "--no-build")
    providers = [name for name in PROVIDERS if f"{name}-key" in project("config", "--services").split()]
    assert len(providers) >= 2
    tables = {name: emails(project, name) for name in providers}
    common = set.intersection(*(set(table) for table in tables.values()))
    assert common
    for name, table in tables.items():
        (_, *rows) = list(csv.reader(project.read(name, "matched.csv").splitlines()))
        assert rows == [row for email, row in table.items() if email in common], said
        receipt = tmp_path / f"{name}.receipt.json"
        receipt.write_text(project.read(name, "matched.csv.receipt.json"))
        assert json.loads(receipt.read_text())["party"] == name
        text_of([str(program("convelo")), "receipt", "verify", str(receipt)])
    for container in project("ps", "--all", "--quiet").split():
        state = project.engine.inspect(container)
        # The last step may go down with the service that it stops.
        accepted = (0, 137) if "finish" in state["Name"] else (0,)
        assert state["State"]["ExitCode"] in accepted, (state["Name"], said)


def emails(project: Project, provider: str) -> dict[str, list[str]]:
    """The rows of a provider's table by their keys."""
    with (project.directory / f"tables/{provider}.csv").open(newline="") as file:
        (head, *rows) = csv.reader(file)
    column = head.index("email")
    return {row[column].lower(): row for row in rows}
