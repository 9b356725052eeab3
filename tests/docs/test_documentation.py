"""Every command of the documentation runs, or is marked as one that does not run here."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from documentation import (
    DEADLINE,
    PAGES,
    REPOSITORY,
    Command,
    Mark,
    Page,
    Reader,
    Wrong,
    commands,
    in_sentences,
    measured,
    pages,
    paths,
    problem,
    xtask,
)

#: A page may run for longer than other tests: each of its commands has a deadline of its own.
pytestmark = pytest.mark.timeout(300)

ALL = pages()
MARKDOWN = sorted({path for pattern in PAGES for path in REPOSITORY.glob(pattern)})


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.path)
def test_commands_of_a_page_do_what_it_says(page: Page) -> None:
    with Reader(page) as reader:
        reader.follow()
        for command, outcome in reader.log:
            print(f"{page.path}:{command.line}: {outcome}: {command.text.splitlines()[0]}")


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_commands_that_are_not_run_exist(path: Path) -> None:
    text = path.read_text()
    for command in [*(command.text for command in commands(text)), *in_sentences(text)]:
        assert problem(command) is None, f"{path.name}: {command}: {problem(command)}"


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_files_that_are_named_exist(path: Path) -> None:
    for name in paths(path.read_text()):
        assert (REPOSITORY / name).exists(), f"{path.name}: there is no {name}"


def enclaves() -> list[tuple[str, str, str, str]]:
    """Memory, workers, threads and size of each enclave in the table of ``deploy/gramine/README.md``."""
    text = (REPOSITORY / "deploy/gramine/README.md").read_text()
    return re.findall(r"^\| `(\d+[MG])` \| (\d+) \| (\d+) \| (\d+[MG]) \|$", text, re.MULTILINE)


def test_sizes_are_those_of_the_formula() -> None:
    """The table of ``deploy/gramine/README.md`` beside what ``cargo xtask manifest sizes`` computes."""
    rows = enclaves()
    assert len(rows) >= 5
    for memory, workers, threads, enclave in rows:
        command = [str(xtask()), "manifest", "sizes", "--memory", memory, "--workers", workers]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
        found = dict(line.split(": ") for line in printed.splitlines())
        assert (found["max_threads"], found["enclave"]) == (threads, enclave), (memory, workers)


def test_most_commands_are_run() -> None:
    """So that a change that marks everything is seen."""
    outcomes = [page.mark(command).not_run for page in ALL for command in commands(page.text)]
    assert sum(why is None for why in outcomes) >= 80


def test_shares_are_those_that_the_program_prints() -> None:
    """The table of ``docs/operate.md`` beside what ``convelo-service`` says when it starts."""
    text = (REPOSITORY / "docs/operate.md").read_text()
    threads_of = {(memory, workers): threads for memory, workers, threads, _ in enclaves()}
    row = r"^\| `(\d+[MG])` \| (\d+) \| (\d+), (\d+) \| (\d+), (\d+) \| (\d+) MiB \| ([\d,]+)"
    rows = re.findall(row, text, re.MULTILINE)
    assert len(rows) >= 5
    for memory, workers, *shares, keys in rows:
        threads = threads_of[memory, workers]
        # The address belongs to nobody, so the program ends even where it finds a device.
        command = [str(measured()), "203.0.113.1:7443"]
        command += ["--memory", memory, "--workers", workers]
        said = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False).stderr
        numbers = [
            re.search(pattern, said)
            for pattern in [
                r"(\d+) without a seat",
                r"(\d+) with one",
                r"(\d+) that wait",
                r"(\d+) of two parties that run",
                r"(\d+) MiB for sets",
                r"max_threads is at least (\d+)",
            ]
        ]
        assert [number and number[1] for number in numbers] == [*shares, threads], (memory, said)
        fits = int(shares[-1]) * 2**20 / 18.5 / 2
        assert fits - 1_000_000 < int(keys.replace(",", "")) <= fits, memory


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and GitLab make them."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set(re.findall(r'<a (?:id|name)="([^"]+)"', outside))
    for heading in re.findall(r"^#+ (.+)$", outside, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(path: Path) -> None:
    outside = re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", outside):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors(there.read_text()), f"{target}: {there.name} has no such heading"


# The check itself: what it must not let pass.


def follow(text: str, **said: Any) -> list[tuple[str, str]]:
    """What becomes of the commands of a page with this text."""
    with Reader(Page("page.md", text, **said)) as reader:
        reader.follow()
        return [(command.text, outcome) for command, outcome in reader.log]


def test_a_new_command_that_fails_is_found() -> None:
    assert follow("    cat /dev/null\n") == [("cat /dev/null", "ran")]
    with pytest.raises(Wrong, match="ended with 1"):
        follow("    cat nothing\n")
    with pytest.raises(Wrong, match="ended with 127"):
        follow("```sh\nno-such-program\n```\n")


def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("documentation.DEADLINE", 0.3)
    began = time.monotonic()
    with pytest.raises(Wrong, match="ended with None"):
        follow("```sh\nsleep 30\n```\n")
    assert time.monotonic() - began < DEADLINE / 2


def test_a_program_in_the_background_that_is_not_ready_is_found() -> None:
    with pytest.raises(Wrong, match="has not said 'ready'"):
        follow("```sh\ntrue\n```\n", background=[{"run": "echo steady", "ready": "ready"}])


def test_output_that_differs_is_found() -> None:
    page = "    $ echo digest 0123456789abcdef of alice\n    digest {} of alice\n"
    for shown in ["0123456789abcdef", "ffffffff", "0123…", "…"]:
        follow(page.format(shown))
    for shown in ["123", "0123456789abcdef of bob and", ""]:
        with pytest.raises(Wrong, match="shows"):
            follow(page.format(shown))


def test_a_mark_without_a_command_is_found() -> None:
    with pytest.raises(Wrong, match="does not have"):
        follow("    cat /dev/null\n", marks=[Mark("cp a b", not_run="there is no a")])
    said: dict[str, Any] = {"pages": {"docs/no-such-page.md": {}}}
    with pytest.raises(Wrong, match="no-such-page"):
        pages(REPOSITORY, said)


def test_the_longest_mark_counts() -> None:
    page = Page("page.md", "", marks=[Mark("cp", not_run="one"), Mark("cp a", not_run="two")])
    assert page.mark(Command(1, "cp a b")).not_run == "two"
    assert page.mark(Command(1, "cp b a")).not_run == "one"
    assert page.mark(Command(1, "mv a b")).not_run is None
    page.programs["docker"] = "no engine"
    for text in ["docker run x", "sudo docker run x", "A=1 docker run x"]:
        assert page.mark(Command(1, text)).not_run == "no engine"


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("    convelo --version\n", ["convelo --version"]),
        ("Text\n    that goes on\n", []),
        ("1. Do\n\n       cat a\n       cat b\n", ["cat a", "cat b"]),
        ("```\ncat a \\\n  b\n```\n", ["cat a \\\n  b"]),
        ("```sh\nwhatever\n# a comment\n\nanother\n```\n", ["whatever", "another"]),
        ("```sh\ncat > a <<'END'\nx\nEND\ncat a\n```\n", ["cat > a <<'END'\nx\nEND", "cat a"]),
        ("```sh\nfor i in 1 2; do\n  echo $i\ndone\n```\n", ["for i in 1 2; do\n  echo $i\ndone"]),
        ("```console\n$ cat a\nwhat it says\n$ cat b \\\n    c\n```\n", ["cat a", "cat b \\\n    c"]),
        ("```toml\na = 1\n```\n    x = y\n", []),
        ("    T = H(framed(a, b))\n", []),
        ("    convelo run JOB [--json]\n", []),
        ("    KEY=value cargo xtask test\n", ["KEY=value cargo xtask test"]),
    ],
)
def test_what_is_a_command(page: str, found: list[str]) -> None:
    assert [command.text for command in commands(page)] == found


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ("    new-program --option\n", "is 'new-program --option' a command"),
        ("    cat a\n    and so on\n", "among commands"),
        ("    what\n    $ cat a\n", "above the first command"),
        ("```sh\ncat a\n", "without an end"),
        ("```sh\ncat > a <<'END'\nx\n```\n", "expects more"),
    ],
)
def test_what_is_not_clear_is_refused(page: str, why: str) -> None:
    with pytest.raises(Wrong, match=re.escape(why)):
        commands(page)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("convelo serve --listen 0.0.0.0:7443", None),
        ("convelo serve --lissten 0.0.0.0:7443", "no option --lissten"),
        ("convelo policy from-thin-air X", "no 'convelo policy from-thin-air'"),
        ("convelo policy check policy.toml", None),
        ("convelo join -host HOST:PORT -is_chief True", None),
        ("convelo join -hostess HOST:PORT", "no option --hostess"),
        ("convelo run job.toml --as alice \\\n  --outputs x", "no option --outputs"),
        ("convelo COMMAND --help", None),
        ("cat a | convelo run job.toml --no-such-option", "no option --no-such-option"),
        ("cargo build --profile dist -p convelo-service", None),
        ("cargo build --profile dust", "no profile dust"),
        ("cargo test -p convelo-tset", "no package convelo-tset"),
        ("cargo xtask test --quick", None),
        ("KEY=value cargo xtask tset", "no 'cargo xtask tset'"),
        ("cargo xtask bench join --keys 10", None),
        ("cargo xtask bench joint", "no 'cargo xtask bench joint'"),
        ("docker build --file deploy/no/Dockerfile .", "there is no deploy/no/Dockerfile"),
        ("docker run --rm convelo/provider:0.1.0 run job.toml --as alice", None),
        ("docker run --rm convelo/provider:0.1.0 run job.toml --ass alice", "no option --ass"),
        ("convelo", None),
    ],
)
def test_a_subcommand_or_an_option_that_does_not_exist_is_found(text: str, wrong: str | None) -> None:
    found = problem(text)
    assert found is None if wrong is None else found is not None and wrong in found


def test_commands_in_sentences_are_found() -> None:
    text = "Run `convelo check\njob.toml`, or `serve --admit FILE`; `server --x` is theirs.\n\n```\n`convelo no`\n```\n"
    assert list(in_sentences(text)) == ["convelo check job.toml", "convelo serve --admit FILE"]


def test_nothing_is_left_behind() -> None:
    """Neither a process nor a file, whatever happens."""
    with pytest.raises(Wrong), Reader(Page("page.md", "```sh\nfalse\n```\n", background=[])) as reader:
        left = reader.start("sleep 100")
        reader.follow()
    assert left.process.poll() is not None
    assert not reader.directory.exists()


def test_a_translation_has_the_commands_of_its_original() -> None:
    original, translation = (REPOSITORY / "docs" / name for name in ("deploy-sgx.md", "deploy-sgx.zh.md"))
    texts = [[command.text for command in commands(page.read_text())] for page in (original, translation)]
    assert texts[0] == texts[1]
    headings = [re.findall(r"^#+ (\d+)?", page.read_text(), re.MULTILINE) for page in (original, translation)]
    assert headings[0] == headings[1]
