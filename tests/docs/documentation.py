"""Runs every command of the documentation, or says which are not run here and why.

    python tests/docs/documentation.py [PAGE...]

``pages.toml``, next to this file, says what a page needs before its commands run, what stands for its
example hosts and keys, and which commands are not run. A command that is not named there is run as it
stands, and must succeed: so a new command cannot be left out unnoticed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]
MARKS = Path(__file__).with_name("pages.toml")

#: The pages that have commands for people.
PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "deploy/**/*.md", "fuzz/README.md"]

#: A command may take this long, and so may a program in the background until it is ready, or until it has
#: stopped. In seconds.
DEADLINE = 40.0

#: Fences whose lines are commands, and those that have none. Others are told apart by their lines.
SHELL = {"sh", "bash", "shell", "console"}
TEXT = {"text", "toml", "yaml", "json", "python", "ini", "dockerfile", "rust", "diff", "promql"}

#: What a command of an unmarked block begins with.
KNOWN = {
    "actionlint", "aesmd", "apt-cache", "apt-get", "az", "base64", "cargo", "cat", "cd", "chmod", "chown", "cmp",
    "convelo", "convelo-service", "cp", "curl", "cut", "date", "diff", "dnf", "docker", "docker-compose", "echo",
    "export", "find", "gh", "git", "gpg", "gramine-direct", "gramine-manifest", "gramine-manifest-check",
    "gramine-sgx", "gramine-sgx-gen-private-key", "gramine-sgx-sign", "gramine-sgx-sigstruct-view", "grep",
    "head", "install", "is-sgx-available", "journalctl", "jq", "kubectl", "kustomize", "ls", "make", "mkdir",
    "mv", "nc", "openssl", "pip", "pip-compile", "printf", "prlimit", "promtool", "pytest", "python", "python3",
    "readelf", "rm", "runuser", "rustup", "scp", "sed", "sha256sum", "ssh", "strings", "sudo", "systemctl",
    "systemd-analyze", "systemd-sysusers", "systemd-tmpfiles", "tail", "tar", "tee", "test", "useradd", "usermod",
    "wget", "xargs", "xtask", "yum", "zcat",
}  # fmt: skip

ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=\S*\s+")
PROGRAM = re.compile(r"[a-z./][A-Za-z0-9./_-]*")
OPTION = re.compile(r"\s--?[A-Za-z]")


class Wrong(Exception):
    """Something in the documentation, or in what is said about it, is wrong."""


@dataclass(frozen=True)
class Command:
    """A command of a page, and what the page shows as its output."""

    line: int
    text: str
    shown: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """The first word: what is started."""
        return first_word(self.text)


def first_word(text: str) -> str:
    """What a line starts, if it is a command."""
    while assignment := ASSIGNMENT.match(text):
        text = text[assignment.end() :]
    return text.split(maxsplit=1)[0] if text.strip() else ""


def is_known(text: str) -> bool:
    """Whether a line starts a program that documentation speaks of, or a script of this tree."""
    word = first_word(text)
    return word in KNOWN or word.startswith(("./", "deploy/"))


# Reading a page


@dataclass(frozen=True)
class Block:
    """A block of code: the number of its first line, its language, and its lines without their indentation."""

    line: int
    language: str
    lines: tuple[str, ...]


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page: between fences, or indented after a blank line."""
    lines = text.split("\n")
    at = 0
    blank = True
    while at < len(lines):
        line = lines[at]
        bare = line.lstrip()
        if bare.startswith("```"):
            indent = len(line) - len(bare)
            end = at + 1
            while end < len(lines) and lines[end].strip() != "```":
                end += 1
            if end == len(lines):
                raise Wrong(f"line {at + 1}: a fence without an end")
            yield Block(at + 2, bare[3:].strip(), tuple(dedented(lines[at + 1 : end], indent)))
            at, blank = end + 1, False
        elif blank and line.startswith("    ") and bare:
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            found = lines[at:end]
            while not found[-1].strip():
                found.pop()
            indent = min(len(each) - len(each.lstrip()) for each in found if each.strip())
            yield Block(at + 1, "", tuple(dedented(found, indent)))
            at, blank = end, True
        else:
            blank = not bare
            at += 1


def dedented(lines: Iterable[str], indent: int) -> Iterator[str]:
    """The lines without so many spaces at their beginning."""
    for line in lines:
        yield line[min(indent, len(line) - len(line.lstrip())) :]


def commands(text: str) -> list[Command]:
    """Every command of a page, in its order."""
    return [command for block in blocks(text) for command in commands_of(block)]


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a block, if it has any."""
    # Brackets around an option: how a program is called in general.
    if block.language in TEXT or (block.language not in SHELL and any("[--" in line for line in block.lines)):
        return
    if any(line.startswith("$ ") for line in block.lines):
        yield from session(block)
    elif block.language in SHELL or any(is_known(line) for line in block.lines):
        for number, text in statements(block.lines, block.line):
            if block.language not in SHELL and not is_known(text):
                raise Wrong(
                    f"line {number}: {text!r} among commands; is it one? Put other text into a block of its own"
                )
            yield Command(number, text)
    else:
        for number, line in enumerate(block.lines, block.line):
            if PROGRAM.fullmatch(first_word(line)) and OPTION.search(line):
                raise Wrong(f"line {number}: is {line!r} a command? Say ```sh or ```text above it")


def session(block: Block) -> Iterator[Command]:
    """Commands after ``$``, and below each what it prints."""
    at = 0
    lines = block.lines
    while at < len(lines):
        begin = at
        if not lines[at].startswith("$ "):
            raise Wrong(f"line {block.line + at}: {lines[at]!r} stands above the first command")
        text = lines[at][2:]
        while text.endswith("\\"):
            at += 1
            text += "\n" + lines[at]
        end = at + 1
        while end < len(lines) and not lines[end].startswith("$ "):
            end += 1
        yield Command(block.line + begin, text, tuple(line for line in lines[at + 1 : end] if line.strip()))
        at = end


def statements(lines: Iterable[str], first: int) -> Iterator[tuple[int, str]]:
    """Whole commands of the shell: lines, joined where the shell would read on."""
    text = ""
    begin = first
    for number, line in enumerate(lines, first):
        if not text:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            begin = number
        text = f"{text}\n{line}" if text else line
        if is_whole(text):
            yield begin, text
            text = ""
    if text:
        raise Wrong(f"line {begin}: the shell expects more after {text!r}")


def is_whole(text: str) -> bool:
    """Whether the shell takes this for a command with an end."""
    if text.endswith("\\"):
        return False
    # Simple commands are whole, and most are simple.
    if not re.search(r"[<(`{'\"]|\b(if|for|while|case)\b", text):
        return True
    done = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, timeout=DEADLINE, check=False)
    return done.returncode == 0 and not done.stderr


# What is said about pages


@dataclass
class Mark:
    """What is said about the commands that begin with a text."""

    begins: str
    #: Why it is not run.
    not_run: str | None = None
    #: It stays in the background; this is in its output once it is ready.
    ready: str | None = None
    #: A script that runs before it, one that runs beside it, and one that runs when it has ended. They must succeed.
    before: str = ""
    beside: str = ""
    after: str = ""
    #: The exit status that the page tells the reader to expect.
    status: int = 0
    used: bool = field(default=False, compare=False)


@dataclass
class Page:
    """A page, and what is said about it."""

    path: str
    text: str
    prepare: str = ""
    background: list[dict[str, str]] = field(default_factory=list)
    replace: dict[str, str] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    programs: dict[str, str] = field(default_factory=dict)

    def mark(self, command: Command) -> Mark:
        """What is said about a command: the longest text that it begins with."""
        fits = [mark for mark in self.marks if command.text.startswith(mark.begins)]
        if fits:
            found = max(fits, key=lambda mark: len(mark.begins))
            found.used = True
            return found
        words = [word for line in command.text.splitlines() for word in [first_word(line)]]
        program = command.program
        if program == "sudo":
            program = command.text.split()[1]
        why = self.programs.get(program) or next((self.programs[word] for word in words if word in self.programs), None)
        return Mark(command.text, not_run=why, used=True)


def pages(root: Path = REPOSITORY, said: dict[str, Any] | None = None) -> list[Page]:
    """All pages that have commands, with what is said about them."""
    said = tomllib.loads(MARKS.read_text()) if said is None else said
    names = sorted({str(path.relative_to(root)) for pattern in PAGES for path in root.glob(pattern)})
    about = said.get("pages", {})
    if unknown := about.keys() - names:
        raise Wrong(f"pages.toml speaks of pages that do not exist: {sorted(unknown)}")
    found = []
    for name in names:
        text = (root / name).read_text()
        try:
            any_commands = bool(commands(text))
        except Wrong as wrong:
            raise Wrong(f"{name}: {wrong}") from None
        if not any_commands:
            if name in about:
                raise Wrong(f"pages.toml speaks of {name}, which has no commands")
            continue
        entry = dict(about.get(name, {}))
        if "as" in entry:
            entry = dict(about[entry["as"]])
        marks = [Mark(**mark) for mark in entry.pop("commands", [])]
        found.append(Page(name, text, marks=marks, programs=said.get("programs", {}), **entry))
    return found


# Running


def convelo() -> Path:
    """The program that the documentation is about."""
    named = os.environ.get("CONVELO_TESTS_BINARY")
    program = Path(named) if named else REPOSITORY / "target/debug/convelo"
    if not program.exists():
        raise Wrong(f"{program} is missing: run 'cargo build --workspace' first")
    return program.resolve()


def measured() -> Path:
    """The program that is measured, of the same build."""
    return beside("convelo-service")


def xtask() -> Path:
    """The program of the repository's tasks, of the same build."""
    return beside("xtask")


def beside(name: str) -> Path:
    """A program of the same build."""
    program = convelo().with_name(name)
    if not program.exists():
        raise Wrong(f"{program} is missing: run 'cargo build --workspace' first")
    return program


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Background:
    """A program in a process group of its own, with its output in a file."""

    def __init__(self, text: str, directory: Path, environment: dict[str, str], log: Path) -> None:
        self.text = text
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                ["bash", "-c", text], cwd=directory, env=environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def wait_until_it_says(self, words: str) -> None:
        """Waits until it is ready."""
        end = time.monotonic() + DEADLINE
        while words not in self.said():
            if self.process.poll() is not None or time.monotonic() > end:
                state = "still runs" if self.process.returncode is None else f"ended with {self.process.returncode}"
                raise Wrong(f"{self.text}\n{state} and has not said {words!r}, but\n{self.said()}")
            time.sleep(0.02)

    def end(self) -> int | None:
        """Waits for its end, and returns its status; None if the deadline came first."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(DEADLINE)
        self.kill()
        return None

    def stop(self) -> int | None:
        """Asks it to stop, as its operator would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        return self.end()

    def kill(self) -> None:
        """Ends it at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Reader:
    """Someone who follows a page, command by command, in a directory that is empty at first."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.log: list[tuple[Command, str]] = []
        self.running: list[Background] = []
        self.temporary = tempfile.TemporaryDirectory(prefix="convelo-docs-")
        root = Path(self.temporary.name)
        self.directory = root / "here"
        self.outputs = root / "outputs"
        programs = root / "programs"
        for directory in [self.directory, self.outputs, programs]:
            directory.mkdir()
        python = sys.executable
        for name, program in [("convelo", convelo()), ("xtask", xtask()), ("python", python), ("python3", python)]:
            # A program finds what lies next to it, so Python's are started by a script.
            (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(str(program))} "$@"\n')
            (programs / name).chmod(0o755)
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        ports = free_ports(4)
        self.environment = kept | {
            "HOME": str(self.directory),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "REPOSITORY": str(REPOSITORY),
            "NO_COLOR": "1",
            **{f"PORT{number or ''}": str(port) for number, port in enumerate(ports)},
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.running:
            each.kill()
        self.temporary.cleanup()

    def follow(self) -> None:
        """Runs what can be run; notes all of it."""
        if self.page.prepare:
            self.script(self.page.prepare, "the preparation")
        for program in self.page.background:
            self.start(f"exec {program['run']}").wait_until_it_says(program["ready"])
        for command in commands(self.page.text):
            mark = self.page.mark(command)
            if mark.not_run is not None:
                self.log.append((command, f"not run: {mark.not_run}"))
            else:
                self.run(command, mark)
                self.log.append((command, "ran"))
        for each in reversed(self.running):
            status = each.stop()
            if status not in (0, -signal.SIGTERM):
                raise Wrong(f"{each.text}\nended with {status} when it was stopped, and said\n{each.said()}")
        unused = [mark.begins for mark in self.page.marks if not mark.used]
        if unused:
            raise Wrong(f"pages.toml speaks of commands that {self.page.path} does not have: {unused}")

    def text(self, text: str) -> str:
        """A command with what stands for the page's examples."""
        for example, real in sorted(self.page.replace.items(), key=lambda item: -len(item[0])):
            text = text.replace(example, real)
        return text

    def run(self, command: Command, mark: Mark) -> None:
        """Runs one command to its end, or until it is ready."""
        if mark.before:
            self.script(mark.before, "what comes before it")
        text = self.text(command.text)
        beside = self.start(f"set -e\n{mark.beside}") if mark.beside else None
        process = self.start(text if mark.ready is None else f"exec {text}")
        if mark.ready is not None:
            process.wait_until_it_says(mark.ready)
        else:
            status = process.end()
            if status != mark.status:
                also = f"\nand beside it\n{beside.said()}" if beside else ""
                raise Wrong(
                    f"{self.page.path}:{command.line}: {command.text}\n(run as: {text})\nended with {status}, "
                    f"not {mark.status}, and said\n{process.said()}{also}"
                )
            self.running.remove(process)
        if beside is not None:
            if (status := beside.end()) != 0:
                raise Wrong(f"what runs beside {command.text!r} ended with {status} and said\n{beside.said()}")
            self.running.remove(beside)
        self.compare(command, process.said())
        if mark.after:
            self.script(mark.after, f"what comes after {command.text!r}")

    def compare(self, command: Command, said: str) -> None:
        """Every line that the page shows is in what was printed, in this order."""
        lines = iter(said.splitlines())
        for shown in command.shown:
            pattern = self.pattern(shown)
            if not any(pattern.fullmatch(line) for line in lines):
                raise Wrong(f"{self.page.path}:{command.line}: shows {shown!r}; {command.text!r} printed\n{said}")

    def pattern(self, shown: str) -> re.Pattern[str]:
        """Lines like a shown one: digests and what has been left out may be anything."""
        examples = "|".join(re.escape(example) for example in sorted(self.page.replace, key=len, reverse=True))
        parts = re.split(f"({examples}|…|[0-9a-f]{{8,}})" if examples else "(…|[0-9a-f]{8,})", shown.rstrip())
        return re.compile("".join(".*" if index % 2 else re.escape(part) for index, part in enumerate(parts)))

    def script(self, text: str, what: str) -> None:
        """Runs a script of ours, which must succeed."""
        process = self.start(f"set -e\n{text}")
        if (status := process.end()) != 0:
            raise Wrong(f"{self.page.path}: {what} ended with {status}:\n{text}\nand said\n{process.said()}")
        self.running.remove(process)

    def start(self, text: str) -> Background:
        log = self.outputs / str(len(list(self.outputs.iterdir())))
        process = Background(text, self.directory, self.environment, log)
        self.running.append(process)
        return process


# What is checked of commands that are not run, and of those in sentences


@functools.cache
def help_of(*words: str) -> str:
    """The help of a subcommand."""
    command = [str(convelo()), *words, "--help"]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout


@functools.cache
def help_of_measured() -> str:
    """What ``convelo-service --help`` says."""
    command = [str(measured()), "--help"]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout


@functools.cache
def help_of_xtask() -> str:
    """What ``cargo xtask help`` says."""
    command = [str(xtask()), "help"]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout


@functools.cache
def help_of_script(path: str) -> str:
    """The help of a script of this tree; nothing if it is not there, which is said elsewhere."""
    if not (REPOSITORY / path).exists():
        return ""
    command = ["bash", str(REPOSITORY / path), "--help"]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout


def subcommands(text: str) -> set[str]:
    """The subcommands that a help lists."""
    found = re.search(r"^Commands:\n((?:  .*\n)+)", text, re.MULTILINE)
    return set(re.findall(r"^  ([a-z][a-z-]*)", found[1], re.MULTILINE)) - {"help"} if found else set()


def problem(text: str) -> str | None:
    """What is wrong with a command that is perhaps not run: a subcommand, an option, a package or a file that does not
    exist.
    """
    line = text.split(" #")[0].replace("\\\n", " ")
    for part in re.split(r"\s(?:\||&&|;)\s|\n", line):
        words = re.split(r"\s+|(?<=-[a-z])=|(?<=[a-z])=(?=[\"'\w./])", part.strip())
        while words and (words[0] in {"sudo", "exec"} or re.fullmatch(r"\w+=.*", words[0])):
            words.pop(0)
        found = problem_of_words(words)
        if found is not None:
            return found
    for path in re.findall(r"(?<![\w/.])(?:deploy|docs)/[\w./-]+", line):
        if not (REPOSITORY / path).exists():
            return f"there is no {path}"
    return None


def problem_of_words(words: list[str]) -> str | None:
    """The same of a simple command."""
    match words:
        case ["convelo", *arguments]:
            return problem_of_convelo(arguments)
        case ["convelo-service", *arguments]:
            return unknown_option(arguments, help_of_measured(), "convelo-service")
        case ["cargo", "xtask", *arguments] if arguments:
            return problem_of_xtask(arguments)
        case ["cargo", *arguments]:
            return problem_of_cargo(arguments)
        case ["docker", "run", *arguments]:
            at = [n for n, word in enumerate(arguments) if re.match(r"convelo/(provider|try):", word)]
            return problem_of_convelo(arguments[at[0] + 1 :]) if at and "--entrypoint" not in arguments else None
        case [script, *arguments] if re.fullmatch(r"(\./)?deploy/[\w./-]+\.sh", script):
            about = help_of_script(script.removeprefix("./"))
            _, *behind = " ".join(arguments).split(" -- ")
            of_ours = problem_of_convelo(behind[0].split()) if behind else None
            return unknown_option(arguments, about, script) or of_ours
    return None


def problem_of_convelo(words: list[str]) -> str | None:
    """A subcommand, or an option of it, that does not exist."""
    if words and words[0].startswith("-"):
        return unknown_option(words, help_of(), "convelo")
    path: list[str] = []
    about = help_of()
    while words and (names := subcommands(about)) and not words[0].startswith("-"):
        word = words[0]
        if word not in names:
            return None if word.isupper() or "…" in word else f"there is no 'convelo {' '.join([*path, word])}'"
        path.append(word)
        words = words[1:]
        about = help_of(*path)
    return unknown_option(words, about, " ".join(["convelo", *path]))


def problem_of_xtask(words: list[str]) -> str | None:
    """A task that does not exist, or an option that no task has."""
    about = help_of_xtask()
    depth = 2 if words[0] in {"bench", "manifest"} and len(words) > 1 and words[1].islower() else 1
    task = " ".join(words[:depth])
    if not re.search(rf"^  {re.escape(task)}\b", about, re.MULTILINE) and task != "help":
        return f"there is no 'cargo xtask {task}'"
    return unknown_option(words[depth:], about, "cargo xtask")


def problem_of_cargo(words: list[str]) -> str | None:
    """A package or a profile that does not exist."""
    for option, name in zip(words, words[1:], strict=False):
        if option in {"-p", "--package"}:
            manifests = [*REPOSITORY.glob("*/Cargo.toml"), *REPOSITORY.glob("crates/*/Cargo.toml")]
            if not any(f'name = "{name}"' in manifest.read_text() for manifest in manifests):
                return f"there is no package {name}"
        if option == "--profile" and f"[profile.{name}]" not in (REPOSITORY / "Cargo.toml").read_text():
            return f"there is no profile {name}"
    return None


def unknown_option(words: list[str], about: str, what: str) -> str | None:
    """The first option that a help does not name."""
    for word in words:
        if word == "--":
            break
        option = re.match(r"--?[a-z][a-z_-]+|-[a-zA-Z]\b", word)
        if option is None:
            continue
        name = option[0] if option[0].startswith("--") or len(option[0]) == 2 else f"-{option[0]}"
        if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", about):
            return f"'{what}' has no option {name}"
    return None


def in_sentences(text: str) -> Iterator[str]:
    """Commands of ours in a page's sentences: between backticks, outside of blocks."""
    outside = re.sub(r"^([ ]*)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    names = "|".join(sorted(subcommands(help_of())))
    for span in re.findall(r"`([^`]+)`", outside):
        span = " ".join(span.split())
        if span.startswith(("convelo ", "convelo-service ", "cargo ")):
            yield span
        elif re.match(rf"({names}) --?[a-z]", span):
            yield f"convelo {span}"


def paths(text: str) -> Iterator[str]:
    """Files of this tree that a page names, between backticks."""
    tree = "bench|crates|deploy|docs|fuzz|proto|python|tests|vectors|xtask"
    yield from re.findall(rf"`((?:{tree})/[\w./-]+)`", text)


def main(arguments: list[str]) -> int:
    """Follows the pages, and says what became of each command."""
    failed = 0
    counts: dict[str, int] = {}
    if shutil.which("bash") is None:
        print("bash is missing")
        return 1
    try:
        found = pages()
    except Wrong as wrong:
        print(f"WRONG: {wrong}")
        return 1
    for page in found:
        if arguments and page.path not in arguments:
            continue
        began = time.monotonic()
        with Reader(page) as reader:
            try:
                reader.follow()
            except Wrong as wrong:
                failed += 1
                print(f"WRONG: {page.path}: {wrong}\n")
            for command, outcome in reader.log:
                counts[outcome] = counts.get(outcome, 0) + 1
                print(f"{page.path}:{command.line}: {outcome}: {command.text.splitlines()[0]}")
        print(f"{page.path}: {time.monotonic() - began:.1f} s", flush=True)
    for outcome, number in sorted(counts.items(), key=lambda item: -item[1]):
        print(f"{number:4} {outcome}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
