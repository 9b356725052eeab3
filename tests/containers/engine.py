"""A container engine, and what the tests make on it: all of it is labelled, and gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

#: How long anything may take that takes a moment on an idle machine.
PATIENCE = 180.0

#: How often something is looked at that is waited for.
POLL = 0.1

#: On everything that the tests make; its value names the process that made it.
LABEL = "org.convelo.tests"


class NoEngine(Exception):
    """This machine has no engine to run containers with."""


class Kind(NamedTuple):
    """A kind of thing on an engine: how it is listed, its labels are read, and it is removed."""

    listed: list[str]
    labels: str
    removed: list[str]


#: In the order in which they can be removed.
KINDS = (
    Kind(["ps", "--all", "--format", "{{.ID}}"], ".Config.Labels", ["rm", "--force", "--volumes"]),
    Kind(["network", "ls", "--format", "{{.ID}}"], ".Labels", ["network", "rm"]),
    Kind(["volume", "ls", "--format", "{{.Name}}"], ".Labels", ["volume", "rm", "--force"]),
    Kind(["images", "--all", "--format", "{{.ID}}"], ".Config.Labels", ["rmi", "--force"]),
)
RUNNING = KINDS[:3]


def text_of(command: Sequence[str], patience: float = PATIENCE, **more: Any) -> str:
    """What a command prints; it must succeed in time."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, timeout=patience, check=False, **more
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def until(what: str, holds: Callable[[], bool], patience: float = PATIENCE, poll: float = POLL) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"after {patience:.0f} s still not: {what}"
        time.sleep(poll)


def name_of_process(process: int) -> str:
    """A process as no other one is called, since numbers are given again: with when it started."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return f"{process}-{stat.rpartition(') ')[2].split()[19]}"


class Engine:
    """Docker, through its command line."""

    def __init__(self) -> None:
        self.owner = name_of_process(os.getpid())
        self.made = 0
        try:
            self("version", "--format", "{{.Server.Version}}", patience=20)
        except (OSError, AssertionError, subprocess.TimeoutExpired) as error:
            reason = " ".join(str(error).split())[-160:]
            raise NoEngine(f"no container engine answers: {reason}") from error

    def __call__(self, *arguments: str, patience: float = PATIENCE) -> str:
        """Runs `docker` with these arguments."""
        return text_of(["docker", *arguments], patience)

    @property
    def label(self) -> str:
        return f"{LABEL}={self.owner}"

    def name(self, name: str) -> str:
        """A name that nobody else on this engine has."""
        self.made += 1
        return f"convelo-tests-{self.owner}-{self.made}-{name}"

    def inspect(self, thing: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self("inspect", thing))
        return found[0]

    def network(self, name: str) -> str:
        """Makes a network that leads nowhere else."""
        made = self.name(name)
        self("network", "create", "--internal", "--label", self.label, made)
        return made

    def import_base(self, archive: Path) -> str:
        """Makes an image of an archived root directory. What is built from it inherits its label."""
        tag = f"convelo-tests/base:{self.owner}"
        self("import", "--change", f"LABEL {self.label}", str(archive), tag, patience=180)
        return tag

    def build(self, context: Path, image: str, arguments: Mapping[str, str]) -> str:
        """Builds an image of deploy/images, with the builder that every engine has."""
        tag = f"convelo-tests/{image}:{self.owner}"
        command = ["docker", "build", "--file", str(context / f"deploy/images/{image}/Dockerfile")]
        command += ["--tag", tag, "--label", self.label]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        text_of([*command, str(context)], 600, env={**os.environ, "DOCKER_BUILDKIT": "0"})
        return tag

    def run(self, name: str, image: str, *command: str, options: Sequence[str] = ()) -> Container:
        """Starts a container as the images are meant to run: without privileges, its root read-only."""
        full = self.name(name)
        hardened = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
        self("run", "--detach", "--name", full, "--label", self.label, *hardened, *options, image, *command)
        return Container(self, full)

    def remove(self, kinds: Sequence[Kind], theirs: Callable[[str], bool]) -> None:
        """Removes what was made by the processes that `theirs` picks."""
        for kind in kinds:
            listed = self(*kind.listed, "--filter", f"label={LABEL}")
            for thing in dict.fromkeys(listed.split()):
                # Others may be removing theirs at the same time; a parent goes with its last child.
                with contextlib.suppress(AssertionError):
                    owner = self("inspect", "--format", f'{{{{index {kind.labels} "{LABEL}"}}}}', thing)
                    if theirs(owner):
                        self(*kind.removed, thing)

    def remove_own(self, kinds: Sequence[Kind] = KINDS) -> None:
        self.remove(kinds, lambda owner: owner == self.owner)

    def remove_left(self) -> None:
        """Removes what earlier runs left behind: those whose process is no more."""
        self.remove(KINDS, lambda owner: name_of_process(int(owner.partition("-")[0])) != owner)


class Container:
    """A container that was started."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name

    def said(self) -> str:
        """Both outputs so far."""
        done = subprocess.run(
            ["docker", "logs", self.name], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        return done.stdout + done.stderr

    def wait_for(self, text: str, patience: float = PATIENCE) -> None:
        """Waits until it says something."""
        deadline = time.monotonic() + patience
        while text not in (said := self.said()):
            running = self.state()["Running"]
            hopeless = not running or time.monotonic() > deadline
            assert not hopeless or text in self.said(), f"{self.name} does not say '{text}':\n{said}"
            time.sleep(POLL)

    def ends(self, code: int, patience: float = PATIENCE) -> str:
        """Waits for its end with this exit code; returns what it said."""
        try:
            found = self.engine("wait", self.name, patience=patience)
        except subprocess.TimeoutExpired:
            found = f"none after {patience:.0f} s"
        assert found == str(code), f"{self.name}: exit code {found}, not {code}\n{self.said()}"
        return self.said()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.engine.inspect(self.name)["State"]
        return state

    def process(self) -> int:
        """Its first process, as the machine numbers it."""
        return int(self.state()["Pid"])

    def address(self, network: str) -> str:
        return str(self.engine.inspect(self.name)["NetworkSettings"]["Networks"][network]["IPAddress"])

    def stop(self) -> None:
        """SIGTERM, and more after a while."""
        self.engine("stop", "--time", "30", self.name)

    def kill(self) -> None:
        """SIGKILL."""
        self.engine("kill", self.name)

    def start(self) -> None:
        self.engine("start", self.name)

    def disconnect(self, network: str) -> None:
        self.engine("network", "disconnect", "--force", network, self.name)

    def connect(self, network: str) -> None:
        self.engine("network", "connect", network, self.name)

    def freeze_once_sent(self, least: int, most: int) -> Callable[[], None]:
        """Stops its process as soon as it has sent so many bytes, and before it has sent that many; returns
        what lets it go on."""
        process = self.process()

        def sent() -> int:
            lines = Path(f"/proc/{process}/net/dev").read_text().splitlines()[2:]
            return sum(int(line.split()[9]) for line in lines if not line.strip().startswith("lo:"))

        until(f"{self.name} has sent {least} bytes", lambda: sent() >= least, poll=0.001)
        os.kill(process, signal.SIGSTOP)
        assert sent() < most, f"{self.name} was stopped too late"
        return lambda: os.kill(process, signal.SIGCONT)
