"""The workflows in .github: what GitHub accepts, without the mistakes that are known, and our rules.

They have not been run. GitHub's schema comes with check-jsonschema; zizmor knows the mistakes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOWS = REPOSITORY / ".github/workflows"
NAMES = sorted(path.name for path in WORKFLOWS.iterdir())
SCRIPTS = sorted((REPOSITORY / "deploy/release").glob("*.sh"))

#: A commit, and for people the version that it was.
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$|uses: \$/\.github/workflows/\S+$")


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(name)
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)


def schema_problems(schema: str, file: Path) -> str:
    done = tool("check-jsonschema", "--builtin-schema", schema, str(file))
    return "" if done.returncode == 0 else done.stdout + done.stderr


def known_mistakes(file: Path) -> str:
    done = tool("zizmor", "--offline", "--no-progress", "--strict-collection", "--persona=pedantic", str(file))
    return "" if done.returncode == 0 else done.stdout + done.stderr


def jobs_of(text: str) -> dict[str, dict[str, Any]]:
    jobs: dict[str, dict[str, Any]] = yaml.safe_load(text)["jobs"]
    return jobs


def rule_problems(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if "uses:" in line and not PINNED.search(line):
            yield f"not pinned by its commit: {line.strip()}"
    if yaml.safe_load(text).get("permissions") != {}:
        yield "a job that says nothing has permissions"
    for name, job in jobs_of(text).items():
        if "permissions" not in job:
            yield f"{name}: which permissions does it need?"
        if "uses" not in job and "timeout-minutes" not in job:
            yield f"{name}: it may run for ever"
        for step in job.get("steps", []):
            action = step.get("uses", "")
            if action.startswith("actions/checkout@") and step.get("with", {}).get("persist-credentials") is not False:
                yield f"{name}: the checkout leaves a token behind"
            if "${{" in step.get("run", ""):
                yield f"{name}: text from GitHub becomes part of a script; pass it by env"


def commands(text: str) -> list[str]:
    return [step["run"] for job in jobs_of(text).values() for step in job.get("steps", []) if "run" in step]


@pytest.mark.parametrize("name", NAMES)
def test_workflows_are_what_github_accepts(name: str) -> None:
    assert schema_problems("vendor.github-workflows", WORKFLOWS / name) == ""


@pytest.mark.parametrize("name", NAMES)
def test_workflows_have_no_known_mistakes(name: str) -> None:
    assert known_mistakes(WORKFLOWS / name) == ""


@pytest.mark.parametrize("name", NAMES)
def test_workflows_keep_our_rules(name: str) -> None:
    assert list(rule_problems((WORKFLOWS / name).read_text())) == []


def test_updates_are_proposed_as_github_understands_it() -> None:
    assert schema_problems("vendor.dependabot", REPOSITORY / ".github/dependabot.yml") == ""
    assert known_mistakes(REPOSITORY / ".github/dependabot.yml") == ""


@pytest.mark.parametrize("name", NAMES)
def test_files_that_workflows_name_are_there(name: str) -> None:
    text = (WORKFLOWS / name).read_text()
    named = set(re.findall(r"deploy/[\w/]+\.sh|\.ci/run|(?<=\$/)\.github/workflows/\w+\.yml", text))
    for job in jobs_of(text).values():
        images = job.get("strategy", {}).get("matrix", {}).get("image", [])
        named |= {f"deploy/images/{image}/Dockerfile" for image in images}
    assert named
    assert [file for file in sorted(named) if not (REPOSITORY / file).exists()] == []


def test_what_a_job_takes_another_has_left() -> None:
    left, taken = set(), set()
    for job in jobs_of((WORKFLOWS / "release.yml").read_text()).values():
        rows = job.get("strategy", {}).get("matrix", {}).get("include", [{}])
        for step in job.get("steps", []):
            name = step.get("with", {}).get("name", "")
            for row in rows:
                filled = re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda key: row[key[1]], name)
                if "upload-artifact@" in step.get("uses", ""):
                    left.add(filled)
                elif "download-artifact@" in step.get("uses", "") and filled:
                    taken.add(filled)
    assert taken and taken <= left, (taken, left)


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_shell(name: str, tmp_path: Path) -> None:
    for index, command in enumerate(commands((WORKFLOWS / name).read_text())):
        script = tmp_path / f"{index}.sh"
        # As GitHub runs them.
        script.write_text(f"#!/bin/bash\nset -eo pipefail\n{command}")
        done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, timeout=10)
        assert done.returncode == 0, done.stderr
        if shutil.which("shellcheck"):
            done = subprocess.run(["shellcheck", script], capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_of_releases_are_portable_shell(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("not tested: shellcheck is not installed")
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout


#: Each breaks what is good in one way: what to replace, by what, and words of the complaint.
BROKEN = {
    "a job without a machine": ("    runs-on: ubuntu-24.04\n    timeout-minutes: 120\n", "", "runs-on"),
    "a field of another name": ("timeout-minutes", "timeout_minutes", "timeout_minutes"),
    "a permission that does not exist": ("contents: read", "contents: readonly", "readonly"),
    "a moving tag": ("@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7", "not pinned by its commit"),
    "a commit of no version": (" # v7.0.1", "", "not pinned by its commit"),
    "a token left behind": ("          persist-credentials: false\n", "", "leaves a token behind"),
    "permissions for all": ("permissions: {}", "permissions: write-all", "a job that says nothing"),
    "a job without permissions": ("    permissions:\n      contents: read\n", "", "which permissions"),
    "no end": ("    timeout-minutes: 120\n", "", "for ever"),
    "a stranger's text in a script": (
        "run: .ci/run",
        "run: echo ${{ github.event.pull_request.title }}",
        "template-injection",
    ),
    "a stranger's code with our secrets": ("pull_request:", "pull_request_target:", "dangerous-triggers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_workflows_are_refused(name: str, tmp_path: Path) -> None:
    good, bad, words = BROKEN[name]
    text = (WORKFLOWS / "ci.yml").read_text()
    assert good in text
    broken = tmp_path / ".github/workflows/ci.yml"
    broken.parent.mkdir(parents=True)
    broken.write_text(text.replace(good, bad))
    complaints: list[str] = []
    for look in (
        lambda: list(rule_problems(broken.read_text())),
        lambda: [schema_problems("vendor.github-workflows", broken)],
        lambda: [known_mistakes(broken)],
    ):
        complaints += look()
        if any(words in complaint for complaint in complaints):
            return
    pytest.fail(f"{words!r} is not in {complaints}")


def version_of(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = directory / "deploy/release/version.sh"
    script.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "deploy/release/version.sh", script)
    return subprocess.run(["sh", script, *arguments], capture_output=True, text=True, timeout=10)


#: How deploy and docs name a version.
OLDER = [
    "docker build --tag convelo/try:1.2.2 .",
    "    newTag: 1.2.2",
    "ARG VERSION=1.2.2 REVISION=unknown",
    "  TAG           The images' tag (1.2.2).",
    "tag=${positional[2]-1.2.2}",
    "gh attestation verify convelo-1.2.2-x86_64-linux-gnu.tar.gz",
    'name = "convelo-service 1.2.2"',
    "convelo policy from-release 1.2.2 --output policy.toml",
    "deploy/images/start_container.sh server 192.0.2.7 1.2.2",
    "deploy/images/start_container.sh --data alice data_provider1 192.0.2.7 1.2.2 -- run job.toml",
    "image: ${CONVELO_TRY_IMAGE:-convelo/try:1.2.2}",
]


def test_this_tree_names_one_version(tmp_path: Path) -> None:
    """With a newer number in Cargo.toml, every place that names the old one is listed."""
    found = re.search(r'^version = "(.+)"$', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)
    assert found is not None
    version = found[1]
    for name in ("deploy", "docs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)

    def said_of(number: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "Cargo.toml").write_text(f'[workspace.package]\nversion = "{number}"\n')
        (tmp_path / "CHANGELOG.md").write_text(f"## [{number}] - 2027-01-02\n\n- a\n")
        return version_of(tmp_path, f"v{number}")

    now = said_of(version)
    assert now.returncode == 0, now.stderr
    newer = said_of("99.0.0")
    assert newer.returncode == 1
    listed = {line.split(":")[0] for line in newer.stderr.splitlines()[1:]}
    number = re.compile(rf"(?<![\d.]){re.escape(version)}(?!\.?\d)")
    named = {
        path.relative_to(REPOSITORY).as_posix()
        for name in ("deploy", "docs")
        for path in (REPOSITORY / name).rglob("*")
        if path.is_file() and number.search(path.read_text(errors="replace"))
    }
    # The figures of services that a test of the alerts makes up, and the log, which keeps old versions.
    assert named - listed <= {"deploy/prometheus/alerts.test.yaml", "deploy/measurements.toml"}
    assert len(listed) >= 15


def test_a_release_has_one_version_and_its_changes(tmp_path: Path) -> None:
    (tmp_path / "Cargo.toml").write_text('[workspace.package]\nversion = "1.2.3"\n\n[x]\nversion = "9.9.9"\n')
    sections = ["# Changelog", "## [Unreleased]", "- a", "## [1.2.3] - 2027-01-02", "### Added", "- b"]
    changes = "\n\n".join([*sections, "## [1.2.2] - 2026-12-30", "- c\n"])
    (tmp_path / "CHANGELOG.md").write_text(changes)
    assert version_of(tmp_path, "v1.2.3").stdout == "1.2.3\n"
    assert version_of(tmp_path, "--notes", "1.2.3").stdout.split() == ["###", "Added", "-", "b"]
    for arguments, words in [
        (["v1.2.4"], "Cargo.toml has version 1.2.3"),
        (["v9.9.9"], "Cargo.toml has version 1.2.3"),
        (["--notes", "1.2"], "CHANGELOG.md has no section '## [1.2] - DATE'"),
        (["main"], "usage"),
        ([], "usage"),
    ]:
        done = version_of(tmp_path, *arguments)
        assert done.returncode == 1 and words in done.stderr, (arguments, done.stderr)
    (tmp_path / "docs").mkdir()
    for line in OLDER:
        page = tmp_path / "docs/page.md"
        page.write_text(line.replace("1.2.2", "1.2.3"))
        assert version_of(tmp_path, "v1.2.3").stdout == "1.2.3\n", line
        page.write_text(line)
        done = version_of(tmp_path, "v1.2.3")
        assert done.returncode == 1 and "docs/page.md:1:" in done.stderr, line
    (tmp_path / "docs/page.md").unlink()
    (tmp_path / "deploy/measurements.toml").write_text('name = "convelo-service 1.2.2"\n')
    assert version_of(tmp_path, "v1.2.3").returncode == 0
    (tmp_path / "CHANGELOG.md").write_text(changes.replace("## [1.2.3] - 2027-01-02", "## [1.2.3]"))
    assert "has no section" in version_of(tmp_path, "v1.2.3").stderr
